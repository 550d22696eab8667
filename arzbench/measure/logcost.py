"""What an env's messages cost, by where they go: nowhere, a file, a pipe, a terminal.

A short training per sink, its steps in blocks of messages off, periodic and every one, in turn. A pipe and
a terminal have a process at their other end that reads, as a notebook or a shell does.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from arzbench.clock import Clock
from arzbench.facts import Phase, StopReason
from arzbench.measure.phase_times import PhaseTotals
from arzbench.records import PhaseSamples
from arzbench.study import MODES, Baseline, Checkpoints, Evaluation, TrainConfig
from arzbench.workload import AbstractTraining, AbstractWorkload, Control, StopTraining

SINKS = ("null", "file", "pipe", "terminal")
#: vectorised steps of one block, and rounds of the three modes, at most
BLOCK_STEPS = 6
ROUNDS = 4
#: a block of slow steps ends after this long, and no further round of a sink begins after that [s]
BLOCK_S = 0.1
SINK_S = 0.5


class _Blocks(Control):
    """Switches the messages from block to block and keeps the time of each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.blocks: dict[str, list[tuple[float, int]]] = {mode: [] for mode in MODES}
        self._turn = -1  # the first block warms up
        self._steps = 0
        self._first = 0
        self._began = self._start = clock.ticks()

    def before_step(self, training: AbstractTraining, updates: int) -> None:
        if self._turn < 0 and self._steps == 0:
            training.set_logging("off")
        elif self._steps == BLOCK_STEPS or (self._steps and self._clock.ticks() - self._began > BLOCK_S):
            self._close(training)
        self._steps += 1

    def _close(self, training: AbstractTraining) -> None:
        now = self._clock.ticks()
        if self._turn >= 0:
            made = training.num_timesteps - self._first
            self.blocks[MODES[self._turn % 3]].append((now - self._began, made))
        self._turn += 1
        late = now - self._start > SINK_S
        if self._turn % 3 == 0 and self._turn and (late or self._turn >= 3 * ROUNDS):
            raise StopTraining(StopReason.BUDGET, "enough blocks")
        training.set_logging(MODES[self._turn % 3])
        self._steps, self._first = 0, training.num_timesteps
        self._began = self._clock.ticks()


def measure_sinks(
    config: TrainConfig,
    workload_to: Callable[[Path], AbstractWorkload],
    folder: Path,
    clock: Clock,
    repetition: int,
) -> list[PhaseSamples]:
    """Seconds per env step under each logging mode, for each sink: `LOG` samples, variant `mode:sink`.

    `workload_to` makes a workload whose messages go to a path. A sink that this system does not have is
    left out.
    """
    samples: list[PhaseSamples] = []
    began = clock.ticks()
    for index in range(len(SINKS)):
        if clock.ticks() - began > len(SINKS) * SINK_S:
            break  # a slow env: the next repetition begins with another sink
        sink = SINKS[(repetition + index) % len(SINKS)]
        with contextlib.suppress(OSError), _opened(sink, folder) as path:
            blocks = _Blocks(clock)
            training = _without_updates(workload_to(path), config)
            with contextlib.suppress(StopTraining):
                training.run(blocks)
            training.close()
            samples += [
                PhaseSamples(
                    phase=Phase.LOG,
                    repetition=repetition,
                    variant=f"{mode}:{sink}",
                    seconds=tuple(max(0.0, s) for s, _ in values),
                    units=tuple(n for _, n in values),
                )
                for mode, values in blocks.blocks.items()
                if values
            ]
    return samples


def _without_updates(workload: AbstractWorkload, config: TrainConfig) -> AbstractTraining:
    """`config` as far as its env steps go: what a message costs does not depend on the learning."""
    steps = (3 * ROUNDS + 2) * BLOCK_STEPS * config.n_envs
    loop = config.loop.without_updates(steps)
    bare = msgspec.structs.replace(
        config,
        total_timesteps=max(loop.rollout_steps, steps),
        evaluation=Evaluation(),
        baseline=Baseline(),
        checkpoint=Checkpoints(),
    )
    return workload.create(bare, PhaseTotals(), loop=loop)


@contextlib.contextmanager
def _opened(sink: str, folder: Path) -> Iterator[Path]:
    """A path that messages can be appended to."""
    if sink == "null":
        yield Path(os.devnull)
    elif sink == "file":
        yield folder / "messages.log"
    elif sink == "pipe":
        reader, writer = os.pipe()
        with _read_by_another(reader, writer):
            yield Path(f"/dev/fd/{writer}")
    else:
        reader, writer = pty.openpty()
        tty.setraw(writer)
        with _read_by_another(reader, writer):
            yield Path(os.ttyname(writer))


@contextlib.contextmanager
def _read_by_another(reader: int, writer: int) -> Iterator[None]:
    process = subprocess.Popen(["cat"], stdin=reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(reader)
    try:
        yield
    finally:
        os.close(writer)
        process.wait()

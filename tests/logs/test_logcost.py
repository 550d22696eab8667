"""The cost of messages by sink: measured in turn, and a period chosen from it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import Phase
from arzbench.logs.periodic import PeriodicLogger, smallest_period
from arzbench.measure.logcost import ROUNDS, SINKS, measure_sinks
from arzbench.records import PhaseSamples
from arzbench.study import MODES
from arzbench.study_file import make_config

STEP_S, MESSAGE_S = 0.010, 0.002


class Training:
    """Steps of 10 ms with ten messages, each 2 ms when it is written."""

    def __init__(self, config: Any, path: Path, clock: VirtualClock) -> None:
        self.config, self.clock, self.num_timesteps = config, clock, 0
        self.stream = path.open("a")
        self.log: PeriodicLogger | None = None

    def set_logging(self, mode: str) -> None:
        period = {"off": 0, "periodic": 10, "every": 1}[mode]
        self.log = PeriodicLogger(period, self.stream) if period else None

    def run(self, control: Any) -> None:
        while self.num_timesteps < self.config.total_timesteps:
            control.before_step(self, 0)
            self.clock.advance(STEP_S)
            for i in range(10 if self.log is not None else 0):
                before = self.log.written
                self.log.log("A", "message %d", i)
                self.clock.advance(MESSAGE_S * (self.log.written - before))
            self.num_timesteps += self.config.n_envs

    def close(self) -> None:
        self.stream.close()


def measured(
    kind: type[Training], clock: VirtualClock, folder: Path, repetition: int, algo: str = "dqn"
) -> list[PhaseSamples]:
    config = make_config({"name": "x", "env": "E-v0", "algo": algo, "total_timesteps": 1000}, "test")

    def workload_to(path: Path) -> Any:
        return SimpleNamespace(create=lambda config, recorder, loop: kind(config, path, clock))

    return measure_sinks(config, workload_to, folder, clock, repetition)


@pytest.mark.parametrize("algo", ["dqn", "ppo"])
def test_every_sink_under_every_mode(algo: str, tmp_path: Path) -> None:
    samples = measured(Training, VirtualClock(), tmp_path, 3, algo)
    assert {s.variant for s in samples} == {f"{m}:{k}" for m in MODES for k in SINKS}
    assert {(s.phase, s.repetition) for s in samples} == {(Phase.LOG, 3)}
    for sample in samples:
        mode = sample.variant.partition(":")[0]
        written = {"off": 0, "periodic": 1, "every": 10}[mode]
        assert 1 <= len(sample.seconds) <= ROUNDS
        assert sample.mean_s == pytest.approx(
            STEP_S + written * MESSAGE_S, rel=0.2 if mode == "periodic" else 1e-6
        )
    assert (tmp_path / "messages.log").read_text().count("\n") > 10
    msgspec.json.encode(samples)


def test_a_slow_env_is_measured_on_one_sink_a_repetition(tmp_path: Path) -> None:
    clock, steps = VirtualClock(), []

    class Slow(Training):
        def run(self, control: Any) -> None:
            while True:
                control.before_step(self, 0)
                clock.advance(1.0)
                self.num_timesteps += 1
                steps.append(1)

    seen = set()
    for repetition in range(4):
        seen |= {s.variant for s in measured(Slow, clock, tmp_path, repetition)}
    assert seen == {f"{m}:{k}" for m in MODES for k in SINKS}
    assert len(steps) == 4 * 4


@pytest.mark.parametrize(
    ("every", "counting", "expected"),
    [(8.0, 0.0, 1000), (1.5, 0.0, 50), (1.005, 0.0, 1), (8.0, 0.005, 2000), (8.0, 0.02, None)],
)
def test_the_smallest_period_that_costs_less_than_one_percent(
    every: float, counting: float, expected: int | None
) -> None:
    writing = every - 1 - counting
    chosen = smallest_period(off_s=1.0, periodic_s=1 + counting + writing / 100, period=100, every_s=every)
    assert chosen == expected

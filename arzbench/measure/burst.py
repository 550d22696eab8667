"""One repetition of a calibration, inside its own fresh process: a real short training, timed.

The schedule is brought forward so that every phase occurs within whole rollout + update cycles:
learning starts after a few steps, DQN acts greedily most of the time, evaluation episodes follow the
training, checkpoints are written at two sizes, and the env's messages are switched off, periodic and
on in interleaved blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import msgspec

from arzbench.clock import Clock, process_start
from arzbench.measure.phase_times import PER_STEP, PhaseValues
from arzbench.records import BEFORE_LEARNING, EnvFacts, Phase, PhaseSamples, Record, StopReason
from arzbench.study import DQN, AnyConfig, Checkpoints, OffPolicyConfig, OnPolicyConfig, TrainConfig
from arzbench.study import Evaluation as EvaluationSchedule
from arzbench.workload import (
    AbstractTraining,
    AbstractWorkload,
    Evaluation,
    StopTraining,
    TrainingState,
)

Say = Callable[[str, float], None]
#: steps under each logging mode that is not the study's own, per block; two blocks each
PROBE_STEPS = 40
#: the largest checkpoint written to learn how saving grows with the replay buffer
MAX_PROBE_BYTES = 64_000_000
#: transitions of the small checkpoint that tells how large one can be written
FEW_ROWS = 256
#: DQN's exploration rate while measuring is the mean of the real run's, within these bounds
LEAST_RANDOM, MOST_RANDOM = 0.05, 0.5
#: what the cache of compiled code did in a process
COLD, WARM, UNUSED = "cold", "warm", "unused"
MODES = ("off", "periodic", "every")


class TrialStore(Protocol):
    """Saves and loads one state the way a run does."""

    def save(self, state: TrainingState) -> int:
        """Write `state`, replacing the one before; the bytes written."""

    def load(self) -> tuple[TrainingState, int]:
        """The state and the bytes read."""


class BurstJob(Record, frozen=True, kw_only=True):
    """What one fresh process is to measure."""

    config: AnyConfig
    repetition: int
    cold: bool  # with an empty folder as cache of compiled code
    spawned: float  # clock.now() when the process was asked for
    steps: int  # training env steps after learning has started
    rollout: int | None  # n_steps of on-policy algorithms while measuring; None: as configured
    eval_episodes: int
    max_eval_s: float  # no new evaluation episode after this long
    folder: str  # where trial checkpoints go
    cpu_threads: int


class BurstResult(Record, frozen=True, kw_only=True):
    """What it measured."""

    versions: dict[str, str]
    facts: EnvFacts
    state_bytes: tuple[int, int]
    phases: tuple[PhaseSamples, ...]
    cache: str  # of compiled code: COLD, WARM or UNUSED
    done: float  # clock.now() at the end: what follows is teardown
    notes: tuple[str, ...]


def short_config(job: BurstJob) -> TrainConfig:
    """`job.config` with its schedule brought forward; what a unit costs stays as it is."""
    config = job.config
    changes: dict[str, object] = {
        "evaluation": EvaluationSchedule(
            deterministic=config.evaluation.deterministic, final_episodes=job.eval_episodes
        ),
        "baseline": msgspec.structs.replace(config.baseline, episodes=min(1, config.baseline.episodes)),
        "checkpoint": Checkpoints(),
    }
    start = 0
    if isinstance(config, OffPolicyConfig):
        start = min(config.learning_starts, max(2 * config.rollout_steps, 32))
        changes["learning_starts"] = start
    if isinstance(config, DQN):
        epsilon = _mean_exploration(config)
        changes |= {"exploration_initial_eps": epsilon, "exploration_final_eps": epsilon}
    rollout_steps = config.rollout_steps
    if isinstance(config, OnPolicyConfig) and job.rollout is not None:
        changes["n_steps"] = job.rollout
        rollout_steps = job.rollout * config.n_envs
    rollouts = max(2, math.ceil((start + job.steps) / rollout_steps))
    changes["total_timesteps"] = rollouts * rollout_steps
    return msgspec.structs.replace(config, **changes)


def _mean_exploration(config: DQN) -> float:
    """What a step costs beside the policy depends on how often an action is drawn instead."""
    ramp = min(1.0, config.exploration_fraction) / 2
    mean = config.exploration_final_eps + ramp * (
        config.exploration_initial_eps - config.exploration_final_eps
    )
    return min(max(mean, LEAST_RANDOM), MOST_RANDOM)


class BurstControl:
    """Lets the short training run; switches the messages and writes trial checkpoints on its way."""

    def __init__(
        self, job: BurstJob, config: TrainConfig, values: PhaseValues, trial: _Trial, say: Say, clock: Clock
    ) -> None:
        self._job = job
        self._config = config
        self._values = values
        self._trial = trial
        self._say = say
        self._clock = clock
        self._start = config.learning_starts if isinstance(config, OffPolicyConfig) else 0
        self._prefilled = False
        self._eval_began: float | None = None
        self._segments = _segments(config, self._start)
        self._mode: str = config.logging.mode
        if self._start:
            values.variant = BEFORE_LEARNING
        if isinstance(config, OffPolicyConfig):
            # between steps that write messages caches are cold, for the update after them, too
            values.varied = PER_STEP | {Phase.UPDATE}

    def before_step(self, training: AbstractTraining, updates: int) -> None:
        step = training.num_timesteps
        if step == 0:
            self._trial.save(training)
        if not self._prefilled and isinstance(self._config, OffPolicyConfig) and step >= self._start:
            self._prefilled = True
            self._values.variant = self._mode
            self._trial.half_fill(training, self._job.config)
        mode = _mode_at(self._segments, step, self._config.logging.mode)
        if mode != self._mode:
            self._mode = mode
            training.set_logging(mode)
            self._values.variant = mode
        if updates or not step % 64:
            self._say("training", 0.15 + 0.65 * step / self._config.total_timesteps)

    def before_episode(self, training: AbstractTraining, kind: str) -> None:
        if kind == "final":
            now = self._clock.now()
            if self._eval_began is None:
                self._eval_began = now
            elif now - self._eval_began > self._job.max_eval_s:
                raise StopTraining(StopReason.BUDGET, "enough evaluation episodes")
        if self._mode != self._config.logging.mode:
            self._mode = self._config.logging.mode
            training.set_logging(self._mode)
            self._values.variant = self._mode
        self._say("evaluation" if kind == "final" else kind, 0.85 if kind == "final" else 0.15)

    def during_episode(self, training: AbstractTraining) -> None:
        return

    def during_update(self, training: AbstractTraining) -> None:
        return

    def evaluated(self, training: AbstractTraining, result: Evaluation) -> None:
        return

    def episode_ended(self, training: AbstractTraining, episode_return: float, length: int) -> None:
        return


def planned_rows(config: TrainConfig) -> int:
    """Transitions in the replay buffer at the end of the study's training."""
    return min(config.buffer_size, config.total_timesteps) if isinstance(config, OffPolicyConfig) else 0


class _Trial:
    """Trial checkpoints: what a save costs, through the store a run uses."""

    def __init__(self, store: TrialStore, config: TrainConfig, values: PhaseValues, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._values = values
        self._clock = clock
        self.sizes: list[tuple[int, int]] = []

    def save(self, training: AbstractTraining, transitions: int = 0) -> None:
        began = self._clock.ticks()
        written = self._store.save(training.capture())
        self._values.add(Phase.CHECKPOINT, self._clock.ticks() - began, size=float(written))
        self.sizes.append((transitions, written))

    def half_fill(self, training: AbstractTraining, config: TrainConfig) -> None:
        """Fill the replay buffer half of what the study will, as far as that can be saved."""
        planned = planned_rows(config)
        training.prefill(min(planned, FEW_ROWS))
        self.save(training, training.replay_size())
        training.prefill(min(planned, self.most_rows()) // 2)

    def most_rows(self) -> int:
        """Transitions whose checkpoint is about MAX_PROBE_BYTES, from the sizes seen."""
        (rows_0, bytes_0), (rows_1, bytes_1) = min(self.sizes), max(self.sizes)
        return int(MAX_PROBE_BYTES / max(1.0, (bytes_1 - bytes_0) / max(1, rows_1 - rows_0)))

    def restore(self, workload: AbstractWorkload, recorder: PhaseValues) -> None:
        began = self._clock.ticks()
        state, size = self._store.load()
        training = workload.create(self._config, recorder, state=state)
        self._values.add(Phase.RESTORE, self._clock.ticks() - began, size=float(size))
        training.close()

    def state_bytes(self) -> tuple[int, int]:
        """(bytes with an empty replay buffer, bytes per transition)."""
        # from the last two: an optimizer has no state before its first step
        (rows_0, bytes_0), (rows_1, bytes_1) = self.sizes[-2:]
        if rows_1 == rows_0:
            (rows_0, bytes_0), (rows_2, bytes_2) = self.sizes[:2]
            per = (bytes_2 - bytes_0) / max(1, rows_2 - rows_0)
        else:
            per = (bytes_1 - bytes_0) / (rows_1 - rows_0)
        per = max(0.0, per) if rows_1 else 0.0
        return round(bytes_1 - per * rows_1), round(per)


def measure_once(
    job: BurstJob,
    workload: AbstractWorkload,
    store: TrialStore,
    clock: Clock,
    say: Say,
    cache_state: Callable[[], str] = lambda: UNUSED,
) -> BurstResult:
    """Measure every phase of `job.config` once, in this process."""
    values = PhaseValues(job.config.logging.mode)
    say("imports", 0.0)
    versions = workload.load()
    workload.check(job.config)
    values.add(Phase.IMPORT, clock.now() - min(process_start(clock), job.spawned))
    say("first step (just-in-time compilation)", 0.1)
    began = clock.ticks()
    workload.first_step(job.config)
    took = clock.ticks() - began
    cache = cache_state()
    values.add_variant(Phase.JIT, "cold" if job.cold or cache == COLD else "warm", took)
    config = short_config(job)
    training = workload.create(config, values)
    trial = _Trial(store, config, values, clock)
    control = BurstControl(job, config, values, trial, say, clock)
    try:
        training.run(control)
    except StopTraining as stop:
        if stop.reason is not StopReason.BUDGET:
            raise
    say("checkpoints", 0.9)
    notes = _save_two_sizes(job, training, trial)
    say("restore", 0.95)
    trial.restore(workload, PhaseValues())
    facts = training.facts()
    training.close()
    return BurstResult(
        versions=versions,
        facts=facts,
        state_bytes=trial.state_bytes(),
        phases=tuple(values.samples(job.repetition)),
        cache=cache,
        done=clock.now(),
        notes=tuple(notes),
    )


def _save_two_sizes(job: BurstJob, training: AbstractTraining, trial: _Trial) -> list[str]:
    """Save at the size reached, and with the replay buffer as full as the study will make it."""
    config = job.config
    if not isinstance(config, OffPolicyConfig):
        trial.save(training)
        trial.save(training)
        return []
    reached = training.replay_size()
    trial.save(training, reached)
    planned = planned_rows(config)
    most = min(planned, trial.most_rows())
    training.prefill(most)
    trial.save(training, training.replay_size())
    if most < planned:
        return [f"checkpoint cost beyond {most:,} transitions is extrapolated in a straight line"]
    return []


def _segments(config: TrainConfig, start: int) -> list[tuple[int, int, str]]:
    """(from, to, mode) of the blocks under a mode that is not the study's own."""
    others = [m for m in MODES if m != config.logging.mode]
    steps = config.total_timesteps - start
    width = steps // 8
    if width < 1:
        return []
    # a sixth of the steps at most: the others tell what the study's own cost
    length = min(max(1, width // 3), PROBE_STEPS * config.n_envs)
    order = [others[0], others[1], others[0], others[1]]
    return [
        (start + (2 * i + 1) * width, start + (2 * i + 1) * width + length, mode)
        for i, mode in enumerate(order)
    ]


def _mode_at(segments: list[tuple[int, int, str]], step: int, main: str) -> str:
    for first, last, mode in segments:
        if first <= step < last:
            return mode
    return main

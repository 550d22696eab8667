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
from arzbench.facts import EnvFacts, Phase, Record, StopReason
from arzbench.loop import TrainingLoop
from arzbench.measure.phase_times import PER_STEP, PhaseValues
from arzbench.records import BEFORE_LEARNING, BESIDE, NOT_BESIDE, SHORT_EVALUATION_S, PhaseSamples
from arzbench.study import MODES, AnyConfig, Checkpoints, Evaluation, TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import AbstractTraining, AbstractWorkload, Control, EvaluationResult, StopTraining

Say = Callable[[str, float], None]
#: steps under each logging mode that is not the study's own, per block; two blocks each
PROBE_STEPS = 40
#: the largest checkpoint written to learn how saving grows with the replay buffer
MAX_PROBE_BYTES = 64_000_000
#: transitions of the small checkpoint that tells how large one can be written
FEW_ROWS = 256
#: what the cache of compiled code did in a process
COLD, WARM, UNUSED = "cold", "warm", "unused"


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
    beside: int = 0  # episodes of evaluations during the training, to be played beside it; 0: there are none


class BurstResult(Record, frozen=True, kw_only=True):
    """What it measured."""

    versions: dict[str, str]
    facts: EnvFacts
    state_bytes: tuple[int, int]
    phases: tuple[PhaseSamples, ...]
    cache: str  # of compiled code: COLD, WARM or UNUSED
    done: float  # clock.now() at the end: what follows is teardown
    notes: tuple[str, ...]
    sources: dict[str, str] = {}  # SHA-256 of the user's own files that built the model


def short_training(job: BurstJob) -> tuple[TrainConfig, TrainingLoop]:
    """`job.config` with its schedule brought forward; what a unit costs stays as it is."""
    config = job.config
    loop = config.loop.brought_forward(job.rollout)
    rollouts = max(2, math.ceil((loop.learning_starts + job.steps) / loop.rollout_steps))
    total = rollouts * loop.rollout_steps
    short = msgspec.structs.replace(
        config,
        total_timesteps=total,
        evaluation=Evaluation(
            # three, which do not begin where the messages are switched: the first is waited for
            eval_freq=total // config.n_envs // 4 + 1 if job.beside else 0,
            n_eval_episodes=job.beside or config.evaluation.n_eval_episodes,  # so many may be played at once
            deterministic=config.evaluation.deterministic,
            final_episodes=job.eval_episodes if evaluates(config) else 0,
            max_steps=config.evaluation.max_steps,
        ),
        baseline=msgspec.structs.replace(config.baseline, episodes=min(1, config.baseline.episodes)),
        checkpoint=Checkpoints(),
    )
    return short, loop


def evaluates(config: TrainConfig) -> bool:
    """Whether evaluations are a part of it: only then there is an env for them."""
    return bool(config.evaluation.eval_freq or config.evaluation.final_episodes)


class BurstControl(Control):
    """Lets the short training run; switches the messages and writes trial checkpoints on its way."""

    def __init__(
        self,
        job: BurstJob,
        config: TrainConfig,
        loop: TrainingLoop,
        values: PhaseValues,
        trial: _Trial,
        say: Say,
        clock: Clock,
    ) -> None:
        self._job = job
        self._config = config
        self._values = values
        self._trial = trial
        self._say = say
        self._clock = clock
        self._start = loop.learning_starts
        self._to_prefill = loop.off_policy
        self._eval_began: float | None = None
        self._episode_began = self._allowed_s = 0.0
        self.notes: list[str] = []
        self._segments = _segments(config, self._start)
        self._mode: str = config.logging.mode
        self._evaluations = 0
        self._evaluation_began: float | None = None
        # between steps that write messages caches are cold, for the update after them, too
        self._varied = PER_STEP | {Phase.UPDATE} if loop.off_policy else PER_STEP
        values.varied = self._varied
        if self._start:
            values.variant = BEFORE_LEARNING

    def before_step(self, training: AbstractTraining, updates: int) -> None:
        step = training.num_timesteps
        if step == 0:
            self._trial.save(training)
        if self._to_prefill and step >= self._start:
            self._to_prefill = False
            self._values.variant = self._mode
            self._trial.half_fill(training)
        beside = training.evaluating is not None and not self._to_prefill
        probed = (mode for first, last, mode in self._segments if first <= step < last and not beside)
        self._switch(training, next(probed, self._config.logging.mode))
        if not self._to_prefill:
            self._values.variant = BESIDE if beside else self._mode
            self._values.varied = self._varied | ({Phase.UPDATE, Phase.EVAL_STEP} if beside else set())
        if updates or not step % 64:
            self._say("training", 0.15 + 0.65 * step / self._config.total_timesteps)

    def before_episode(self, training: AbstractTraining, kind: str, episodes: int = 1) -> None:
        self._episode_began = now = self._clock.now()
        if self._evaluation_began is None:
            self._evaluation_began = now
        self._allowed_s = episodes * self._job.max_eval_s
        if kind == "final":
            if self._eval_began is None:
                self._eval_began = now
            elif now - self._eval_began > self._job.max_eval_s:
                raise StopTraining(StopReason.BUDGET, "enough evaluation episodes")
        self._switch(training, self._config.logging.mode)
        if kind != "evaluation":  # those come during the training
            self._say("evaluation" if kind == "final" else kind, 0.85 if kind == "final" else 0.15)

    def during_episode(self, training: AbstractTraining) -> bool:
        return self._clock.now() - self._episode_began > self._allowed_s

    def evaluated(self, training: AbstractTraining, result: EvaluationResult) -> None:
        began, self._evaluation_began = self._evaluation_began, None
        self._evaluations += result.kind == "evaluation"
        if self._evaluations < 2 or result.kind != "evaluation" or began is None:
            return  # the first is waited for, and one beside the training does not tell when it begins
        note = f"{NOT_BESIDE}: {result.inline}"
        if self._clock.now() - began >= SHORT_EVALUATION_S and note not in self.notes:
            self.notes.append(note)

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def _switch(self, training: AbstractTraining, mode: str) -> None:
        """Switch the env's messages to `mode`."""
        if mode != self._mode:
            self._mode = self._values.variant = mode
            training.set_logging(mode)


class _Trial:
    """Trial checkpoints: what a save costs, through the store a run uses."""

    def __init__(
        self,
        job: BurstJob,
        store: TrialStore,
        config: TrainConfig,
        loop: TrainingLoop,
        values: PhaseValues,
        clock: Clock,
    ) -> None:
        #: transitions in the replay buffer at the end of the study's training
        self.planned = job.config.loop.stored(job.config.total_timesteps)
        self._store = store
        self._config = config
        self._loop = loop
        self._values = values
        self._clock = clock
        self.sizes: list[tuple[int, int]] = []

    def save(self, training: AbstractTraining) -> None:
        began = self._clock.ticks()
        written = self._store.save(training.capture())
        self._values.add(Phase.CHECKPOINT, self._clock.ticks() - began, size=float(written))
        self.sizes.append((training.replay_size(), written))

    def half_fill(self, training: AbstractTraining) -> None:
        """Fill the replay buffer half of what the study will, as far as that can be saved."""
        training.prefill(min(self.planned, FEW_ROWS))
        self.save(training)
        training.prefill(self.most_rows() // 2)

    def most_rows(self) -> int:
        """Transitions planned, or those whose checkpoint is about MAX_PROBE_BYTES, from the sizes seen."""
        (rows_0, bytes_0), (rows_1, bytes_1) = min(self.sizes), max(self.sizes)
        per_row = (bytes_1 - bytes_0) / max(1, rows_1 - rows_0)
        return min(self.planned, int(MAX_PROBE_BYTES / max(1.0, per_row)))

    def restore(self, workload: AbstractWorkload, recorder: PhaseValues) -> None:
        began = self._clock.ticks()
        state, size = self._store.load()
        training = workload.create(self._config, recorder, state=state, loop=self._loop)
        self._values.add(Phase.RESTORE, self._clock.ticks() - began, size=float(size))
        training.close()

    def state_bytes(self) -> tuple[int, int]:
        """(bytes with an empty replay buffer, bytes per transition)."""
        # from the last two: an optimizer has no state before its first step
        rows, size = self.sizes[-1]
        pair = self.sizes[-2:] if self.sizes[-2][0] != rows else self.sizes[:2]
        (rows_0, bytes_0), (rows_1, bytes_1) = pair
        per = max(0.0, (bytes_1 - bytes_0) / max(1, rows_1 - rows_0)) if rows else 0.0
        return round(size - per * rows), round(per)


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
    values.add(Phase.IMPORT, clock.now() - min(process_start(clock), job.spawned))
    say("env made, first step", 0.1)
    began = clock.ticks()
    workload.first_step(job.config)
    took = clock.ticks() - began
    cache = cache_state()
    values.add(Phase.JIT, took, variant=COLD if job.cold or cache == COLD else WARM)
    config, loop = short_training(job)
    training = workload.create(config, values, loop=loop)
    trial = _Trial(job, store, config, loop, values, clock)
    control = BurstControl(job, config, loop, values, trial, say, clock)
    try:
        training.run(control)
    except StopTraining as stop:
        if stop.reason is not StopReason.BUDGET:
            raise
    say("checkpoints", 0.9)
    notes = _save_two_sizes(training, trial)
    facts = training.facts()
    training.close()  # of some envs there can be one at a time
    say("restore", 0.95)
    trial.restore(workload, PhaseValues())
    return BurstResult(
        versions=versions,
        facts=facts,
        state_bytes=trial.state_bytes(),
        phases=tuple(values.samples(job.repetition)),
        cache=cache,
        done=clock.now(),
        notes=(*control.notes, *notes),
    )


def _save_two_sizes(training: AbstractTraining, trial: _Trial) -> list[str]:
    """Save at the size reached, and with the replay buffer as full as the study will make it."""
    trial.save(training)
    most = trial.most_rows()
    training.prefill(most)
    trial.save(training)
    if most < trial.planned:
        return [f"checkpoint cost beyond {most:,} transitions is extrapolated in a straight line"]
    return []


def _segments(config: TrainConfig, start: int) -> list[tuple[int, int, str]]:
    """(from, to, mode) of the blocks under a mode that is not the study's own."""
    steps = config.total_timesteps - start
    width = steps // 8
    if width < 1 or not config.MESSAGES:
        return []
    # a sixth of the steps at most: the others tell what the study's own cost
    length = min(max(1, width // 3), PROBE_STEPS * config.n_envs)
    others = [mode for mode in MODES if mode != config.logging.mode]
    firsts = [start + (2 * i + 1) * width for i in range(4)]
    return [(first, first + length, mode) for first, mode in zip(firsts, others * 2, strict=True)]

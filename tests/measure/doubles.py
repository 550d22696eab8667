"""A workload of declared costs, a store that takes time, and controls that only let run."""

import math
from collections.abc import Mapping
from typing import Any

from arzbench.clock import VirtualClock
from arzbench.facts import Phase
from arzbench.measure.burst import BurstJob, BurstResult
from arzbench.predict.costmodel import fit
from arzbench.records import CostModel, WorkloadSamples
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import AbstractTraining, Control, Recorder
from tests import worlds

COSTS = {
    Phase.IMPORT: 2.0,
    Phase.BUILD: 0.25,
    Phase.JIT: 3.0,
    Phase.RESET: 0.004,
    Phase.ENV_STEP: 0.005,
    Phase.POLICY: 0.0001,
    Phase.UPDATE: 0.001,
    Phase.ROLLOUT: 0.00002,
    Phase.EVAL_STEP: 0.0052,
    Phase.BASELINE: 0.0047,
    Phase.LOG: 0.0001,
    Phase.RESTORE: 0.5,
}
#: trainings of every way to collect and to learn
KINDS = [
    worlds.config(**{**worlds.EVERYTHING, **kind})
    for kind in (
        {"algo": "dqn", "hyperparameters": {"learning_starts": 500}},
        {"algo": "sac", "n_envs": 4, "hyperparameters": {"gradient_steps": -1}},
        {"algo": "td3", "hyperparameters": {"train_freq": [1, "episode"]}},
        {"algo": "ppo", "n_envs": 2, "hyperparameters": {"n_steps": 128}},
        {"algo": "a2c", "n_envs": 3, "logging": {"mode": "off"}},
    )
]
SAVE_S, SAVE_PER_BYTE = 0.02, 1e-9
BASE_BYTES, OPTIMIZER_BYTES, ROW_BYTES = 50_000, 100_000, 64


def by_algo(training: TrainConfig) -> str:
    return training.algo


class Workload(SyntheticWorkload):
    """Remembers the trainings it made, and in their `modes` when their messages were switched."""

    def __init__(self, clock: VirtualClock, costs: Mapping[Phase, float], **how: Any) -> None:
        super().__init__(clock, costs, **how)
        self.made: list[Any] = []

    def create(self, config: TrainConfig, recorder: Recorder, **how: Any) -> AbstractTraining:
        training: Any = super().create(config, recorder, **how)
        training.modes = []
        training.set_logging = lambda mode: training.modes.append((training.num_timesteps, mode))
        self.made.append(training)
        return training


class Store:
    """Keeps one state; a save takes time in proportion to its size, or none of its own."""

    def __init__(self, clock: VirtualClock, *, timed: bool = True) -> None:
        self.clock, self.timed = clock, timed
        self.kept: TrainingState | None = None
        self.saves = 0

    def size(self, state: TrainingState) -> int:
        optimizer = OPTIMIZER_BYTES if state.values["updates"] else 0  # made by its first step
        return BASE_BYTES + optimizer + ROW_BYTES * int(state.values["rows"])

    def save(self, state: TrainingState) -> int:
        self.clock.advance(self.timed * (SAVE_S + SAVE_PER_BYTE * self.size(state)))
        self.kept = state
        self.saves += 1
        return self.size(state)

    def load(self) -> tuple[TrainingState, int]:
        return self.kept, self.size(self.kept)


class Free(Control):
    """Lets a training run; saves as often as its schedule says."""

    def __init__(self, store: Store, training: TrainConfig) -> None:
        self.store = store
        self.freq = training.checkpoint.checkpoint_freq * training.n_envs
        self.due = self.freq

    def before_step(self, training: AbstractTraining, updates: int) -> None:
        if self.freq and training.num_timesteps >= self.due:
            self.due += self.freq
            self.store.save(training.capture())


def burst_job(training: TrainConfig, **changes: Any) -> BurstJob:
    """What one process is to measure of `training`."""
    plain: dict[str, Any] = {
        "config": training,
        "repetition": 0,
        "cold": True,
        "spawned": 0.0,
        "steps": 200,
        "rollout": None,
        "eval_episodes": 2,
        "max_eval_s": math.inf,
        "folder": "",
    }
    return BurstJob(**{**plain, **changes})


def model_of(training: TrainConfig, *results: BurstResult) -> CostModel:
    """The prices that short measurements found."""
    return fit(
        WorkloadSamples(
            workload=training.workload_digest(),
            config=training,  # type: ignore[arg-type]
            facts=results[0].facts,
            state_bytes=results[0].state_bytes,
            phases=tuple(p for r in results for p in r.phases),
        )
    )

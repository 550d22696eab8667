"""A workload of declared costs, a store that takes time, and controls that only let run."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from arzbench.clock import VirtualClock
from arzbench.records import Phase
from arzbench.run.simulated import SyntheticTraining, SyntheticWorkload
from arzbench.study import OffPolicyConfig, TrainConfig
from arzbench.workload import AbstractTraining, Evaluation, Recorder, TrainingState

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
SAVE_S, SAVE_PER_BYTE = 0.02, 1e-9
BASE_BYTES, OPTIMIZER_BYTES, ROW_BYTES = 50_000, 100_000, 64


class Training(SyntheticTraining):
    """The synthetic training, its replay buffer counted and its messages switched."""

    rows = 0
    modes: list[tuple[int, str]]

    def prefill(self, transitions: int) -> None:
        if isinstance(self.config, OffPolicyConfig):
            self.rows = max(self.rows, min(transitions, self.config.buffer_size))

    def replay_size(self) -> int:
        own = self.num_timesteps if isinstance(self.config, OffPolicyConfig) else 0
        return max(own, self.rows)

    def set_logging(self, mode: str) -> None:
        self.modes.append((self.num_timesteps, mode))

    def capture(self) -> TrainingState:
        state = super().capture()
        return msgspec.structs.replace(state, values={**state.values, "rows": self.replay_size()})


class Workload(SyntheticWorkload):
    """Makes the above and remembers them."""

    def __init__(self, clock: VirtualClock, costs: Mapping[Phase, float], **how: Any) -> None:
        super().__init__(clock, costs, **how)
        self.made: list[Training] = []

    def create(
        self,
        config: TrainConfig,
        recorder: Recorder,
        *,
        budget: int | None = None,
        state: TrainingState | None = None,
    ) -> AbstractTraining:
        training = Training(self, config, recorder, budget or config.total_timesteps)
        training.modes = []
        self.made.append(training)
        recorder.add(Phase.BUILD, self.spend(self.costs[Phase.BUILD]))
        if state is not None:
            self.spend(self.costs[Phase.RESTORE])
            training.restore(state)
        return training


class Store:
    """Keeps one state; a save takes time in proportion to its size."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.kept: TrainingState | None = None
        self.saves = 0

    def size(self, state: TrainingState) -> int:
        optimizer = OPTIMIZER_BYTES if state.values["updates"] else 0  # made by its first step
        return BASE_BYTES + optimizer + ROW_BYTES * int(state.values["rows"])

    def save(self, state: TrainingState) -> int:
        self.clock.advance(SAVE_S + SAVE_PER_BYTE * self.size(state))
        self.kept = state
        self.saves += 1
        return self.size(state)

    def load(self) -> tuple[TrainingState, int]:
        assert self.kept is not None
        return self.kept, self.size(self.kept)


class Free:
    """Lets a training run; saves as often as its schedule says."""

    def __init__(self, store: Store, training: TrainConfig) -> None:
        self.store = store
        self.freq = training.checkpoint.checkpoint_freq * training.n_envs
        self.due = self.freq

    def before_step(self, training: AbstractTraining, updates: int) -> None:
        if self.freq and training.num_timesteps >= self.due:
            self.due += self.freq
            self.store.save(training.capture())

    def before_episode(self, training: AbstractTraining, kind: str) -> None:
        return

    def during_episode(self, training: AbstractTraining) -> None:
        return

    def during_update(self, training: AbstractTraining) -> None:
        return

    def evaluated(self, training: AbstractTraining, result: Evaluation) -> None:
        return

    def episode_ended(self, training: AbstractTraining, episode_return: float, length: int) -> None:
        return


class Nowhere:
    """Records nothing."""

    def add(self, phase: Phase, seconds: float, units: int = 1) -> None:
        return

    def series(self, phase: Phase, units: int) -> Callable[[float], object]:
        return lambda seconds: self.add(phase, seconds, units)

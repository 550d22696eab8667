"""Trainings that only cost what they declare: the loops of SB3 on any clock, without SB3.

The oracle of tests: every event is played out one by one, so its counts check the counted schedule,
and on a `VirtualClock` twelve hours take a second. On the machine's clock it sleeps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from arzbench import store
from arzbench.clock import Clock
from arzbench.records import EnvFacts, Phase
from arzbench.study import DQN, PPO, OffPolicyConfig, OnPolicyConfig, TrainConfig
from arzbench.workload import (
    LIGHT,
    AbstractTraining,
    AbstractWorkload,
    Control,
    Evaluation,
    Recorder,
    TrainingState,
)

_MASK = (1 << 64) - 1


class SyntheticWorkload(AbstractWorkload):
    """Trainings whose phases take what `costs` says.

    `save_s` is what a capture takes. `slow_down(clock.now())` multiplies every duration: it may be
    a stall. Episodes have fixed lengths in env steps. `calls(num_timesteps)` is called before each
    vectorised step, to let an env fail.
    """

    def __init__(
        self,
        clock: Clock,
        costs: Mapping[Phase, float],
        *,
        save_s: float = 0.0,
        slow_down: Callable[[float], float] = lambda now: 1.0,
        episode_steps: int = 100,
        eval_episode_steps: int | None = None,
        calls: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.clock = clock
        self.costs = dict(costs)
        self.save_s = save_s
        self.slow_down = slow_down
        self.episode_steps = episode_steps
        self.eval_episode_steps = eval_episode_steps or episode_steps
        self.calls = calls

    def spend(self, seconds: float) -> float:
        """Let `seconds`, slowed down, pass; how long it took."""
        seconds *= self.slow_down(self.clock.now())
        if seconds > 0:
            self.clock.sleep(seconds)
        return seconds

    def load(self) -> dict[str, str]:
        self.spend(self.costs.get(Phase.IMPORT, 0.0))
        return {"synthetic": "1", "numpy": np.__version__}

    def check(self, config: TrainConfig) -> None:
        return

    def create(
        self,
        config: TrainConfig,
        recorder: Recorder,
        *,
        budget: int | None = None,
        state: TrainingState | None = None,
    ) -> AbstractTraining:
        training = SyntheticTraining(
            self, config, recorder, config.total_timesteps if budget is None else budget
        )
        recorder.add(Phase.BUILD, self.spend(self.costs.get(Phase.BUILD, 0.0)))
        if state is not None:
            self.spend(self.costs.get(Phase.RESTORE, 0.0))
            training.restore(state)
        return training

    def first_step(self, config: TrainConfig) -> None:
        self.spend(self.costs.get(Phase.JIT, 0.0))


class SyntheticTraining(AbstractTraining):
    """SB3's collect and train loops, event by event."""

    def __init__(
        self, workload: SyntheticWorkload, config: TrainConfig, recorder: Recorder, budget: int
    ) -> None:
        self.config = config
        self._workload = workload
        self._recorder = recorder
        self._budget = budget
        self._stage = "baseline"
        self._steps = 0
        self._updates = 0
        self._collected = 0  # vectorised steps in the open rollout
        self._episode_step = 0  # of every env: they run in step
        self._episodes: list[int] = []
        self._evaluated_at = 0  # calls at the last evaluation
        self._evaluations = 0
        self._open: list[float] = []  # returns of the finished episodes of the open evaluation
        self._greedy = 0.0  # fractions of greedy actions not yet taken
        self._weights = config.seed
        rows = min(config.buffer_size, config.total_timesteps) if isinstance(config, OffPolicyConfig) else 0
        self._replay = np.zeros(rows, dtype=np.uint64)

    @property
    def num_timesteps(self) -> int:
        return self._steps

    @property
    def num_updates(self) -> int:
        return self._updates

    @property
    def stage(self) -> str:
        return self._stage

    def run(self, control: Control) -> None:
        if self._stage == "baseline":
            if self.config.baseline.episodes:
                self._evaluate(control, "baseline", self.config.baseline.episodes)
            self._stage = "train"
        if self._steps < self._budget or self._collected:
            self._stage = "train"  # a larger budget than it was stopped at
        if self._stage == "train":
            self._train(control)
            self._stage = "final"
        if self._stage == "final":
            if self.config.evaluation.final_episodes:
                self._evaluate(control, "final", self.config.evaluation.final_episodes)
            self._stage = "done"

    def _train(self, control: Control) -> None:
        if self._steps == 0 and self._episode_step == 0 and not self._episodes:
            self._spend(Phase.RESET, self.config.n_envs)
        unasked = 0
        while self._steps < self._budget or self._collected:
            self._evaluate_if_due(control)
            updates = self._updates_after_step()
            if unasked and updates <= LIGHT:
                unasked -= 1
            else:
                unasked = control.before_step(self, updates) or 0
            self._step(control)
            if updates:
                self._learn(updates)
        self._evaluate_if_due(control)

    def _step(self, control: Control) -> None:
        config = self.config
        self._workload.calls(self._steps)
        if self._acts_by_policy():
            self._spend(Phase.POLICY)
        self._spend(Phase.ENV_STEP, config.n_envs)
        self._spend(Phase.ROLLOUT)
        if config.logging.mode != "off":
            self._spend(Phase.LOG, config.n_envs)
        if self._replay.size:
            self._replay[(self._steps // config.n_envs) % self._replay.size] = self._weights
        self._mix(self._steps)
        self._steps += config.n_envs
        self._episode_step += 1
        self._collected = 0 if self._ends_rollout() else self._collected + 1
        if self._episode_step == self._workload.episode_steps:
            self._episode_step = 0
            self._spend(Phase.RESET, config.n_envs)
            for _ in range(config.n_envs):
                self._episodes.append(self._workload.episode_steps)
                control.episode_ended(self, self._return(), self._workload.episode_steps)

    def _ends_rollout(self) -> bool:
        """Whether the step in hand is the last of its rollout."""
        config = self.config
        if isinstance(config, OnPolicyConfig):
            return self._collected + 1 >= config.n_steps
        assert isinstance(config, OffPolicyConfig)
        frequency, unit = config.frequency
        size = frequency if unit == "step" else frequency * self._workload.episode_steps
        return self._collected + 1 >= size

    def _updates_after_step(self) -> int:
        config = self.config
        if not self._ends_rollout():
            return 0
        if isinstance(config, PPO):
            return config.n_epochs * math.ceil(config.rollout_steps / config.batch_size)
        if isinstance(config, OnPolicyConfig):
            return 1
        assert isinstance(config, OffPolicyConfig)
        if self._steps + config.n_envs <= config.learning_starts:
            return 0
        collected = (self._collected + 1) * config.n_envs
        return config.gradient_steps if config.gradient_steps >= 0 else collected

    def _acts_by_policy(self) -> bool:
        config = self.config
        if isinstance(config, OffPolicyConfig) and self._steps < config.learning_starts:
            return False
        if not isinstance(config, DQN):
            return True
        done = self._steps / (config.exploration_fraction * config.total_timesteps or 1)
        start, end = config.exploration_initial_eps, config.exploration_final_eps
        self._greedy += 1 - (start + min(1.0, done) * (end - start))
        if self._greedy < 1:
            return False
        self._greedy -= 1
        return True

    def _learn(self, updates: int) -> None:
        self._spend(Phase.UPDATE, updates)
        self._updates += updates
        self._mix(self._updates)

    def _evaluate_if_due(self, control: Control) -> None:
        freq = self.config.evaluation.eval_freq
        calls = self._steps // self.config.n_envs
        if freq and calls and calls % freq == 0 and calls != self._evaluated_at:
            self._evaluate(control, "evaluation", self.config.evaluation.n_eval_episodes)
            self._evaluated_at = calls

    def _evaluate(self, control: Control, kind: str, episodes: int) -> None:
        phase = Phase.BASELINE if kind == "baseline" else Phase.EVAL_STEP
        length = self._workload.eval_episode_steps
        while len(self._open) < episodes:
            control.before_episode(self, kind)
            self._episode(control, phase, length)
            self._open.append(self._return() + len(self._open))
        returns, self._open = tuple(self._open), []
        self._evaluations += 1
        result = Evaluation(
            kind=kind, num_timesteps=self._steps, returns=returns, lengths=(length,) * episodes
        )
        # its place is taken before the control may stop the training
        self._evaluated_at = self._steps // self.config.n_envs
        control.evaluated(self, result)

    def _episode(self, control: Control, phase: Phase, length: int) -> None:
        """One episode; reported when it is over: one cut off is played again."""
        per_step = self._workload.costs.get(phase, 0.0)
        log = self.config.logging.mode != "off" and phase is Phase.EVAL_STEP
        per_message = self._workload.costs.get(Phase.LOG, 0.0) if log else 0.0
        took = logged = 0.0
        for step in range(length):
            if step:
                control.during_episode(self)
            took += self._workload.spend(per_step)
            logged += self._workload.spend(per_message)
        self._recorder.add(phase, took, length)
        if log:
            self._recorder.add(Phase.LOG, logged, length)

    def _spend(self, phase: Phase, units: int = 1) -> None:
        seconds = self._workload.spend(self._workload.costs.get(phase, 0.0) * units)
        self._recorder.add(phase, seconds, units)

    def _mix(self, value: int) -> None:
        """Weights that depend on every event before, in order."""
        self._weights = (self._weights * 6364136223846793005 + value + 1442695040888963407) & _MASK

    def _return(self) -> float:
        return (self._weights >> 40) / 1e3

    def capture(self) -> TrainingState:
        self._workload.spend(self._workload.save_s)
        values = {name: getattr(self, f"_{name}") for name in _VALUES}
        return TrainingState(
            arrays={"replay": self._replay, "weights": np.array([self._weights], dtype=np.uint64)},
            values=values,
            tier="exact",
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from `state`."""
        for name in _VALUES:
            setattr(self, f"_{name}", state.values[name])
        self._replay = np.array(state.arrays["replay"])
        self._weights = int(state.arrays["weights"][0])

    def facts(self) -> EnvFacts:
        seen = (self._workload.eval_episode_steps,) if self._evaluations else ()
        return EnvFacts(
            n_envs=self.config.n_envs,
            max_episode_steps=max(self._workload.episode_steps, self._workload.eval_episode_steps),
            episode_steps=tuple(self._episodes),
            eval_episode_steps=seen,
        )

    def set_logging(self, mode: str) -> None:
        return

    def prefill(self, transitions: int) -> None:
        self._replay[:transitions] = 1

    def replay_size(self) -> int:
        return min(self._steps, int(self._replay.size))

    def fingerprint(self) -> dict[str, str]:
        values = {name: getattr(self, f"_{name}") for name in _VALUES}
        return {
            "weights": f"{self._weights:016x}",
            "buffer": store.digest(self._replay.tolist()),
            "counters": store.digest(values),
        }

    def export(self, path: str) -> None:
        Path(path).write_text(json.dumps(self.fingerprint()), encoding="utf-8")

    def close(self) -> None:
        return


_VALUES = (
    "stage", "steps", "updates", "collected", "episode_step", "episodes",
    "evaluated_at", "evaluations", "open", "greedy",
)  # fmt: skip

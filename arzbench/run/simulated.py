"""Trainings that only cost what they declare: SB3's loop, event by event, on any clock and without SB3.

On a `VirtualClock` twelve hours take a second; on the machine's clock it sleeps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import msgspec
import numpy as np

from arzbench.clock import Clock
from arzbench.digest import digest
from arzbench.facts import EnvFacts, Phase
from arzbench.loop import TrainingLoop
from arzbench.records import SHORT_EVALUATION_S, BesidePrice
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import LIGHT, AbstractTraining, AbstractWorkload, Control, EvaluationResult, Recorder

_MASK = (1 << 64) - 1


@dataclass(eq=False)
class SyntheticWorkload(AbstractWorkload):
    """Trainings whose phases take what `costs` says, in seconds a unit."""

    clock: Clock
    costs: Mapping[Phase, float]
    _: KW_ONLY
    save_s: float = 0.0  # what a capture takes
    slow_down: Callable[[float], float] = lambda now: 1.0  # multiplies every duration: may be a stall
    episode_steps: int = 100  # env steps of every episode
    eval_episode_steps: int | None = None  # None: as in training
    beside: BesidePrice | None = None  # at which evaluations are played beside the training; None: never
    calls: Callable[[int], None] = lambda num_timesteps: None  # before each step, to let an env fail

    def spend(self, seconds: float) -> float:
        """Let `seconds`, slowed down, pass; how long it took."""
        seconds *= self.slow_down(self.clock.now())
        if seconds > 0:
            self.clock.sleep(seconds)
        return seconds

    def spend_on(self, phase: Phase, units: float = 1) -> float:
        """Let the cost of `units` of `phase` pass; how long it took."""
        return self.spend(self.costs.get(phase, 0.0) * units)

    def load(self) -> dict[str, str]:
        self.spend_on(Phase.IMPORT)
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
        loop: TrainingLoop | None = None,
    ) -> AbstractTraining:
        budget = config.total_timesteps if budget is None else budget
        recorder.add(Phase.BUILD, self.spend_on(Phase.BUILD))
        training = SyntheticTraining(self, config, loop or config.loop, recorder, budget)
        if state is not None:
            self.spend_on(Phase.RESTORE)
            training.restore(state)
        return training

    def first_step(self, config: TrainConfig) -> None:
        self.spend_on(Phase.JIT)


class _Place(msgspec.Struct):
    """Where a training stands: with the replay buffer, all that it saves."""

    weights: int  # depend on every event before, in order
    stage: str = "baseline"
    num_timesteps: int = 0
    updates: int = 0
    rollout_steps: int = 0  # vectorised steps of the open rollout
    episode_step: int = 0  # of every env: they step together
    episodes: int = 0  # of the training that ended
    rows: int = 0  # transitions in the replay buffer
    evaluated_at: int = 0  # vectorised steps at the last evaluation
    evaluations: int = 0
    open_returns: list[float] = []  # of the episodes done of an evaluation
    pending: list[float] | None = None  # returns of one that is due and not complete
    due_at: int = 0  # num_timesteps then
    greedy: float = 0.0  # share of a greedy action that is not taken yet


class SyntheticTraining(AbstractTraining):
    """SB3's collect and train loops, event by event."""

    def __init__(
        self,
        workload: SyntheticWorkload,
        config: TrainConfig,
        loop: TrainingLoop,
        recorder: Recorder,
        budget: int,
    ) -> None:
        self.config = config
        self._loop = loop
        self._workload = workload
        self._recorder = recorder
        self._budget = budget
        self._eval_steps = workload.eval_episode_steps or workload.episode_steps
        self._at = _Place(weights=config.seed)
        self._replay = np.zeros(self._loop.stored(config.total_timesteps), dtype=np.uint64)
        self._evaluated = False  # in this session: others may be played beside the training
        self._ends_at = 0.0  # when the one beside it is over
        self._started_s = 0.0  # what it took to begin it

    @property
    def evaluating(self) -> int | None:
        return None if self._at.pending is None else self._at.due_at

    @property
    def num_timesteps(self) -> int:
        return self._at.num_timesteps

    @property
    def stage(self) -> str:
        return self._at.stage

    def run(self, control: Control) -> None:
        at = self._at
        if at.stage == "baseline":
            self._evaluate(control, "baseline", self.config.baseline.episodes)
            at.stage = "train"
        if self._to_train():
            at.stage = "train"  # a larger budget than it was stopped at
        if at.stage == "train":
            self._train(control)
            at.stage = "final"
        if at.stage == "final":
            self._evaluate(control, "final", self.config.evaluation.final_episodes)
            at.stage = "done"

    def _to_train(self) -> bool:
        return self._at.num_timesteps < self._budget or self._at.rollout_steps > 0

    def _train(self, control: Control) -> None:
        if self._at.num_timesteps == 0:
            self._spend(Phase.RESET, self.config.n_envs)
        unasked = 0
        if self._at.pending is not None:
            self._begin_beside(self._at.pending)
        while self._to_train():
            self._evaluate_if_due(control)
            number = self._at.rollout_steps + 1
            updates = self._loop.updates_after(number, self.num_timesteps) if self._ends_rollout() else 0
            if unasked and updates <= LIGHT:
                unasked -= 1
            else:
                unasked = control.before_step(self, updates) or 0
            self._step(control)
            if updates:
                self._spend(Phase.UPDATE, updates)
                self._at.updates += updates
                self._mix(self._at.updates)
        self._evaluate_if_due(control)
        self._finish_beside(control)

    def _ends_rollout(self) -> bool:
        """Whether the next step is the last of its rollout."""
        steps = self._at.rollout_steps + 1
        return self._loop.complete(steps, steps // self._workload.episode_steps)

    def _step(self, control: Control) -> None:
        at, n_envs = self._at, self.config.n_envs
        self._workload.calls(at.num_timesteps)
        at.greedy += 1 - self._loop.random_share(at.num_timesteps)
        if at.greedy >= 1:
            at.greedy -= 1
            self._spend(Phase.POLICY)
        self._spend(Phase.ENV_STEP, n_envs)
        self._spend(Phase.ROLLOUT)
        if self.config.logging.mode != "off":
            self._spend(Phase.LOG, n_envs)
        if self._replay.size:
            self._replay[(at.num_timesteps // n_envs) % self._replay.size] = at.weights
        at.rows = self._loop.stored(at.rows + n_envs)
        self._mix(at.num_timesteps)
        at.rollout_steps = 0 if self._ends_rollout() else at.rollout_steps + 1
        at.num_timesteps += n_envs
        at.episode_step += 1
        if at.episode_step == self._workload.episode_steps:
            at.episode_step = 0
            self._spend(Phase.RESET, n_envs)
            for _ in range(n_envs):
                at.episodes += 1
                control.episode_ended(self, self._return(), self._workload.episode_steps)

    def _evaluate_if_due(self, control: Control) -> None:
        freq, episodes = self.config.evaluation.eval_freq, self.config.evaluation.n_eval_episodes
        calls = self._at.num_timesteps // self.config.n_envs
        if self._at.pending is not None and self._workload.clock.now() >= self._ends_at:
            self._finish_beside(control)
        if not (freq and calls and calls % freq == 0 and calls != self._at.evaluated_at):
            return
        self._finish_beside(control)
        usable = self._evaluated and self._to_train() and self.config.evaluates_beside
        self._evaluated = True
        if usable and self._workload.beside and self._evaluation_s() >= SHORT_EVALUATION_S:
            self._at.evaluated_at, self._at.due_at = calls, self._at.num_timesteps
            self._begin_beside([self._return() + number for number in range(episodes)])
        else:
            self._evaluate(control, "evaluation", episodes)

    def _evaluation_s(self) -> float:
        steps = self._eval_steps * self.config.evaluation.n_eval_episodes
        return self._workload.costs.get(Phase.EVAL_STEP, 0.0) * steps

    def _begin_beside(self, returns: list[float]) -> None:
        """As long as it goes on it and the training slow each other down."""
        assert self._workload.beside is not None
        self._at.pending = returns
        self._started_s = self._workload.spend(self._workload.beside.start_s)
        took_s = self._evaluation_s() * self._workload.slow_down(self._workload.clock.now())
        self._ends_at = self._workload.clock.now() + took_s * self._workload.beside.slow_down

    def _finish_beside(self, control: Control) -> None:
        """Wait for it, alone from now on."""
        at, workload = self._at, self._workload
        if at.pending is None:
            return
        assert workload.beside is not None
        left_s = max(0.0, self._ends_at - workload.clock.now()) / workload.beside.slow_down
        self._ends_at = workload.clock.now() + left_s
        while (rest_s := self._ends_at - workload.clock.now()) > 0:
            control.waiting(self)
            workload.clock.sleep(min(rest_s, max(0.05, left_s / 1000)))
        result = EvaluationResult(
            kind="evaluation",
            num_timesteps=at.due_at,
            returns=tuple(at.pending),
            lengths=(self._eval_steps,) * len(at.pending),
            beside_s=self._evaluation_s(),
        )
        at.pending, at.due_at = None, 0
        at.evaluations += 1
        self._recorder.add(Phase.EVAL_STEP, self._started_s + left_s, sum(result.lengths))
        control.evaluated(self, result)

    def _evaluate(self, control: Control, kind: str, episodes: int) -> None:
        at, open_returns = self._at, self._at.open_returns
        if not episodes:
            return
        while len(open_returns) < episodes:
            control.before_episode(self, kind)
            self._episode(control, Phase.BASELINE if kind == "baseline" else Phase.EVAL_STEP)
            open_returns.append(self._return() + len(open_returns))
        at.open_returns = []
        at.evaluations += 1
        # its place is taken before the control may stop the training
        at.evaluated_at = at.num_timesteps // self.config.n_envs
        returns, lengths = tuple(open_returns), (self._eval_steps,) * episodes
        result = EvaluationResult(kind=kind, num_timesteps=at.num_timesteps, returns=returns, lengths=lengths)
        control.evaluated(self, result)

    def _episode(self, control: Control, phase: Phase) -> None:
        """One episode; reported when it is over: one cut off is played again."""
        phases = [phase]
        if self.config.logging.mode != "off" and phase is Phase.EVAL_STEP:
            phases.append(Phase.LOG)
        seconds = dict.fromkeys(phases, 0.0)
        for step in range(self._eval_steps):
            if step:
                control.during_episode(self)
            for each in phases:
                seconds[each] += self._workload.spend_on(each)
        for each in phases:
            self._recorder.add(each, seconds[each], self._eval_steps)

    def _spend(self, phase: Phase, units: int = 1) -> None:
        beside, slower = self._workload.beside, 1.0
        if beside is not None and self._at.pending is not None and self._workload.clock.now() < self._ends_at:
            slower = beside.slow_down
        self._recorder.add(phase, self._workload.spend_on(phase, units * slower), units)

    def _mix(self, value: int) -> None:
        self._at.weights = (self._at.weights * 6364136223846793005 + value + 1442695040888963407) & _MASK

    def _return(self) -> float:
        return (self._at.weights >> 40) / 1e3

    def capture(self) -> TrainingState:
        self._workload.spend(self._workload.save_s)
        values = msgspec.to_builtins(self._at)
        return TrainingState(arrays={"replay": self._replay}, values=values, tier="exact")

    def restore(self, state: TrainingState) -> None:
        """Go on from `state`."""
        self._at = msgspec.convert(state.values, _Place)
        self._replay = np.array(state.arrays["replay"])

    def facts(self) -> EnvFacts:
        steps, at = self._workload.episode_steps, self._at
        return EnvFacts(
            n_envs=self.config.n_envs,
            max_episode_steps=max(steps, self._eval_steps),
            episode_steps=(steps,) * min(1, at.episodes),
            eval_episode_steps=(self._eval_steps,) * min(1, at.evaluations),
        )

    def set_logging(self, mode: str) -> None:
        return

    def prefill(self, transitions: int) -> None:
        self._at.rows = max(self._at.rows, self._loop.stored(transitions))

    def replay_size(self) -> int:
        return self._at.rows

    def fingerprint(self) -> dict[str, str]:
        return {
            "weights": f"{self._at.weights:016x}",
            "buffer": digest(self._replay.tolist()),
            "counters": digest(self._at),
        }

    def export(self, path: str) -> None:
        Path(path).write_text(json.dumps(self.fingerprint()), encoding="utf-8")

    def close(self) -> None:
        return

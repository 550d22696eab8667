"""A training of Stable-Baselines3 that can be stopped, captured and measured at every step.

The library's own `learn` drives it, see `step_hooks`.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any, TextIO

from arzbench.errors import DivergedError
from arzbench.facts import EnvFacts
from arzbench.logs.periodic import PeriodicLogger
from arzbench.sb3 import buffer_state, model_state, state_io
from arzbench.sb3.env_errors import explained
from arzbench.sb3.episodes import UNENDING, Player, by_policy
from arzbench.sb3.evaluations import Evaluations
from arzbench.sb3.messages import Messages
from arzbench.sb3.nan_checks import NanChecks
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.skipped_work import distributions_unchecked
from arzbench.sb3.state import MAX_LENGTHS, LiveState
from arzbench.sb3.step_hooks import StepHooks
from arzbench.training_state import TrainingState
from arzbench.workload import LIGHT, AbstractTraining, Control, EvaluationResult, StopTraining


class SB3Training(AbstractTraining):
    """One training; made by `SB3Workload.create`."""

    def __init__(
        self,
        state: LiveState,
        timer: PhaseTimer,
        budget: int,
        *,
        baseline: Player | None = None,
        stream: TextIO | None = None,
    ) -> None:
        """The model in `state` must have been through `models.adopt`.

        Messages of the envs go to `stream`; None leaves them alone.
        """
        self.config = state.config
        self.state = state
        self._budget = budget
        state.extended = budget > state.horizon
        self._evaluate_at = math.inf
        self._baseline = baseline
        self._stream = stream
        self._control: Control
        self._consistent = True
        self._nan_checks = NanChecks(state.model)
        self._hooks = StepHooks(state, timer, self._nan_checks)
        self._messages = [] if stream is None else [Messages(env, timer) for env in state.envs]
        silent = stream is None or state.episodes.env is None
        self._eval_messages = None if silent else Messages(state.episodes.env, timer)
        self._logger: PeriodicLogger | None = None
        self._evaluations = Evaluations(state, timer, self._evaluation_logs)
        self.set_logging(state.config.logging.mode)

    # -- the contract -----------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The model that is trained, of the library's class with hooks."""
        return self.state.model

    @property
    def resumed(self) -> str:
        return self.state.resumed

    @property
    def consistent(self) -> bool:
        return self._consistent

    @property
    def ended(self) -> str:
        return self.state.ended

    @property
    def evaluating(self) -> int | None:
        pending = self.state.episodes.pending
        return None if pending is None else pending.num_timesteps

    @property
    def unsaved(self) -> list[str]:
        return [] if self.state.callbacks is None else self.state.callbacks.unsaved

    @property
    def unseen(self) -> list[str]:
        return self.state.unseen

    @property
    def computed(self) -> str:
        return self._hooks.fast.said

    @property
    def num_timesteps(self) -> int:
        return int(self.model.num_timesteps)

    @property
    def stage(self) -> str:
        return self.state.stage

    def run(self, control: Control) -> None:
        self._control = control
        self._hooks.start(self._at_point, lambda: control.during_update(self))
        if self.state.callbacks is not None:
            self.state.callbacks.watch_evaluations(self._during_callback, self._callback_evaluated)
        self._said = False
        if self.state.random is not None:
            model_state.restore_random(self.model, self.state.random)
            self.state.random = None
        try:
            with distributions_unchecked():
                self._go_on()
        except Exception as error:
            told = explained(error, self.config.env, self.state.envs[0]) if self.state.envs else None
            if told is None:
                raise
            raise told from error
        finally:
            self._evaluations.stop()

    def _go_on(self) -> None:
        state = self.state
        if state.stage in ("final", "done") and self.num_timesteps < self._budget and not state.ended:
            state.stage = "train"
            state.episodes.drop()
        self._switch_evaluation()
        if state.stage == "baseline":
            self._play("baseline", self.config.baseline.episodes)
            state.stage = "train"
            self._switch_evaluation()
        if state.stage == "train":
            self._train()
            state.stage = "final"
        if state.stage == "final":
            self._play("final", self.config.evaluation.final_episodes)
            state.stage = "done"

    def capture(self) -> TrainingState:
        return state_io.capture(self.state)

    def restore(self, saved: TrainingState) -> None:
        """Go on from `saved`; this training must have just been made from the same configuration.

        Raises:
            StateError: `saved` is incomplete or belongs to another training.
        """
        self.set_logging("off")  # envs may be stepped
        state_io.restore(self.state, saved)
        self.set_logging(self.config.logging.mode)

    def check_sound(self) -> None:
        self._nan_checks.check_state()

    def fingerprint(self) -> dict[str, str]:
        return state_io.fingerprint(self.state)

    def facts(self) -> EnvFacts:
        episodes = self.state.episodes
        played = [r.lengths for r in episodes.results if r.kind != "baseline"]
        lengths = [n for part in played for n in part] + episodes.lengths
        return EnvFacts(
            n_envs=self.config.n_envs,
            # of one that does not end, as many as an evaluation of a run plays
            max_episode_steps=self._limit() or (self._longest() if episodes.broken_off else None),
            episode_steps=tuple(self.state.lengths),
            eval_episode_steps=tuple(lengths[-MAX_LENGTHS:]),
        )

    def set_logging(self, mode: str) -> None:
        if self._stream is None:
            return
        period = {"off": 0, "periodic": self.config.logging.log_period, "every": 1}[mode]
        self._logger = PeriodicLogger(period, self._stream) if period else None
        for messages in self._messages:
            messages.switch(self._logger)
        self._switch_evaluation()

    def _switch_evaluation(self) -> None:
        """A baseline stays silent: the schedule counts messages of training and evaluation."""
        if self._eval_messages is not None:
            self._eval_messages.switch(None if self.stage == "baseline" else self._logger)

    def _evaluation_logs(self) -> bool:
        return self._eval_messages is not None and self._logger is not None

    def replay_size(self) -> int:
        buffer = getattr(self.model, "replay_buffer", None)
        return 0 if buffer is None else int(buffer.size() * buffer.n_envs)

    def prefill(self, transitions: int) -> None:
        buffer = getattr(self.model, "replay_buffer", None)
        if buffer is not None:
            buffer_state.prefill(buffer, transitions)

    def export(self, path: str) -> None:
        self._hooks.fast.release()  # a file of views would hold what they are views of
        self.model.save(path)

    def close(self) -> None:
        self.model.env.close()
        self.state.episodes.close()
        if self._stream is not None:
            self._stream.close()

    # -- stages -----------------------------------------------------------------------------------

    def _play(self, kind: str, episodes: int) -> None:
        """The episodes of a stage, unless they are done."""
        results = self.state.episodes.results
        done = any(r.kind == kind and r.num_timesteps == self.num_timesteps for r in results)
        if episodes and not done:
            player = self._policy() if kind != "baseline" or self._baseline is None else self._baseline
            self.state.episodes.play(self, self._control, kind, episodes, player, self._longest())

    def _longest(self) -> int:
        """Env steps after which an episode of an evaluation is broken off."""
        limit = self.config.evaluation.max_steps or self._limit()
        return limit or max(UNENDING, 10 * max(self.state.lengths, default=0))

    def _limit(self) -> int | None:
        """The env's own limit of an episode's steps; None: it has none."""
        env = self.state.envs[0] if self.state.envs else self.state.episodes.env
        spec = getattr(env, "spec", None)
        if env is None:
            with contextlib.suppress(Exception):  # one in another process may not answer
                spec = self.model.env.get_attr("spec", [0])[0]
        return None if spec is None else spec.max_episode_steps

    def _policy(self) -> Player:
        return by_policy(
            self.model,
            self.state.episodes.env,
            deterministic=self.config.evaluation.deterministic,
        )

    def _train(self) -> None:
        self._plan_evaluation()
        self._evaluations.begin()
        if self.state.episodes.pending is not None:  # a session before was stopped beside it
            self._evaluations.play(self, self._control, self._policy, self._longest(), more=True)
        rollout = self.state.rollout
        rollout.complete = self._awaits_update()
        # a rollout that was begun is finished, also beyond the budget
        left = max(self._budget - self.num_timesteps, int(rollout.open and not rollout.complete))
        # callbacks are told that the training ends, also where nothing is left
        if left > 0 or rollout.complete or self.state.callbacks is not None:
            self._learn(left)
        self._between_steps()
        self._evaluations.finish(self, self._control, self._policy)

    def _learn(self, steps: int) -> None:
        state, model = self.state, self.model
        arguments = {"log_interval": None} if state.callbacks is None else state.callbacks.arguments
        if state.begun or "reset_num_timesteps" not in arguments:
            arguments = {**arguments, "reset_num_timesteps": not state.begun}
        try:
            model.learn(steps, **arguments)
        except BaseException as error:
            self._hooks.break_off()
            if isinstance(error, Exception) and not isinstance(error, DivergedError):
                self._nan_checks.check_losses()  # one that is not finite explains what came of it
            raise
        self._hooks.close()
        if self.num_timesteps < self._budget:
            state.ended = "a callback ended the training"

    def _awaits_update(self) -> bool:
        """All steps of the open rollout are stored: its update was undone."""
        state, model = self.state, self.model
        episodes = model._episode_num - state.rollout.first_episode
        return state.rollout.open and state.loop.complete(state.rollout_steps, episodes)

    def _between_steps(self) -> None:
        """Tell of ended episodes and of an ended evaluation, and evaluate when it is time."""
        while self.state.episodes_ended:
            self._control.episode_ended(self, *self.state.episodes_ended.pop(0))
        due = self.num_timesteps >= self._evaluate_at
        self._evaluations.finish(self, self._control, self._policy, wait=due)
        if due:
            more = self.num_timesteps < self._budget
            self._evaluations.play(self, self._control, self._policy, self._longest(), more=more)
            self._plan_evaluation()

    def _during_callback(self, steps: int, episodes: int) -> None:
        """Before a step of an evaluation by a callback, of which there were `steps` for `episodes`."""
        if not self._said and steps > self._longest() * episodes:
            self._said = True
            self._control.noted(
                f"episodes of {self.config.env} do not end: an evaluation by a callback goes on after "
                f"{steps:,} steps; wrap its env in a TimeLimit"
            )
        try:
            self._control.during_episode(self)
        except StopTraining:
            self._consistent = False  # the step before the callback is not stored yet
            raise

    def _callback_evaluated(self, returns: tuple[float, ...], lengths: tuple[int, ...]) -> None:
        result = EvaluationResult(
            kind="callback", num_timesteps=self.num_timesteps, returns=returns, lengths=lengths
        )
        self._control.evaluated(self, result)

    def _plan_evaluation(self) -> None:
        """The next one is due `eval_freq` vectorised steps after the last was, as in EvalCallback."""
        steps = self.config.evaluation.eval_freq * self.config.n_envs
        episodes = self.state.episodes
        begun = episodes.evaluations + (episodes.pending is not None)
        self._evaluate_at = (begun + 1) * steps if steps else math.inf

    def _at_point(self) -> int:
        """Evaluate and ask the control; how many steps after the next one need no question."""
        state, timesteps = self.state, self.num_timesteps
        if state.episodes_ended or timesteps >= self._evaluate_at or self._evaluations.ended:
            self._between_steps()
        to_evaluation = math.inf if state.callbacks is None else state.callbacks.steps_to_evaluation
        if to_evaluation == 1:
            self._control.before_episode(self, "callback")
        number = state.rollout_steps + 1  # of the next step in its rollout
        unasked = self._control.before_step(self, state.loop.updates_after(number, timesteps))
        if not unasked:
            return 0
        limits = [unasked, state.loop.light_steps(number, timesteps, LIGHT)]
        if to_evaluation < math.inf:
            limits.append(int(to_evaluation) - 2)
        # the first step with updates is another kind of unit
        due = [at for at in (state.loop.first_update, self._evaluate_at) if timesteps < at < math.inf]
        limits += [(int(at) - timesteps - 1) // self.config.n_envs for at in due]
        return max(0, min(limits))

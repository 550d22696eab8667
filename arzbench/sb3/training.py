"""A training of Stable-Baselines3 that can be stopped, captured and measured at every step.

The library's own `learn` drives it. A consistent point is the top of its collection loop: every
earlier step is stored, counted and learned from, and nothing of the next one has happened.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from arzbench.errors import DivergedError
from arzbench.logs.periodic import PeriodicLogger
from arzbench.records import EnvFacts
from arzbench.sb3 import model_state, state_io, updates
from arzbench.sb3.episodes import Episodes, Player, by_policy
from arzbench.sb3.messages import Messages
from arzbench.sb3.nan_checks import Soundness
from arzbench.sb3.phase_timer import Meter
from arzbench.sb3.skipped_work import distributions_unchecked
from arzbench.sb3.state import MAX_LENGTHS, Rollout, TrainingParts
from arzbench.study import OffPolicyConfig, OnPolicyConfig, TrainConfig
from arzbench.workload import LIGHT, AbstractTraining, Control, StopTraining, TrainingState


class SB3Training(TrainingParts, AbstractTraining):
    """One training; made by `SB3Workload.create`."""

    def __init__(
        self,
        config: TrainConfig,
        model: Any,
        envs: Sequence[Any],
        episodes: Episodes,
        baseline: Player,
        meter: Meter,
        stream: TextIO,
        budget: int,
    ) -> None:
        """`model` must be of a class of `arzbench.sb3.workload`; `envs` are those it trains on."""
        super().__init__(config, model, envs, episodes)
        self.meter = meter
        self.horizon = config.total_timesteps
        self._budget = budget
        self._evaluate_at = math.inf
        self._baseline = baseline
        self._stream = stream
        self._control: Control
        self._redraw: Callable[..., None] | None = None
        self._last_update_s = 0.0
        self._settled = 0  # updates that were booked
        self._sound = Soundness(model, self.tensors)
        self._messages = [Messages(env, meter) for env in envs]
        self._eval_messages = Messages(episodes.env, meter)
        self.set_logging(config.logging.mode)
        model.watch = self
        for env in envs:
            meter.watch_resets(env, self.episode_ended)
        if isinstance(config, OnPolicyConfig):
            meter.watch_forward(model.policy, model.env, self.consistent_point)
        else:
            meter.watch_predict(model, model.env, self.consistent_point)

    # -- the contract -----------------------------------------------------------------------------

    @property
    def num_timesteps(self) -> int:
        return int(self.model.num_timesteps)

    @property
    def num_updates(self) -> int:
        return self.updates

    @property
    def stage(self) -> str:
        return self.position

    def run(self, control: Control) -> None:
        self._control = control
        self._settled = self.updates
        if self.random is not None:
            model_state.restore_random(self.model, self.random)
            self.random = None
        with distributions_unchecked():
            self._go_on()

    def _go_on(self) -> None:
        if self.position in ("final", "done") and self.num_timesteps < self._budget:
            self.position = "train"
            self.episodes.drop()
        self._switch_evaluation()
        if self.position == "baseline":
            self._play("baseline", self.config.baseline.episodes)
            self.position = "train"
            self._switch_evaluation()
        if self.position == "train":
            self._train()
            self.position = "final"
        if self.position == "final":
            self._play("final", self.config.evaluation.final_episodes)
            self.position = "done"

    def capture(self) -> TrainingState:
        return state_io.capture(self)

    def restore(self, state: TrainingState) -> None:
        """Go on from `state`; this training must have just been made from the same configuration.

        Raises:
            StateError: `state` is incomplete or belongs to another training.
        """
        self.set_logging("off")  # envs may be stepped
        state_io.restore(self, state)
        self.set_logging(self.config.logging.mode)

    def check_sound(self) -> None:
        self._sound.check_state()

    def fingerprint(self) -> dict[str, str]:
        return state_io.fingerprint(self)

    def facts(self) -> EnvFacts:
        played = [r.lengths for r in self.episodes.results if r.kind != "baseline"]
        lengths = [n for part in played for n in part] + self.episodes.lengths
        spec = self.envs[0].spec
        return EnvFacts(
            n_envs=self.config.n_envs,
            max_episode_steps=None if spec is None else spec.max_episode_steps,
            episode_steps=tuple(self.lengths),
            eval_episode_steps=tuple(lengths[-MAX_LENGTHS:]),
        )

    def set_logging(self, mode: str) -> None:
        period = {"off": 0, "periodic": self.config.logging.log_period, "every": 1}[mode]
        self._logger = PeriodicLogger(period, self._stream) if period else None
        for messages in self._messages:
            messages.switch(self._logger)
        self._switch_evaluation()

    def _switch_evaluation(self) -> None:
        """A baseline stays silent: the schedule counts messages of training and evaluation."""
        self._eval_messages.switch(None if self.position == "baseline" else self._logger)

    def replay_size(self) -> int:
        buffer = getattr(self.model, "replay_buffer", None)
        return 0 if buffer is None else int(buffer.size() * buffer.n_envs)

    def prefill(self, transitions: int) -> None:
        buffer = getattr(self.model, "replay_buffer", None)
        if buffer is not None:
            model_state.prefill(buffer, transitions)

    def export(self, path: str) -> None:
        self.model.save(path)

    def close(self) -> None:
        self.model.env.close()
        self.episodes.env.close()
        self._stream.close()

    # -- stages -----------------------------------------------------------------------------------

    def _play(self, kind: str, episodes: int) -> None:
        """The episodes of a stage, unless they are done."""
        done = any(r.kind == kind and r.num_timesteps == self.num_timesteps for r in self.episodes.results)
        if episodes and not done:
            policy = by_policy(self.model, self.config.evaluation.deterministic)
            player = self._baseline if kind == "baseline" else policy
            self.episodes.play(self, self._control, kind, episodes, player)

    def _train(self) -> None:
        self._plan_evaluation()
        if self._awaits_update():
            self.model.finish_rollout()
            self._settle(self.meter.break_off)
        # a rollout that was begun is finished, also beyond the budget
        left = max(self._budget - self.num_timesteps, int(self.rollout.open))
        if left > 0:
            self._learn(left)
        self._between_steps()

    def _learn(self, steps: int) -> None:
        begun = self.model._last_obs is not None
        try:
            self.model.learn(steps, log_interval=None, reset_num_timesteps=not begun)
        except BaseException as error:
            self.meter.break_off(self.updates - self._settled)
            if isinstance(error, Exception) and not isinstance(error, DivergedError):
                self._sound.check_losses()  # one that is not finite explains what came of it
            raise
        self._settle(self.meter.end_steps)

    def _settle(self, book: Callable[[int], object]) -> None:
        """Book what was done since the last time, and look at its losses."""
        done, updated = self.updates - self._settled, self.meter.updated
        if updated:
            self._last_update_s = updated[-1]
        book(done)
        if done:
            self._settled = self.updates
            self._sound.check_losses()  # the last: one that is not finite makes all later ones so

    def _between_steps(self) -> None:
        """Tell of ended episodes, and evaluate when it is time."""
        while self.ended:
            self._control.episode_ended(self, *self.ended.pop(0))
        evaluation = self.config.evaluation
        if self.num_timesteps >= self._evaluate_at:
            policy = by_policy(self.model, evaluation.deterministic)
            self.episodes.play(self, self._control, "evaluation", evaluation.n_eval_episodes, policy)
            self._plan_evaluation()

    def _plan_evaluation(self) -> None:
        """The next one is due `eval_freq` vectorised steps after the last was, as in EvalCallback."""
        steps = self.config.evaluation.eval_freq * self.config.n_envs
        self._evaluate_at = (self.episodes.evaluations + 1) * steps if steps else math.inf

    # -- called from within `learn` ---------------------------------------------------------------

    def learning_begins(self) -> None:
        """`learn` has set itself up; noise it has reset gets its state back."""
        if self.noise:
            model_state.restore_noise(self.model, self.noise)
            self.noise = []

    def consistent_point(self) -> None:
        """The top of the collection loop. Called at each step that the control is to be asked about."""
        if self._redraw is not None:
            self._redraw_noise()
        self._settle(self.meter.end_steps)
        timesteps = self.model.num_timesteps
        if self.ended or timesteps >= self._evaluate_at:
            self._between_steps()
        number = self.rollout_steps + 1  # of the next step in its rollout
        unasked = self._control.before_step(self, self.rule.after(number, timesteps))
        if not unasked or self._redraw is not None:
            self.meter.begin_steps(0)
            return
        unasked = min(unasked, self.rule.light_steps(number, timesteps))
        if timesteps < self.rule.first:  # the first step with updates is another kind of unit
            unasked = min(unasked, (self.rule.first - timesteps - 1) // self.config.n_envs)
        if self._evaluate_at < math.inf:
            unasked = min(unasked, (int(self._evaluate_at) - timesteps - 1) // self.config.n_envs)
        self.meter.begin_steps(max(0, unasked))

    @contextlib.contextmanager
    def rest_of_rollout(self, noisy: Any) -> Iterator[Rollout]:
        """Around the collection of the rest of a rollout that was stopped.

        `noisy` is what draws gSDE noise, None where there is none: what the rollout has drawn
        already is not drawn again.
        """
        self.rollout.carried = self.rollout_steps
        if noisy is not None:
            self._redraw = noisy.reset_noise
            noisy.reset_noise = lambda *_: None
        try:
            yield self.rollout
        finally:
            if noisy is not None:
                self._redraw = None
                del noisy.reset_noise

    def _awaits_update(self) -> bool:
        """All steps of the open rollout are stored: its update was undone."""
        rollout, config = self.rollout, self.config
        if not rollout.open or not self.rule.episodes:
            return rollout.open and self.rollout_steps >= self.rule.steps
        assert isinstance(config, OffPolicyConfig)
        return bool(self.model._episode_num - rollout.first_episode >= config.frequency[0])

    def update(
        self,
        train: Callable[..., None],
        gradient_steps: int,
        *arguments: Any,
        count: Callable[[], int] | None = None,
    ) -> None:
        """Do the update that follows a rollout: `train` does `gradient_steps`, or `count()` where fewer."""
        ticks = self.meter.ticks
        began = ticks()
        updates.flush_denormals(True)
        try:
            if gradient_steps >= updates.LONG_STEPS or self._last_update_s > updates.LONG_S:
                self._update_or_undo(train, gradient_steps, arguments)
            else:
                train(*arguments)
        finally:
            updates.flush_denormals(False)
        self.meter.updated.append(ticks() - began)
        self.updates += gradient_steps if count is None else count()
        if gradient_steps > LIGHT:
            self._sound.check_losses()

    def _update_or_undo(
        self, train: Callable[..., None], gradient_steps: int, arguments: tuple[Any, ...]
    ) -> None:
        def poll() -> None:
            self._control.during_update(self)

        last_s = self._last_update_s
        every = max(1, int(updates.POLL_S * gradient_steps / last_s)) if last_s else 1
        try:
            with updates.undone_if_stopped(self.model, self.tensors, poll, every):
                train(*arguments)
        except StopTraining:
            self.rollout.open = True
            raise

    def _redraw_noise(self) -> None:
        """Draw gSDE noise where the whole rollout would have: the library counts from the resumption."""
        frequency, steps = self.model.sde_sample_freq, self.rollout_steps
        due = frequency > 0 and steps > self.rollout.carried and steps % frequency == 0
        if self._redraw and due:
            self._redraw(self.config.n_envs)

    def episode_ended(self, episode_return: float, length: int) -> None:
        """A training episode ended; the control hears of it before it is asked again."""
        self._sound.check_return(episode_return)
        self.lengths.append(length)
        self.ended.append((float(episode_return), length))

"""The one object between the library's loop and ours: it times, counts and asks.

    model.learn -- each step, each update --> StepHooks -- question --> SB3Training --> Control --> Guard

A question is asked at a consistent point, the top of the collection loop: every earlier step is stored,
counted and learned from, and nothing of the next one has happened. The answer is how many steps after the
next one need no question. See docs/concepts/hot-loop.md.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, is_vecenv_wrapped

from arzbench.facts import Phase
from arzbench.sb3 import model_state, state_io, updates
from arzbench.sb3.attached import attach
from arzbench.sb3.fast.path import FastPath
from arzbench.sb3.nan_checks import NanChecks
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.state import LiveState, Rollout
from arzbench.workload import LIGHT, StopTraining

# looked up once: an enum's attribute costs as much as a reading of the clock
_ROLLOUT, _ENV_STEP, _POLICY, _UPDATE = Phase.ROLLOUT, Phase.ENV_STEP, Phase.POLICY, Phase.UPDATE


class StepHooks:
    """Called by a model of `arzbench.sb3.models` at each step and update of its `learn`.

    What happens between two questions is a window: one vectorised step or several. Env steps, actions of the
    policy and updates are timed one by one; what a window takes beside them is the rollout's.
    """

    def __init__(self, state: LiveState, timer: PhaseTimer, nan_checks: NanChecks) -> None:
        self.left = 0  # steps to come that need no question
        self.state = state
        self._timer = timer
        self._ticks = timer.ticks
        self._nan_checks = nan_checks
        self._at_point: Callable[[], int]
        self._within_update: Callable[[], None]
        self._redraw: Callable[..., None] | None = None
        self._last_update_s = 0.0
        # of the window that is open
        self._is_open = False
        self._began = 0.0
        self._steps = self._actions = self._gradient_steps = 0
        self._env_s = self._policy_s = 0.0
        self._updates_s: list[float] = []
        self._collected_at = 0.0
        self.optimizer_steps = 0  # of an optimizer that a model has counted
        self.handles: list[Any] = []  # to be removed when the hooks are
        self.fast = FastPath(state.model, wanted=state.config.fast is not False)
        state.model.attach(self)
        vec_env = state.model.env
        if not (state.model.tells_of_episodes or _monitored(vec_env)):
            n_envs = vec_env.num_envs
            state.unmonitored = np.zeros(n_envs), np.zeros(n_envs, np.int64)
        self._time_steps(vec_env)
        for env in state.envs:
            timer.watch_resets(env)

    def start(self, at_point: Callable[[], int], within_update: Callable[[], None]) -> None:
        """Ask `at_point` at consistent points, and `within_update` between gradient steps of long updates.

        Both may raise `StopTraining`.
        """
        self._at_point, self._within_update = at_point, within_update
        self.left = 0
        if self.state.env_before is not None:
            state_io.restore_world(self.state, self.state.env_before)
            self.state.env_before = None

    # -- each step --------------------------------------------------------------------------------

    def ask(self) -> None:
        """Close the window, ask whether to go on, and open the next one."""
        if self._redraw is not None:
            self._redraw_noise(self._redraw)
        self.close()
        answer = self._at_point()
        self.left = 0 if self._redraw is not None else answer
        self._steps = self._actions = 0
        self._env_s = self._policy_s = self._timer.nested_s = self._timer.evaluating_s = 0.0
        self._is_open = True
        self._began = self._ticks()

    def timed_policy(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """`inner`, which chooses the actions of one vectorised step, timed."""
        ticks = self._ticks

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = ticks()
            result = inner(*args, **kwargs)
            self._policy_s += ticks() - began
            self._actions += 1
            return result

        return timed

    def time_forward(self, policy: Any) -> None:
        """Time each forward pass of `policy` and of its copies, which take hooks of torch with them."""
        ticks, began = self._ticks, 0.0

        def before(*_: Any) -> None:
            nonlocal began
            began = ticks()

        def after(*_: Any) -> None:
            self._policy_s += ticks() - began
            self._actions += 1

        self.handles += [policy.register_forward_pre_hook(before), policy.register_forward_hook(after)]

    def _time_steps(self, vec_env: Any) -> None:
        ticks = self._ticks
        whole_step = vec_env.step

        def step(actions: Any) -> Any:
            began = ticks()
            vec_env.step_async(actions)  # what the library's `step` consists of, and may come to be recorded
            result = vec_env.step_wait()
            self._env_s += ticks() - began
            self._steps += 1
            return result

        def step_of_its_own(actions: Any) -> Any:
            began = ticks()
            result = whole_step(actions)
            self._env_s += ticks() - began
            self._steps += 1
            return result

        usual = type(vec_env).step is VecEnv.step and "step" not in vars(vec_env)
        timed = step if usual else step_of_its_own
        attach(vec_env, "step", timed if self.state.unmonitored is None else self._followed(timed))

    def _followed(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`step`, with the episodes of its envs followed: no Monitor does."""
        assert self.state.unmonitored is not None
        returns, lengths = self.state.unmonitored
        normalizer = self.state.model.get_vec_normalize_env()

        def followed(actions: Any) -> Any:
            result = step(actions)
            _, rewards, dones, infos = result
            returns[:] += rewards if normalizer is None else normalizer.get_original_reward()
            lengths[:] += 1
            for index in np.flatnonzero(dones):
                if "episode" not in infos[index]:  # else the model tells of it
                    self.episode_ended(returns[index], lengths[index])
                returns[index], lengths[index] = 0.0, 0
            return result

        return followed

    def close(self) -> None:
        """Report the window to the recorder, and look at the losses of its updates.

        Raises:
            DivergedError: a loss is not finite.
        """
        if self._report(whole=True):
            self._nan_checks.check_losses()  # the last: one that is not finite makes all later ones so

    def break_off(self) -> None:
        """Report a window that ended within a step: what steps took beside their parts is not known."""
        self._report(whole=False)

    def _report(self, *, whole: bool) -> bool:
        """Whether the window has updates."""
        add, nested_s, updates_s = self._timer.add, self._timer.nested_s, sum(self._updates_s)
        if self._is_open:
            steps, env_s, policy_s = self._steps, self._env_s - nested_s, self._policy_s
            aside_s = nested_s + self._timer.evaluating_s + updates_s
            rest_s = self._ticks() - self._began - aside_s - env_s - policy_s
            if steps:
                add(_ENV_STEP, env_s, self.state.config.n_envs * steps)
            if self._actions:
                add(_POLICY, policy_s, self._actions)
            if whole:
                add(_ROLLOUT, rest_s, steps)
        self._is_open = False
        self.left = 0
        if not self._updates_s:
            return False
        add(_UPDATE, updates_s, self._gradient_steps)
        self._last_update_s = self._updates_s[-1]
        self._updates_s.clear()
        self._gradient_steps = 0
        return True

    # -- each rollout and update ------------------------------------------------------------------

    def learning_begins(self) -> None:
        """`learn` has set itself up; noise it has reset gets its state back."""
        self.state.begun = True
        if self.state.noise:
            model_state.restore_noise(self.state.model, self.state.noise)
            self.state.noise = []

    @contextlib.contextmanager
    def rest_of_rollout(self, callback: Any, noisy: Any) -> Iterator[Rollout]:
        """Around the collection of the rest of a rollout that was stopped.

        `callback` is not told of its start again. `noisy` is what draws gSDE noise, None where there is
        none: what the rollout has drawn already is not drawn again.
        """
        rollout = self.state.rollout
        rollout.carried = self.state.rollout_steps
        callback.on_rollout_start = lambda: None
        if noisy is not None:
            self._redraw = noisy.reset_noise
            noisy.reset_noise = lambda *_: None
        try:
            yield rollout
        finally:
            del callback.on_rollout_start
            if noisy is not None:
                self._redraw = None
                del noisy.reset_noise

    def _redraw_noise(self, redraw: Callable[..., None]) -> None:
        """Draw gSDE noise where the whole rollout would have: the library counts from the resumption."""
        frequency, steps = self.state.model.sde_sample_freq, self.state.rollout_steps
        if frequency > 0 and steps > self.state.rollout.carried and steps % frequency == 0:
            redraw(self.state.config.n_envs)

    def update(
        self, train: Callable[[], None], gradient_steps: int, count: Callable[[], int] | None = None
    ) -> None:
        """Do the update that follows a rollout: `train` does `gradient_steps`, or `count()` where fewer."""
        began = self._ticks()
        if not self.state.like_library:
            updates.flush_denormals(True)
        try:
            if gradient_steps >= updates.LONG_STEPS or self._last_update_s > updates.LONG_S:
                self._update_or_undo(train, gradient_steps)
            else:
                train()
        finally:
            if not self.state.like_library:
                updates.flush_denormals(False)
        self._updated(began, gradient_steps if count is None else count())
        if gradient_steps > LIGHT:
            self._nan_checks.check_losses()

    def _updated(self, began: float, gradient_steps: int) -> None:
        self._updates_s.append(self._ticks() - began)
        self._gradient_steps += gradient_steps
        self.state.updates += gradient_steps

    def _update_or_undo(self, train: Callable[[], None], gradient_steps: int) -> None:
        last_s = self._last_update_s
        every = max(1, int(updates.POLL_S * gradient_steps / last_s)) if last_s else 1
        state = self.state
        try:
            with updates.undone_if_stopped(state.model, self._within_update, every):
                train()
        except StopTraining:
            state.rollout.open = True
            raise

    @contextlib.contextmanager
    def iteration(self) -> Iterator[None]:
        """Around an iteration of ARS: its episodes, and its step of the weights at the end.

        Stopped within, it is undone; the envs are put back when the training goes on.
        """
        state, model = self.state, self.state.model
        state.rollout.begin(model.num_timesteps, 0)
        state.rollout.open = False  # one that was begun is made anew
        self.ask()
        random, counters = model_state.capture_random(model), model_state.capture_counters(model)
        before = copy.deepcopy((counters, state.episodes_ended, state.lengths, state_io.capture_world(state)))
        callbacks = None if state.callbacks is None else state.callbacks.capture()
        try:
            yield
        except StopTraining:
            counters, state.episodes_ended, state.lengths, state.env_before = before
            model_state.restore_counters(model, counters)
            state.random = random
            if state.callbacks is not None:
                state.callbacks.put_back(callbacks)
            self._is_open = False  # what it took is not reported, as of an episode that is played again
            raise
        self._updated(self._collected_at, 1)

    def between_steps(self) -> None:
        """Between two env steps of an iteration.

        Raises:
            StopTraining: the training is to end; the iteration is undone.
        """
        self._within_update()

    def collected(self) -> None:
        """An iteration has all its episodes."""
        self._collected_at = self._ticks()

    def episode_ended(self, episode_return: float, length: int) -> None:
        """An episode of training ended, after `length` env steps."""
        self._nan_checks.check_return(episode_return)
        self.state.lengths.append(int(length))
        self.state.episodes_ended.append((float(episode_return), int(length)))


def _monitored(vec_env: Any) -> bool:
    """Whether something in or around the envs tells when an episode ends, and how it went."""
    if is_vecenv_wrapped(vec_env, VecMonitor):
        return True
    try:
        return all(vec_env.env_is_wrapped(Monitor))
    except (AttributeError, NotImplementedError):  # of a VecEnv without single envs
        return False

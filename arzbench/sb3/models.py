"""Hooks in a model of the library: `learn` as always, but timed, and stopped and resumed at any step.

A model, whoever made it and of whatever algorithm, is hooked by its class: the new one is the model's own
below one of the three here, which know how the library's kinds of algorithms collect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv

from arzbench.errors import UsageError
from arzbench.sb3.attached import attach, detach
from arzbench.sb3.step_hooks import StepHooks


class NullCallback(BaseCallback):
    """A callback that does nothing, in less time than the library's own for none."""

    def _on_step(self) -> bool:
        return True

    on_step = _on_step

    def update_locals(self, locals_: dict[str, Any]) -> None:
        return


class _Hooked(BaseAlgorithm):
    """Calls its hooks from within `learn`; changes nothing of it."""

    hooks: StepHooks
    #: whether the algorithm itself tells of every episode, with or without a Monitor
    tells_of_episodes = False

    def detach(self) -> None:
        self.hooks.fast.release()
        for handle in self.hooks.handles:
            handle.remove()
        del self.hooks

    def _init_callback(self, callback: Any, progress_bar: bool = False) -> BaseCallback:
        if self.hooks.state.callbacks is not None:
            made = super()._init_callback(callback, progress_bar)
            self.hooks.state.callbacks.begin(made)
            return made
        nothing = NullCallback()
        nothing.init_callback(self)
        return nothing

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._setup_learn(*args, **kwargs)
        # `learn` may be asked for less than the horizon that schedules are made for
        self._total_timesteps = self.hooks.state.horizon
        self._num_timesteps_at_start = 0
        self.hooks.learning_begins()
        if self.hooks.state.rollout.complete:  # not before: the library has made its logger only now
            self.hooks.state.rollout.complete = False
            self.finish_rollout()
            self.hooks.close()
        return prepared

    def finish_rollout(self) -> None:
        """Do the update of a rollout that has all its steps, as `learn` would."""
        raise NotImplementedError

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        state = self.hooks.state
        self._current_progress_remaining = 1.0 - num_timesteps / state.horizon
        if state.extended:  # schedules stay at their end
            self._current_progress_remaining = max(0.0, self._current_progress_remaining)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: Any = None) -> None:
        super()._update_info_buffer(infos, dones)
        for info in infos:
            if "episode" in info:  # of a Monitor
                self.hooks.episode_ended(info["episode"]["r"], info["episode"]["l"])

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "hooks"]


class _OffPolicy(_Hooked, OffPolicyAlgorithm):
    def attach(self, hooks: StepHooks) -> None:
        self.hooks = hooks
        policy: Any = self.policy
        attach(policy, "predict", hooks.timed_policy(hooks.fast.acting("predict")))

    def _sample_action(self, *args: Any, **kwargs: Any) -> Any:
        hooks = self.hooks
        if hooks.left:
            hooks.left -= 1
        else:
            hooks.ask()
        return super()._sample_action(*args, **kwargs)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: Any,
        train_freq: TrainFreq,
        replay_buffer: Any,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        rollout = self.hooks.state.rollout
        if rollout.open:
            return self._collect_rest(env, callback, train_freq, replay_buffer, action_noise, learning_starts)
        rollout.begin(self.num_timesteps, self._episode_num)
        result = super().collect_rollouts(
            env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
        )
        rollout.open = False
        return result

    def _collect_rest(self, env: VecEnv, callback: Any, train_freq: TrainFreq, *others: Any) -> RolloutReturn:
        with self.hooks.rest_of_rollout(callback, self.actor if self.use_sde else None) as rollout:
            done = rollout.carried
            if train_freq.unit is TrainFrequencyUnit.EPISODE:
                done = self._episode_num - rollout.first_episode
            rest = train_freq._replace(frequency=train_freq.frequency - done)
            result = super().collect_rollouts(env, callback, rest, *others)
        rollout.open = False
        return result._replace(episode_timesteps=result.episode_timesteps + rollout.carried * env.num_envs)

    def finish_rollout(self) -> None:
        """Do the update of a rollout that has all its steps, as `learn` would."""
        steps = (
            self.gradient_steps if self.gradient_steps >= 0 else self.hooks.state.rollout_steps * self.n_envs
        )
        self.hooks.state.rollout.open = False
        self.train(steps, self.batch_size)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        learn, fast = super().train, self.hooks.fast
        self.hooks.update(lambda: fast.train(learn, gradient_steps, batch_size), gradient_steps)


class _OnPolicy(_Hooked, OnPolicyAlgorithm):
    def attach(self, hooks: StepHooks) -> None:
        self.hooks = hooks
        policy: Any = self.policy
        forward = hooks.timed_policy(hooks.fast.acting("forward"))

        def ask_and_forward(*args: Any, **kwargs: Any) -> Any:  # the first thing that a step does
            if hooks.left:
                hooks.left -= 1
            else:
                hooks.ask()
            return forward(*args, **kwargs)

        attach(policy, "forward", ask_and_forward)
        if not hooks.fast.why:
            for name in ("predict", "predict_values"):
                attach(policy, name, hooks.fast.acting(name))
        if self._ends_early:
            hooks.handles.append(policy.optimizer.register_step_post_hook(self._count_minibatch))

    @property
    def _ends_early(self) -> bool:
        """An update may, before it has done all of its gradient steps."""
        return getattr(self, "target_kl", None) is not None

    def _count_minibatch(self, *_: Any) -> None:
        self.hooks.optimizer_steps += not self.hooks.fast.trying

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: Any,
        rollout_buffer: Any,
        n_rollout_steps: int,
        *others: Any,
        **named: Any,
    ) -> bool:
        rollout = self.hooks.state.rollout
        if not rollout.open:
            rollout.begin(self.num_timesteps, self._episode_num)
            goes_on = super().collect_rollouts(
                env, callback, rollout_buffer, n_rollout_steps, *others, **named
            )
        else:
            with self.hooks.rest_of_rollout(callback, self.policy if self.use_sde else None):
                rollout_buffer.reset = lambda: None
                try:
                    left = n_rollout_steps - rollout.carried
                    goes_on = super().collect_rollouts(env, callback, rollout_buffer, left, *others, **named)
                finally:
                    del rollout_buffer.reset
        rollout.open = False
        return goes_on

    def finish_rollout(self) -> None:
        """Do the update of a rollout that has all its steps, as `learn` would."""
        self.hooks.state.rollout.open = False
        self._update_current_progress_remaining(self.num_timesteps, 0)
        self.train()

    def train(self) -> None:
        hooks = self.hooks
        before = hooks.optimizer_steps
        count = (lambda: hooks.optimizer_steps - before) if self._ends_early else None
        learn, fast = super().train, hooks.fast
        hooks.update(lambda: fast.train(learn), hooks.state.loop.gradient_steps, count)


class _RandomSearch(_Hooked):
    """ARS: an iteration plays whole episodes of perturbed policies, then makes one step of the weights.

    It is asked about before each iteration; one that is stopped between its env steps is undone.
    """

    tells_of_episodes = True

    def attach(self, hooks: StepHooks) -> None:
        self.hooks = hooks
        hooks.time_forward(self.policy)

    def _do_one_update(self, callback: Any, async_eval: Any) -> None:
        if async_eval is not None:
            raise UsageError(
                "async_eval plays its episodes in processes that cannot be timed or stopped",
                "leave async_eval out: episodes are played one by one",
            )
        with self.hooks.iteration():
            super()._do_one_update(callback, None)  # type: ignore[misc]

    def evaluate_candidates(self, *args: Any) -> Any:
        returns = super().evaluate_candidates(*args)  # type: ignore[misc]
        self.hooks.collected()
        return returns

    def _trigger_callback(self, *args: Any, **kwargs: Any) -> None:
        super()._trigger_callback(*args, **kwargs)  # type: ignore[misc]
        self.hooks.between_steps()


def adopt(model: Any) -> Any:
    """Let `model`, of any algorithm, have hooks: an object of the same class otherwise, and the same one.

    Raises:
        UsageError: its way to collect and learn is not one of those known here.
    """
    kind = type(model)
    if not isinstance(model, _Hooked):
        model.__class__ = type(kind.__name__, (_kind_of(model), kind), {"__module__": kind.__module__})
    return model


def _kind_of(model: Any) -> type[_Hooked]:
    if isinstance(model, OffPolicyAlgorithm):
        return _OffPolicy
    if isinstance(model, OnPolicyAlgorithm):
        return _OnPolicy
    if not hasattr(model, "evaluate_candidates"):
        raise UsageError(
            f"{type(model).__name__} collects in a way of its own: neither on-policy nor off-policy",
            "any algorithm of Stable-Baselines3 or sb3-contrib will do, or a subclass of one",
        )
    if model.n_envs > 1:
        raise UsageError(
            f"ARS with {model.n_envs} envs: the library counts each of their steps {model.n_envs} times over",
            "build it with one env",
        )
    return _RandomSearch


def release(model: Any) -> None:
    """Undo `adopt` and what was attached since: `model` is as its maker knew it, its envs are, too."""
    if not isinstance(model, _Hooked):
        return
    if "hooks" in vars(model):
        model.detach()
    for part in (model, model.policy, *_around(model.env)):
        detach(part)
    model.__class__ = type(model).__bases__[1]


def _around(vec_env: Any) -> Iterator[Any]:
    """A vectorised env, what it wraps, the envs in it, and what they wrap."""
    while vec_env is not None:
        yield vec_env
        for env in vars(vec_env).get("envs", ()):
            while env is not env.unwrapped:
                yield env
                env = env.env
            yield env
        vec_env = vars(vec_env).get("venv")

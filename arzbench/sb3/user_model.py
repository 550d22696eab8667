"""A model that the user's own code built, as a training like any other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from arzbench.clock import Clock
from arzbench.digest import digest
from arzbench.errors import StateError, UsageError
from arzbench.facts import Phase
from arzbench.loop import TrainingLoop
from arzbench.sb3.callbacks import Callbacks, called_each_step
from arzbench.sb3.episodes import Episodes
from arzbench.sb3.model_loop import apply_loop, loop_of
from arzbench.sb3.models import adopt, release
from arzbench.sb3.open_episodes import innermost
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.plugins import register_plugins
from arzbench.sb3.state import LiveState
from arzbench.sb3.training import SB3Training
from arzbench.sb3.workload import library_versions
from arzbench.study import Built, Checkpoints, Code, Evaluation, TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import AbstractWorkload, Recorder


def describe(
    model: Any, code: Code, *, name: str, total_timesteps: int, callback: Any, checkpoint_freq: int
) -> Built:
    """What training `model` for `total_timesteps` env steps will do, read from its own attributes.

    Raises:
        UsageError: it is no model of the library, or has no env.
    """
    if not isinstance(model, BaseAlgorithm):
        raise UsageError(
            f"a model of Stable-Baselines3 is needed, not {type(model).__name__}",
            "for example PPO('MlpPolicy', env); for any other training loop: arzbench.Session",
        )
    if model.env is None:
        raise UsageError("the model has no env to train on", "model.set_env(env), or pass env= to load()")
    evaluating = _evaluating(callback)
    evaluation = Evaluation()
    if evaluating is not None:
        evaluation = Evaluation(
            eval_freq=evaluating.eval_freq,
            n_eval_episodes=evaluating.n_eval_episodes,
            deterministic=evaluating.deterministic,
        )
    shapes = {name: list(tensor.shape) for name, tensor in model.policy.state_dict().items()}
    return Built(
        name=name,
        env=_env_name(model.env),
        policy=type(model.policy).__name__,
        n_envs=model.n_envs,
        device=model.device.type,
        torch_threads=th.get_num_threads(),
        seed=model.seed or 0,
        total_timesteps=total_timesteps,
        evaluation=evaluation,
        checkpoint=Checkpoints(checkpoint_freq=checkpoint_freq),
        code=code,
        model=type(model).__name__,
        network=digest(shapes),
        loop=loop_of(model, total_timesteps),
        evaluated_by_callback=evaluating is not None,
    )


def _evaluating(callback: Any) -> EvalCallback | None:
    """The first of the callbacks that evaluates."""
    given = callback if isinstance(callback, list) else [callback]
    each = (c for one in given if isinstance(one, BaseCallback) for c in called_each_step(one))
    return next((c for c in each if isinstance(c, EvalCallback) and c.eval_freq > 0), None)


def apply_evaluation(callback: Any, evaluation: Evaluation) -> None:
    """Let the callback that evaluates do it as often as `evaluation` says."""
    evaluating = _evaluating(callback)
    if evaluating is not None:
        evaluating.eval_freq, evaluating.n_eval_episodes = evaluation.eval_freq, evaluation.n_eval_episodes


def _env_name(vec_env: Any) -> str:
    """The id of the env, or its class where it is not registered."""
    with contextlib.suppress(Exception):  # envs in other processes may not answer
        spec = vec_env.get_attr("spec")[0]
        if spec is not None:
            return str(spec.id)
    envs = envs_within(vec_env)
    if not envs:
        return type(innermost(vec_env)).__name__
    kind = type(envs[0].unwrapped)
    return f"{kind.__module__}:{kind.__qualname__}"


def envs_within(vec_env: Any) -> list[Any]:
    """The envs of a vectorised env; none where they are in other processes."""
    return list(getattr(innermost(vec_env), "envs", ()))


class UserModelWorkload(AbstractWorkload):
    """Trainings of the models that a script hands over, or of those that a factory builds.

    Attributes:
        training: The last that was made since `take`.
    """

    def __init__(self, factory: Callable[[TrainConfig], Any] | None, clock: Clock) -> None:
        """Models that `factory` builds are closed with their training; without one: see `take`."""
        self._factory = factory
        self._model: Any = None
        self._arguments: dict[str, Any] = {}
        self._clock = clock
        self.training: UserTraining | None = None

    def take(self, model: Any, arguments: dict[str, Any]) -> None:
        """Train `model`, as its own `learn` would with `arguments`."""
        self._model, self._arguments = model, arguments
        self.training = None

    def load(self) -> dict[str, str]:
        register_plugins()
        return library_versions()

    def check(self, config: TrainConfig) -> None:
        return  # it was built

    def first_step(self, config: TrainConfig) -> None:
        return  # the env is the user's: its first step is the training's

    def create(
        self,
        config: TrainConfig,
        recorder: Recorder,
        *,
        budget: int | None = None,
        state: TrainingState | None = None,
        loop: TrainingLoop | None = None,
    ) -> UserTraining:
        timer = PhaseTimer(self._clock, recorder)
        began = timer.ticks()
        model = adopt(self._model if self._factory is None else self._factory(config))
        if loop is not None:
            apply_loop(model, loop)
        if state is None and self._arguments.get("reset_num_timesteps", True):
            model.num_timesteps = model._episode_num = 0  # as `learn` will
        envs = envs_within(model.env)
        live = LiveState(config, loop or config.loop, model, envs, Episodes(None, timer, config.seed, model))
        live.callbacks = Callbacks(self._arguments, timer)
        recorder.add(Phase.BUILD, timer.ticks() - began, 1)
        budget = config.total_timesteps if budget is None else budget
        self.training = UserTraining(live, timer, budget, owned=self._factory is not None)
        if state is not None:
            try:
                self.training.restore(state)
            except StateError:
                self.training.close()
                raise
        return self.training


class UserTraining(SB3Training):
    """A training whose model and envs outlive it: they are the user's."""

    def __init__(self, state: LiveState, timer: PhaseTimer, budget: int, *, owned: bool) -> None:
        super().__init__(state, timer, budget)
        self._owned = owned
        self._closed = False

    def _plan_evaluation(self) -> None:
        """The user's callbacks evaluate, if any does."""

    def _play(self, kind: str, episodes: int) -> None:
        if self.state.episodes.env is not None:
            super()._play(kind, episodes)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.state.callbacks is not None:
            self.state.callbacks.end()
        release(self.model)
        if self._owned:
            self.model.env.close()

"""A model that the user's own code built, as a training like any other."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from arzbench.clock import Clock
from arzbench.digest import digest
from arzbench.errors import StateError, UsageError
from arzbench.facts import Phase
from arzbench.importing import users_function
from arzbench.loop import TrainingLoop
from arzbench.measure.phase_times import PhaseTotals
from arzbench.run.resume import find_resume_point
from arzbench.sb3.callbacks import Callbacks, evaluating
from arzbench.sb3.env_errors import check_seeded, is_of_env
from arzbench.sb3.episodes import Episodes
from arzbench.sb3.model_loop import apply_loop, loop_of
from arzbench.sb3.models import adopt, release
from arzbench.sb3.open_episodes import innermost
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.plugins import register_plugins
from arzbench.sb3.state import LiveState
from arzbench.sb3.training import SB3Training
from arzbench.sb3.workload import SB3Workload, library_versions
from arzbench.study import Built, Checkpoints, Code, Evaluation, Factory, Study, TrainConfig
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
    for env in envs_within(model.env):
        check_seeded("the model's env", env)
    for one in evaluating(callback):
        for env in envs_within(one.eval_env):
            check_seeded("the eval_env of a callback", env)
    evaluation = evaluation_of(callback)
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
        evaluated_by_callback=evaluation.eval_freq > 0,
    )


def evaluation_of(callback: Any) -> Evaluation:
    """How often callbacks evaluate, as one schedule: those that do so more rarely count by their share."""
    found = list(evaluating(callback))
    if not found:
        return Evaluation()
    freq = min(one.eval_freq for one in found)
    return Evaluation(
        eval_freq=freq,
        n_eval_episodes=math.ceil(sum(one.n_eval_episodes * freq / one.eval_freq for one in found)),
        deterministic=found[0].deterministic,
    )


def apply_evaluation(callback: Any, evaluation: Evaluation) -> None:
    """Let the callback that evaluates do it as often as `evaluation` says.

    Raises:
        UsageError: several evaluate, and not as `evaluation` says.
    """
    found = list(evaluating(callback))
    now = evaluation_of(callback)
    same = (now.eval_freq, now.n_eval_episodes) == (evaluation.eval_freq, evaluation.n_eval_episodes)
    if len(found) > 1 and evaluation.eval_freq and not same:
        raise UsageError("evaluation: several callbacks of the script evaluate", "change them in the script")
    for one in found if not same else ():
        one.eval_freq, one.n_eval_episodes = evaluation.eval_freq, evaluation.n_eval_episodes


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


def evaluation_env(env: Any) -> Any:
    """The single env to evaluate in that `env`, vectorised or not, is or holds.

    Raises:
        UsageError: its envs are in other processes.
    """
    if not isinstance(env, VecEnv):
        return env
    envs = envs_within(env)
    if not envs:
        raise UsageError(
            f"envs of a {type(innermost(env)).__name__} cannot be evaluated in: other processes have them",
            "give eval_env a single env",
        )
    return envs[0]


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
        self._eval_env: Any = None
        self._clock = clock
        self._built: list[dict[str, Any]] | None = None  # what the callbacks were built with
        self.training: UserTraining | None = None

    def take(self, model: Any, arguments: dict[str, Any], eval_env: Any = None) -> None:
        """Train `model`, as its own `learn` would with `arguments`; evaluate in `eval_env`."""
        self._model, self._arguments, self._eval_env = model, arguments, eval_env
        self.training = self._built = None

    def _evaluated_in(self, config: TrainConfig) -> Any:
        """The env that is evaluated in; None: there is none."""
        evaluation = config.evaluation
        if self._eval_env is not None:
            return self._eval_env
        if self._factory is not None and (evaluation.eval_freq or evaluation.final_episodes):
            return self._of_another_model(config)
        if not evaluation.final_episodes:
            return None  # a callback evaluates, if anything does; only a measurement plays episodes itself
        callback = next(evaluating(self._arguments.get("callback")), None)
        return None if callback is None else next(iter(envs_within(callback.eval_env)), None)

    def _of_another_model(self, config: TrainConfig) -> Any:
        """An env that the factory makes: that of the training is its own."""
        assert self._factory is not None
        try:
            return evaluation_env(self._factory(config).env)
        except Exception as error:
            raise UsageError(
                f"a second model of {config.name}, to evaluate in its env, cannot be built beside the first: "
                f"{error}",
                "train without (--set): evaluation.eval_freq=0, also evaluation.final_episodes=0; evaluate "
                "the model afterwards",
            ) from error

    def load(self) -> dict[str, str]:
        register_plugins()
        return library_versions()

    def check(self, config: TrainConfig) -> None:
        if self._factory is None or not config.evaluates:
            return  # it was built
        model = self._factory(config)
        try:
            self._of_another_model(config).close()
        finally:
            model.env.close()

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
        live = LiveState(
            config,
            loop or config.loop,
            model,
            envs,
            Episodes(self._evaluated_in(config), timer, config.seed, model),
        )
        live.callbacks = Callbacks(self._arguments, timer, self._built)
        self._built = live.callbacks.built
        if loop is not None:  # measured: evaluations are by themselves
            apply_evaluation(self._arguments.get("callback"), Evaluation())
        live.like_library = True
        recorder.add(Phase.BUILD, timer.ticks() - began, 1)
        budget = config.total_timesteps if budget is None else budget
        self.training = UserTraining(live, timer, budget, owned=self._factory is not None)
        if state is not None:
            try:
                self.training.restore(state)
            except Exception:
                live.callbacks.saved = None
                self.training.close()
                raise
        return self.training

    def is_of_env(self, error: BaseException) -> bool:
        return is_of_env(error)


class UserTraining(SB3Training):
    """A training whose model and envs outlive it: they are the user's."""

    def __init__(self, state: LiveState, timer: PhaseTimer, budget: int, *, owned: bool) -> None:
        super().__init__(state, timer, budget)
        self._owned = owned
        self._closed = False

    def _plan_evaluation(self) -> None:
        if isinstance(self.config, Built) and not self.config.evaluated_by_callback:
            super()._plan_evaluation()

    def _play(self, kind: str, episodes: int) -> None:
        if self.state.episodes.env is not None:
            super()._play(kind, episodes)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.state.callbacks is not None:
            self.state.callbacks.put_back()  # of a training that had ended: no `learn` began
            self.state.callbacks.end()
        release(self.model)
        if self._owned:
            self.model.env.close()
            if self.state.episodes.env is not None:
                self.state.episodes.env.close()


def build_by_factory(code: Code) -> Any:
    """The unlearned model that a user's function returns.

    Raises:
        UsageError: there is no such function, or it returns something else.
        Exception: what it raised.
    """
    model = users_function(code.factory, "factory")(**code.kwargs)
    if not isinstance(model, BaseAlgorithm):
        raise UsageError(
            f"the factory {code.factory} returned a {type(model).__name__}, not a model",
            "it is a function that returns a model of Stable-Baselines3 that has not learned yet",
        )
    return model


def describe_factory(config: Factory) -> Built:
    """What a training of the model of `config` is; the model is built for that."""
    code = Code(factory=config.factory, kwargs=config.kwargs)
    model = build_by_factory(code)
    built = describe(
        model, code, name=config.name, total_timesteps=config.total_timesteps, callback=None,
        checkpoint_freq=config.checkpoint.checkpoint_freq,
    )  # fmt: skip
    model.env.close()
    own = {key: getattr(config, key) for key in ("evaluation", "checkpoint", "env_errors", "fast")}
    return msgspec.structs.replace(built, **own)


def factory_workload(clock: Clock) -> UserModelWorkload:
    """Trainings of the models that the factories of their configurations build."""

    def build(config: TrainConfig) -> Any:
        assert isinstance(config, Built)
        return build_by_factory(config.code)

    return UserModelWorkload(build, clock)


class MixedWorkload(SB3Workload):
    """Trainings that a study says, and others that a function builds."""

    def __init__(self, clock: Clock, log_path: Path | None = None) -> None:
        super().__init__(clock, log_path)
        self._users = factory_workload(clock)

    def check(self, config: TrainConfig) -> None:
        if isinstance(config, Built):
            self._users.check(config)
        else:
            super().check(config)

    def first_step(self, config: TrainConfig) -> None:
        if not isinstance(config, Built):
            super().first_step(config)

    def create(self, config: TrainConfig, recorder: Recorder, **how: Any) -> SB3Training:
        if isinstance(config, Built):
            return self._users.create(config, recorder, **how)
        return super().create(config, recorder, **how)


def take_over(workload: UserModelWorkload, study: Study, training: int, states: Path, clock: Clock) -> None:
    """Put the model that `workload` took into the state in which a training ended before.

    Raises:
        StateError: it is not in the folder `states`.
    """
    config = study.trainings[training]
    saved = find_resume_point(study, states, clock).by_training[training]
    if saved is None:
        raise StateError(
            f"{config.name} is finished, and no state of it is in {states}", "fresh=True trains anew"
        )
    workload.create(config, PhaseTotals(), state=saved.load()).close()

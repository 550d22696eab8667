"""Stable-Baselines3 as a workload: trainings on registered Gymnasium envs."""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import importlib.metadata
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import gymnasium
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from arzbench.clock import Clock, SystemClock
from arzbench.errors import StateError, UsageError, unknown
from arzbench.facts import Phase
from arzbench.loop import TrainingLoop
from arzbench.sb3.episodes import Episodes, Player, controlled, randomly
from arzbench.sb3.model_loop import apply_loop
from arzbench.sb3.models import adopt
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.plugins import baseline_controllers, register_plugins
from arzbench.sb3.skipped_work import skip_mode_switches
from arzbench.sb3.state import LiveState
from arzbench.sb3.training import SB3Training
from arzbench.study import ALGORITHMS, TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import AbstractWorkload, Recorder

NOISES: dict[str, Any] = {"normal": NormalActionNoise, "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise}


class SB3Workload(AbstractWorkload):
    """Trainings of Stable-Baselines3 on registered Gymnasium envs.

    Messages of the envs are appended to `log_path`; None drops what is written.
    """

    def __init__(self, clock: Clock | None = None, log_path: Path | None = None) -> None:
        self._clock = clock or SystemClock()
        self._log_path = log_path

    def load(self) -> dict[str, str]:
        register_plugins()
        return library_versions()

    def check(self, config: TrainConfig) -> None:
        register_plugins()
        check_device(config.device)
        env = make_env(config)
        try:
            check_actions(config, env.action_space)
            make_baseline(config, env)
            make_model(config)[0].env.close()
        finally:
            env.close()

    def create(
        self,
        config: TrainConfig,
        recorder: Recorder,
        *,
        budget: int | None = None,
        state: TrainingState | None = None,
        loop: TrainingLoop | None = None,
    ) -> SB3Training:
        register_plugins()
        check_device(config.device)
        th.set_num_threads(config.torch_threads)
        timer = PhaseTimer(self._clock, recorder)
        began = timer.ticks()
        model, envs = make_model(config)
        if loop is not None:
            apply_loop(model, loop)
        eval_env = make_env(config)
        baseline = make_baseline(config, eval_env)
        recorder.add(Phase.BUILD, timer.ticks() - began, 1)
        training = SB3Training(
            LiveState(
                config, loop or config.loop, model, envs, Episodes(eval_env, timer, config.seed, model)
            ),
            timer,
            config.total_timesteps if budget is None else budget,
            baseline=baseline,
            stream=self._open_log(),
        )
        if state is not None:
            try:
                training.restore(state)
            except StateError:
                training.close()
                raise
        return training

    def _open_log(self) -> TextIO:
        path = self._log_path or Path(os.devnull)
        try:
            return path.open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write the messages to {path}: {error.strerror}") from error

    def first_step(self, config: TrainConfig) -> None:
        register_plugins()
        env = make_env(config)
        env.action_space.seed(config.seed)
        env.reset(seed=config.seed)
        env.step(env.action_space.sample())
        env.close()


def library_versions() -> dict[str, str]:
    """The versions of what decides speed and bits, as far as it is installed."""
    names = ("torch", "stable_baselines3", "sb3-contrib", "gymnasium", "numpy", "numba", "numba-cuda")
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def make_env(config: TrainConfig) -> gymnasium.Env[Any, Any]:
    """One env of `config`; one that is registered with an argument `device` gets the training's.

    Raises:
        UsageError: there is no such env, or it refuses its arguments.
    """
    module, _, name = config.env.rpartition(":")
    if not module and name not in gymnasium.registry:
        near = difflib.get_close_matches(name, gymnasium.registry, n=8, cutoff=0.5)
        some = near or [n for n in gymnasium.registry if n.startswith(("arzbench/", "CartPole-"))]
        raise unknown("env", name, some, "any env registered with Gymnasium will do, also module:Name-v0")
    arguments: dict[str, Any] = dict(config.env_kwargs)
    try:
        if module:
            importlib.import_module(module)
        spec = gymnasium.registry.get(name)
        if spec is not None and "device" in spec.kwargs:
            arguments.setdefault("device", config.device)
        return gymnasium.make(config.env, **arguments)
    except Exception as error:
        options = f" with {config.env_kwargs}" if config.env_kwargs else ""
        hint = f"pip install {error.name}" if isinstance(error, ModuleNotFoundError) and not module else ""
        raise UsageError(f"the env {config.env!r} cannot be made{options}: {error}", hint) from error


def check_device(device: str) -> None:
    """Raise a `UsageError` unless torch can use `device` here."""
    if device not in ("cpu", "cuda", "auto"):
        raise unknown("device", device, ("cpu", "cuda", "auto"))
    if device == "cuda" and not th.cuda.is_available():
        raise UsageError("device 'cuda': torch finds no GPU here", "use --device cpu (or auto)")


def check_actions(config: TrainConfig, space: spaces.Space[Any]) -> None:
    """Raise a `UsageError` unless the algorithm can choose from `space`."""
    kind = type(space).__name__
    if kind in config.ACTIONS:
        return
    fitting = sorted(name for name, other in ALGORITHMS.items() if kind in other.ACTIONS)
    raise UsageError(
        f"{config.algo.upper()} cannot choose the actions of {config.env}: {space}",
        f"algorithms that can: {', '.join(fitting)}" if fitting else "no algorithm here can",
    )


def make_baseline(config: TrainConfig, env: Any) -> Player:
    """How baseline episodes are played.

    Raises:
        UsageError: the controller is not one for this env.
    """
    name = config.baseline.controller
    if name == "random" or not config.baseline.episodes:
        return randomly(env)
    controllers = baseline_controllers(env)
    if not controllers:
        raise UsageError(f"the baseline {name!r} is not for {config.env}", "controllers for any env: random")
    if name not in controllers:
        raise unknown("baseline controller", name, [*controllers, "random"], f"those for {config.env}")
    return controlled(controllers[name](), env)


def make_model(config: TrainConfig) -> tuple[Any, Sequence[Any]]:
    """The model, not yet trained, and the envs inside its vectorised env.

    Raises:
        UsageError: the env or an argument does not suit the algorithm.
    """
    arguments = copy.deepcopy(config.constructor_arguments())  # the library writes into policy_kwargs
    envs = [_monitored(make_env(config)) for _ in range(config.n_envs)]
    try:
        vec_env: VecEnv = DummyVecEnv([lambda env=env: env for env in envs])  # type: ignore[misc]
        if config.vec_normalize:
            vec_env = VecNormalize(vec_env, gamma=arguments.get("gamma", 0.99))
        if "action_noise" in arguments:
            arguments["action_noise"] = make_noise(arguments["action_noise"], vec_env.action_space)
        model = algorithm(config)(config.policy, vec_env, seed=config.seed, device=config.device, **arguments)
    except UsageError:
        raise
    except Exception as error:
        for env in envs:
            env.close()
        raise UsageError(f"{config.algo.upper()} cannot be made as asked: {error}") from error
    model.set_logger(Logger(None, []))  # its own would make a folder
    skip_mode_switches(model.policy)
    return adopt(model), envs


def _monitored(env: Any) -> Monitor[Any, Any]:
    """`env` in a Monitor that does not keep what the ledger has."""
    monitor = Monitor(env)
    for name in ("episode_returns", "episode_lengths", "episode_times"):
        setattr(monitor, name, deque(maxlen=1))
    return monitor


def algorithm(config: TrainConfig) -> Any:
    """The library's class for the algorithm of `config`.

    Raises:
        UsageError: its package is not installed.
    """
    module, _, name = config.LIBRARY.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{config.algo} is an algorithm of {module}, which is not installed",
            'pip install "arzbench[contrib]"',
        ) from error


def make_noise(table: Any, space: spaces.Space[Any]) -> Any:
    """The action noise of a table such as {kind = "normal", sigma = 0.1}; None stays None."""
    if table is None:
        return None
    if not isinstance(table, dict) or set(table) - {"kind", "mean", "sigma", "theta", "dt"}:
        raise UsageError(f"action_noise = {table!r}", 'for example {kind = "normal", sigma = 0.1}')
    table = dict(table)
    kind = str(table.pop("kind", "normal"))
    if kind not in NOISES:
        raise unknown("action noise", kind, NOISES)
    shape = space.shape or ()
    mean, sigma = (np.full(shape, float(table.pop(k, d))) for k, d in (("mean", 0.0), ("sigma", 0.1)))
    return NOISES[kind](mean, sigma, **table)

"""From a training's configuration to its env and its model, before anything of arzbench is attached."""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Callable
from typing import Any

import gymnasium
import msgspec
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

from arzbench.errors import UsageError, unknown
from arzbench.importing import import_module, resolved
from arzbench.study import ALGORITHMS, Normalization, TrainConfig
from arzbench.study_values import SCHEDULED, Linear, parse_schedule

NOISES: dict[str, Any] = {"normal": NormalActionNoise, "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise}


def make_env(config: TrainConfig) -> gymnasium.Env[Any, Any]:
    """One env of `config` in its wrappers.

    One that is registered with an argument `device` gets the training's.

    Raises:
        UsageError: there is no such env or wrapper, or it refuses its arguments.
    """
    env = _bare_env(config)
    for index, wrapper in enumerate(config.wrappers or ()):
        key = f"wrappers[{index}]"
        table = {"class": wrapper} if isinstance(wrapper, str) else wrapper
        given = resolved(table, key)
        kind = given.pop("class")
        try:
            env = kind(env, **given)
        except Exception as error:
            env.close()
            raise UsageError(f"{key}: {table['class']} cannot wrap {config.env!r}: {error}") from error
    return env


def _bare_env(config: TrainConfig) -> gymnasium.Env[Any, Any]:
    module, _, name = config.env.rpartition(":")
    if not module and name not in gymnasium.registry:
        near = difflib.get_close_matches(name, gymnasium.registry, n=8, cutoff=0.5)
        some = near or [n for n in gymnasium.registry if n.startswith(("arzbench/", "CartPole-"))]
        raise unknown("env", name, some, "any env registered with Gymnasium will do, also module:Name-v0")
    arguments: dict[str, Any] = dict(config.env_kwargs)
    try:
        made_by = getattr(import_module(module), name, None) if module else None
        spec = gymnasium.registry.get(name)
        if module and made_by is None and spec is None:
            raise LookupError(f"{module} has no class {name!r} and registers no env of that name")
        if spec is not None and "device" in spec.kwargs:
            arguments.setdefault("device", config.device)
        env = gymnasium.make(config.env, **arguments) if made_by is None else made_by(**arguments)
        if not isinstance(env, gymnasium.Env):
            raise TypeError(f"it is a {type(env).__name__}, not a gymnasium.Env")
        return env
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
        f"{type(config).__name__} cannot choose the actions of {config.env}: {space}",
        f"algorithms that can: {', '.join(fitting)}" if fitting else "no algorithm here can",
    )


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


def build(config: TrainConfig, make_vec_env: Callable[[], VecEnv]) -> Any:
    """The model of `config` as the library makes it, on a vectorised env in the wrappers asked for.

    Raises:
        UsageError: the env or an argument does not suit the algorithm.
    """
    kind, policy = algorithm(config), resolved(config.policy, "policy")
    arguments = _arguments(config)
    vec_env = make_vec_env()
    try:
        check_actions(config, vec_env.action_space)
        wrapped = _in_vec_wrappers(config, vec_env, arguments.get("gamma", 0.99))
        if "action_noise" in arguments:
            arguments["action_noise"] = make_noise(arguments["action_noise"], vec_env.action_space)
        return kind(policy, wrapped, seed=config.seed, device=config.device, **arguments)
    except Exception as error:
        vec_env.close()
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{type(config).__name__} cannot be made as asked: {error}") from error


def _arguments(config: TrainConfig) -> dict[str, Any]:
    """Hyper-parameters as the constructor takes them; the library writes into `policy_kwargs`."""
    arguments = copy.deepcopy(config.constructor_arguments())
    for name in SCHEDULED & arguments.keys():
        arguments[name] = make_schedule(arguments[name])
    return {name: resolved(value, name) for name, value in arguments.items()}


def make_schedule(value: Any) -> Any:
    """A schedule as the library takes it and saves it with a model; anything else stays as it is."""
    schedule = parse_schedule(value)
    if schedule is None:
        return value
    if isinstance(schedule, Linear):
        return LinearSchedule(schedule.start, schedule.end, schedule.end_fraction)
    return ConstantSchedule(schedule.value)


def _in_vec_wrappers(config: TrainConfig, vec_env: VecEnv, gamma: float) -> VecEnv:
    """Frames are stacked outside of the normalisation, as RL Zoo does."""
    if config.vec_normalize is not False:
        options = Normalization() if config.vec_normalize is True else config.vec_normalize
        table = msgspec.structs.asdict(options)
        keys = None if options.norm_obs_keys is None else list(options.norm_obs_keys)
        table |= {"gamma": gamma if options.gamma is None else options.gamma, "norm_obs_keys": keys}
        vec_env = VecNormalize(vec_env, **table)
    return VecFrameStack(vec_env, config.frame_stack) if config.frame_stack else vec_env


def observations_of(config: TrainConfig, env: gymnasium.Env[Any, Any]) -> spaces.Space[Any]:
    """The space of what a policy of `config` sees of `env`: stacked, and images with their channels first."""
    vec_env = _in_vec_wrappers(config, DummyVecEnv([lambda: env]), gamma=0.99)
    return BaseAlgorithm._wrap_env(vec_env).observation_space


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

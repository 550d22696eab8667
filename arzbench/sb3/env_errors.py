"""What envs do wrong: whose error it is, and one message where it is the library that raises."""

from __future__ import annotations

import inspect
import traceback
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from arzbench.errors import ArzbenchError, UsageError
from arzbench.sb3.together import Together

#: what an env or a vectorised env is asked
_ASKED = ("step", "step_async", "step_wait", "reset")
#: gymnasium's own wrappers and the library's Monitor, in whose `step` errors of the caller end, too
_AROUND = ("gymnasium.core", "gymnasium.wrappers", "stable_baselines3")
RESET = "def reset(self, *, seed=None, options=None): super().reset(seed=seed)"


def is_of_env(error: BaseException) -> bool:
    """Whether `step` or `reset` of an env raised it, not the library that was given what they return."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if frame.f_code is Together.ask.__code__:
            return True
        if frame.f_code.co_name not in _ASKED:
            continue
        if isinstance(owner, gymnasium.Env) and not type(owner).__module__.startswith(_AROUND):
            return True
        if isinstance(owner, VecEnv) and not isinstance(owner, VecEnvWrapper | DummyVecEnv):
            return True  # in another process, or of the user's own making
    return False


def explained(error: Exception, name: str, env: Any) -> UsageError | None:
    """Why the library cannot go on with what `env`, called `name`, returns; None: that is not why."""
    if isinstance(error, ArzbenchError) or is_of_env(error):
        return None
    modules = [str(f.f_globals.get("__name__")) for f, _ in traceback.walk_tb(error.__traceback__)]
    if not any(module.startswith("stable_baselines3.common.vec_env") for module in modules):
        return None
    try:
        check_env(env, warn=False)
    except Exception as found:
        if is_of_env(found) or (type(found), str(found)) == (type(error), str(error)):
            return None  # it failed again, and says no more
        return UsageError(f"{name} cannot be trained on: {found}", f"the library says: {error}")
    return None


def check_seeded(name: str, env: Any) -> None:
    """Raise a `UsageError` unless `reset` of `env` and of all that it wraps takes a seed."""
    while True:
        taken = inspect.signature(env.reset).parameters.values()
        if not any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in taken):
            raise UsageError(
                f"{name}: {type(env).__name__}.reset takes no seed, and Stable-Baselines3 gives it one", RESET
            )
        if not isinstance(env, gymnasium.Wrapper):
            return
        env = env.env


def try_step(name: str, env: Any, seed: int) -> None:
    """Reset `env` and step once, as a training will.

    Raises:
        UsageError: it failed, or what it returned cannot be trained on.
    """
    check_seeded(name, env)
    vec_env = DummyVecEnv([lambda: env])
    vec_env.seed(seed)
    space = env.action_space
    space.seed(seed)
    try:
        returned = env.reset(seed=seed)
        if not isinstance(returned, tuple) or len(returned) != 2:  # two numbers would be taken for a pair
            raise UsageError(
                f"{name} cannot be trained on: reset returns a {type(returned).__name__}",
                "return observation, info: info is a dict, and may be empty",
            )
        _check_finite(name, "reset", vec_env.reset())
        allowed = np.asarray(env.get_wrapper_attr("action_masks")(), np.int8) if _masked(env) else None
        seen, rewards, _, _ = vec_env.step(np.array([space.sample(allowed)]))
        _check_finite(name, "step", seen)
        _check_finite(name, "step", rewards, "reward")
    except ArzbenchError:
        raise
    except Exception as error:
        told = explained(error, name, env)
        if told is None:
            told = UsageError(f"{name} fails at its first step: {type(error).__name__}: {error}")
        raise told from error


def _masked(env: Any) -> bool:
    return isinstance(env.action_space, gymnasium.spaces.Discrete) and env.has_wrapper_attr("action_masks")


def _check_finite(name: str, asked: str, values: Any, what: str = "observation") -> None:
    for key, array in values.items() if isinstance(values, dict) else [("", values)]:
        if not np.isfinite(array).all():
            part = f" {key!r}" if key else ""
            raise UsageError(
                f"{name}: the {what}{part} that {asked} returns is not finite: {array[0]}",
                "a training would turn its weights to NaN",
            )

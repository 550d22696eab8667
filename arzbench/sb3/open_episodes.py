"""The open episodes of envs whose state cannot be captured: what it takes to play them again.

Kept since each env's last reset: its random generators before the reset, what `reset` was called with, and
the actions of the vectorised steps since (one reference a step). Restoring resets an env made anew in the
same way, plays the actions, and believes the result only if the last observation, the rewards of the
episode and the random generator come out as they were.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from arzbench.sb3 import env_state

#: vectorised steps that can be played again; longer episodes begin anew after a resumption
MAX_STEPS = 30_000


class OpenEpisodes:
    """Records what the envs of a vectorised env (SB3's DummyVecEnv, Monitors inside) are asked."""

    def __init__(self, vec_env: Any, envs: Sequence[Any]) -> None:
        self._envs = envs
        self._vec_env = innermost(vec_env)
        self._actions: deque[Any] = deque(maxlen=MAX_STEPS)
        self._steps = 0
        #: per env, None before its first reset: steps before, arguments, generators before
        self._resets: list[dict[str, Any] | None] = [None] * len(envs)
        #: a replay failed once: it would again; or other processes have the envs
        self.unreproducible = not envs
        self._watch_steps()
        for index, env in enumerate(envs):
            self._watch_resets(index, env)

    def _watch_steps(self) -> None:
        inner, append = self._vec_env.step_async, self._actions.append

        def step_async(actions: Any) -> None:
            append(actions)
            self._steps += 1
            inner(actions)

        self._vec_env.step_async = step_async

    def _watch_resets(self, index: int, env: Any) -> None:
        inner = env.reset

        def reset(**kwargs: Any) -> Any:
            self._resets[index] = {
                "at": self._steps,
                "seed": kwargs.get("seed"),
                "options": copy.deepcopy(kwargs.get("options")),
                "random": _generators(env),
            }
            return inner(**kwargs)

        env.reset = reset

    def capture(self) -> list[dict[str, Any]] | None:
        """What `restore` needs, one dict an env; None where an episode is too long or not to be replayed."""
        kept_from = self._steps - len(self._actions)
        if self.unreproducible or any(r is not None and r["at"] < kept_from for r in self._resets):
            return None
        return [self._capture(index, env) for index, env in enumerate(self._envs)]

    def _capture(self, index: int, env: Any) -> dict[str, Any]:
        reset = self._resets[index]
        if reset is None:
            return {"reset": None}
        since = self._steps - reset["at"]
        taken = list(self._actions)[len(self._actions) - since :]
        return {
            "reset": {k: reset[k] for k in ("seed", "options", "random")},
            "actions": np.array([step[index] for step in taken]),
            **self._state(env),
            "observation": self._observation(index),
        }

    def _observation(self, index: int) -> dict[str, Any]:
        """The last observation as the vectorised env holds it, parts of a dict by name."""
        return {str(key): buffer[index].copy() for key, buffer in self._vec_env.buf_obs.items()}

    def restore(self, saved: list[dict[str, Any]]) -> bool:
        """Play the saved episodes again; whether all came out as they were."""
        if len(saved) != len(self._envs):
            return False
        lengths = [0 if one["reset"] is None else len(one["actions"]) for one in saved]
        self._steps = max(lengths)
        self._actions.clear()
        for step in range(-self._steps, 0):
            # where an episode is shorter stands what is never read
            taken = [
                one["actions"][step] if -step <= n else None for one, n in zip(saved, lengths, strict=True)
            ]
            self._actions.append(taken)
        for index, (env, one) in enumerate(zip(self._envs, saved, strict=True)):
            if one["reset"] is None:
                continue
            self._resets[index] = {"at": self._steps - lengths[index], **copy.deepcopy(one["reset"])}
            try:
                same = self._play(index, env, one)
            except Exception:  # an env may refuse what it once took
                same = False
            if not same:
                self.unreproducible = True
                return False
        return True

    def _play(self, index: int, env: Any, one: dict[str, Any]) -> bool:
        """By the Monitor's own methods: nothing is measured or told of a replay."""
        monitor, reset = type(env), one["reset"]
        _set_generators(env, reset["random"])
        arguments = {k: reset[k] for k in ("seed", "options") if reset[k] is not None}
        observation, _ = monitor.reset(env, **arguments)
        for action in one["actions"]:
            observation, _, terminated, truncated, _ = monitor.step(env, action)
            if terminated or truncated:  # it was still open
                for ended in (env.episode_returns, env.episode_lengths, env.episode_times):
                    ended.clear()
                return False
        now = self._state(env)
        same = self._is_last(observation, one["observation"])
        same = same and now["random"]["env"] == one["random"]["env"]
        same = same and np.array_equal(now["monitor"]["rewards"]["list"], one["monitor"]["rewards"]["list"])
        if same:
            env_state.restore_wrapper(env, one["monitor"])
            _set_generators(env, one["random"])
            self._vec_env._save_obs(index, observation)
        return same

    @staticmethod
    def _state(env: Any) -> dict[str, Any]:
        return {"monitor": env_state.capture_wrapper(env), "random": _generators(env)}

    def _is_last(self, observation: Any, last: dict[str, Any]) -> bool:
        parts = observation if isinstance(observation, dict) else {None: observation}
        kinds = {key: buffer.dtype for key, buffer in self._vec_env.buf_obs.items()}
        return parts.keys() == kinds.keys() and all(
            np.array_equal(np.asarray(part, kinds[key]), last[str(key)], equal_nan=kinds[key].kind in "fc")
            for key, part in parts.items()
        )


def innermost(vec_env: Any) -> Any:
    """The vectorised env inside its wrappers."""
    while hasattr(vec_env, "venv"):
        vec_env = vec_env.venv
    return vec_env


def _generators(env: Any) -> dict[str, Any]:
    base = env.unwrapped
    spaces = (base.action_space, base.observation_space)
    return {
        "env": env_state.generator_state(getattr(base, "_np_random", None)),
        "spaces": [env_state.generator_state(getattr(space, "_np_random", None)) for space in spaces],
    }


def _set_generators(env: Any, saved: dict[str, Any]) -> None:
    base = env.unwrapped
    base._np_random = env_state.make_generator(saved["env"])
    for space, state in zip((base.action_space, base.observation_space), saved["spaces"], strict=True):
        space._np_random = env_state.make_generator(state)

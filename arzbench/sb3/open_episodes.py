"""The open episodes of envs that cannot be seen whole: what it takes to play them again.

Kept since each env's last reset: its plain state before the reset, what `reset` was called with, the actions
since, and a digest of every observation and reward. Restoring puts the plain state in, resets, plays the
actions, and believes the result only if observations, rewards and the plain state come out as they were.
"""

from __future__ import annotations

import copy
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from arzbench.errors import StateError
from arzbench.sb3.attached import attach

if TYPE_CHECKING:
    from arzbench.sb3.plain_state import PlainState

#: vectorised steps that can be played again; longer episodes begin anew after a resumption
MAX_STEPS = 30_000


class OpenEpisodes:
    """Records what the envs of SB3's DummyVecEnv are asked, and what they answer."""

    def __init__(self, vec_env: Any, envs: Sequence[Any], plain: Sequence[PlainState]) -> None:
        """`plain` is what can be seen of each env."""
        self._envs = envs
        self._plain = plain
        self._vec_env = innermost(vec_env)
        self._actions: deque[Any] = deque(maxlen=MAX_STEPS)
        self._steps = 0
        #: per env, None before its first reset: steps before, arguments, plain state before
        self._resets: list[dict[str, Any] | None] = [None] * len(envs)
        self._told = [Told() for _ in envs]
        self._watch_steps()
        for index, env in enumerate(envs):
            self._watch_resets(index, env)

    def _watch_steps(self) -> None:
        inner, append = self._vec_env.step_async, self._actions.append

        def step_async(actions: Any) -> None:
            for index, told in enumerate(self._told):
                told.add(*self._answer(index))
            append(actions)
            self._steps += 1
            inner(actions)

        attach(self._vec_env, "step_async", step_async)

    def _watch_resets(self, index: int, env: Any) -> None:
        inner = env.reset

        def reset(**kwargs: Any) -> Any:
            self._resets[index] = {
                "at": self._steps,
                "seed": kwargs.get("seed"),
                "options": copy.deepcopy(kwargs.get("options")),
                "plain": self._plain[index].copy(),
            }
            self._told[index] = Told()
            return inner(**kwargs)

        attach(env, "reset", reset)

    def _answer(self, index: int) -> tuple[dict[Any, Any], Any]:
        """The last observation as the vectorised env holds it, parts of a dict by name, and the reward."""
        buffers = self._vec_env.buf_obs
        return {key: buffer[index] for key, buffer in buffers.items()}, self._vec_env.buf_rews[index]

    def capture(self) -> list[dict[str, Any]] | None:
        """What `restore` needs, one dict an env; None where an episode is too long to be played again."""
        kept_from = self._steps - len(self._actions)
        if any(r is None or r["at"] < kept_from for r in self._resets):
            return None
        return [self._capture(index) for index in range(len(self._envs))]

    def _capture(self, index: int) -> dict[str, Any]:
        reset = self._resets[index]
        assert reset is not None
        since = self._steps - reset["at"]
        taken = list(self._actions)[len(self._actions) - since :]
        return {
            "reset": {k: reset[k] for k in ("seed", "options", "plain")},
            "actions": np.array([step[index] for step in taken]),
            "told": self._told[index].then(*self._answer(index)),
            "now": self._plain[index].capture(),
        }

    def restore(self, saved: list[dict[str, Any]]) -> bool:
        """Play the saved episodes again; whether all came out as they were.

        Raises:
            StateError: `saved` is malformed.
        """
        if len(saved) != len(self._envs):
            return False
        lengths = [len(one["actions"]) for one in saved]
        self._steps = max(lengths)
        self._actions.clear()
        for step in range(-self._steps, 0):
            # where an episode is shorter stands what is never read
            taken = [
                one["actions"][step] if -step <= n else None for one, n in zip(saved, lengths, strict=True)
            ]
            self._actions.append(taken)
        for index, one in enumerate(saved):
            reset = {k: one["reset"][k] for k in ("seed", "options", "plain")}
            self._resets[index] = {"at": self._steps - lengths[index], **copy.deepcopy(reset)}
            try:
                if not self._play(index, one):
                    return False
            except StateError:
                raise
            except Exception:  # an env may refuse what it once took
                return False
        return True

    def _play(self, index: int, one: dict[str, Any]) -> bool:
        """By the outermost wrapper's own methods: nothing is measured or told of a replay."""
        env, reset, plain = self._envs[index], one["reset"], self._plain[index]
        outer = type(env)
        plain.restore(reset["plain"])
        arguments = {k: reset[k] for k in ("seed", "options") if reset[k] is not None}
        observation, _ = outer.reset(env, **arguments)
        told, reward = Told(), 0.0
        for action in one["actions"]:
            told.add(self._cast(observation), np.float32(reward))
            observation, reward, terminated, truncated, _ = outer.step(env, action)
            if terminated or truncated:  # it was still open
                for name in ("episode_returns", "episode_lengths", "episode_times"):
                    getattr(env, name, []).clear()
                return False
        same = told.then(self._cast(observation), np.float32(reward)) == one["told"]
        if not same or plain.differs(one["now"], spaces=False):
            return False
        self._told[index] = told
        self._vec_env._save_obs(index, observation)
        return True

    def _cast(self, observation: Any) -> dict[Any, Any]:
        parts = observation if isinstance(observation, dict) else {None: observation}
        kinds = {key: buffer.dtype for key, buffer in self._vec_env.buf_obs.items()}
        return {key: np.asarray(parts[key], kind) for key, kind in kinds.items()}


class Told:
    """A digest of all that an env has answered since its reset."""

    def __init__(self) -> None:
        self._whole: Any = hashlib.sha256()
        self._first = True

    def add(self, observation: dict[Any, Any], reward: Any) -> None:
        """The first observation comes from `reset`, with no reward."""
        _update(self._whole, observation, 0.0 if self._first else reward)
        self._first = False

    def then(self, observation: dict[Any, Any], reward: Any) -> str:
        """The digest with one more answer."""
        whole = self._whole.copy()
        _update(whole, observation, 0.0 if self._first else reward)
        return str(whole.hexdigest())


def _update(whole: Any, observation: dict[Any, Any], reward: Any) -> None:
    for part in observation.values():
        whole.update(np.ascontiguousarray(part).tobytes())
    whole.update(np.float32(reward).tobytes())


def innermost(vec_env: Any) -> Any:
    """The vectorised env inside its wrappers."""
    while hasattr(vec_env, "venv"):
        vec_env = vec_env.venv
    return vec_env

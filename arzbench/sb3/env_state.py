"""The state of a training's envs, with their wrappers and the vectorised env around them.

Where everything can be seen it is captured and put back (`plain_state`). Where something cannot, open
episodes are recorded as well and played again (`open_episodes`), and the label says what could not be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arzbench.errors import StateError
from arzbench.sb3.codec import make_generator
from arzbench.sb3.open_episodes import OpenEpisodes, innermost
from arzbench.sb3.plain_fill import NotHereError
from arzbench.sb3.plain_state import PlainState


class EnvState:
    """What steps and resets change in the envs of a training.

    Attributes:
        tier: Of the last capture or restoration, see `arzbench.training_state.TIERS`.
        unseen: Why it is inexact: what could not be seen or put back, and what decides beside the state.
    """

    def __init__(self, vec_env: Any) -> None:
        self._vec_env = vec_env
        self._envs: Sequence[Any] = getattr(innermost(vec_env), "envs", ())
        self._own = frozenset(
            type(part).__module__.partition(".")[0] for part in _layers(vec_env, self._envs)
        )
        self._plain = PlainState(vec_env, own=self._own)
        self.tier = ""
        self.unseen: list[str] = []
        self.episodes: OpenEpisodes | None = None
        self._unreproducible = False  # a replay failed once: it would again
        self._look()

    def _look(self) -> None:
        """Open episodes are recorded from the moment that something cannot be seen."""
        if self._plain.unseen and self._envs and self.episodes is None:
            self.episodes = OpenEpisodes(
                self._vec_env, self._envs, [PlainState(env, own=self._own) for env in self._envs]
            )

    def capture(self) -> dict[str, Any]:
        """What `restore` needs, as `codec` takes it; arrays are live memory."""
        tree, plain = self._plain.capture(), self._plain
        self._look()
        played = None
        if plain.unseen and self.episodes is not None and not self._unreproducible:
            played = self.episodes.capture()
        self.unseen = [*plain.unseen, *plain.influences]
        self.tier = self._judge(again=played is not None)
        return {
            "plain": tree,
            "unseen": self.unseen,
            "open": played,
            "tier": self.tier,
            "unreproducible": self._unreproducible,
        }

    def _judge(self, again: bool) -> str:
        """How exactly envs come back whose open episodes can be played `again`, or not."""
        plain = self._plain
        if plain.unseen and not again:
            return "reset"
        if plain.influences:
            return "unproven"
        if not plain.unseen:
            return "exact"
        return "replay" if plain.rebuilt else "unproven"

    def restore(self, saved: dict[str, Any]) -> None:
        """Put the envs, made anew, into the captured state as far as it goes; `tier` says how far.

        Raises:
            StateError: `saved` is malformed.
        """
        self._unreproducible = bool(saved["unreproducible"])
        played = saved["open"]
        again = False
        if played is not None:
            self._look()
            if self.episodes is None and self._envs:
                self.episodes = OpenEpisodes(
                    self._vec_env, self._envs, [PlainState(env, own=self._own) for env in self._envs]
                )
            again = self.episodes is not None and self.episodes.restore(played)
            self._unreproducible = not again
        try:
            lacking = self._plain.restore(saved["plain"])
        except NotHereError as error:
            self.tier, self.unseen = "reset", [error.message, *saved["unseen"]]
            return
        self._look()
        told = [str(text)[:200] for text in saved["unseen"]]
        plain = self._plain
        self.tier = self._judge(again)
        if saved["tier"] == "reset" or (played is not None and not again):
            self.tier = "reset"
        elif lacking or (told and self.tier == "exact"):
            self.tier = "unproven"
        changed = [f"{name} (not as it was)" for name in lacking]
        self.unseen = list(dict.fromkeys([*told, *plain.unseen, *plain.influences])) or changed
        if self.tier == "unproven":
            self.unseen = list(dict.fromkeys([*self.unseen, *changed]))


def _layers(vec_env: Any, envs: Sequence[Any]) -> list[Any]:
    """Vectorised envs, envs and wrappers, from the outside in."""
    found = [vec_env]
    while hasattr(found[-1], "venv"):
        found.append(found[-1].venv)
    for env in envs:
        found.append(env)
        while found[-1] is not env.unwrapped:
            found.append(found[-1].env)
    return found


def restore_earlier(env: Any, saved: dict[str, Any]) -> None:
    """Put `env`, made anew, into a state as it was captured before `plain_state`: of a few known classes.

    Raises:
        StateError: `saved` is of another env or other wrappers.
    """
    base, wrappers = env.unwrapped, []
    while env is not base:
        wrappers.append(env)
        env = env.env
    if [type(w).__name__ for w in wrappers] != [w["kind"] for w in saved["wrappers"]]:
        raise StateError("the saved state is of an env in other wrappers")
    for wrapper, values in zip(wrappers, saved["wrappers"], strict=True):
        _write(wrapper, {name: value for name, value in values.items() if name != "kind"})
        if type(wrapper).__name__ == "PassiveEnvChecker":
            wrapper.checked_reset = wrapper.checked_step = wrapper.checked_data_reuse = True
    if hasattr(base, "set_state"):
        base.set_state(saved["own"])
    else:
        _write(base, saved["own"])
    base._np_random = make_generator(saved["random"])
    for space, state in zip((base.action_space, base.observation_space), saved["spaces"], strict=True):
        space._np_random = make_generator(state)


def _write(part: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if name.startswith("__") or name not in vars(part):
            raise StateError(f"the saved state writes to {name[:40]!r}")
        vars(part)[name] = value["list"].tolist() if isinstance(value, dict) else value

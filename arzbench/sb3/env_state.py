"""The state of a Gymnasium env inside its wrappers, as plain values and back.

Exact where every part is known: an env that has `get_state` and `set_state`, or one of `CLASSIC`, in
the wrappers of `WRAPPERS`. Anything else may hide state, so it is not captured at all: its open episode
can be played again (`openepisodes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from arzbench.errors import StateError

#: what steps change in Gymnasium's classic control
CLASSIC = {
    "CartPoleEnv": ("state", "steps_beyond_terminated"),
    "MountainCarEnv": ("state",),
    "Continuous_MountainCarEnv": ("state",),
    "PendulumEnv": ("state", "last_u"),
    "AcrobotEnv": ("state",),
}
#: what steps change in the wrappers of `gymnasium.make` and of the training library
WRAPPERS = {
    "TimeLimit": ("_elapsed_steps",),
    "OrderEnforcing": ("_has_reset",),
    "PassiveEnvChecker": (),
    "Monitor": ("rewards", "needs_reset", "total_steps"),
}
_LIBRARIES = ("gymnasium.", "stable_baselines3.")


def capturable(env: Any) -> bool:
    """Whether all state of `env` is known."""
    base = env.unwrapped
    known = (hasattr(base, "get_state") and hasattr(base, "set_state")) or _known(base, CLASSIC)
    return known and all(_known(wrapper, WRAPPERS) for wrapper in _wrappers(env))


def capture_env(env: Any) -> dict[str, Any]:
    """The state of a capturable env, its wrappers and random generators."""
    base = env.unwrapped
    own = base.get_state() if hasattr(base, "get_state") else _read(base, CLASSIC[type(base).__name__])
    return {
        "own": own,
        "wrappers": [capture_wrapper(wrapper) for wrapper in _wrappers(env)],
        "random": generator_state(getattr(base, "_np_random", None)),
        "spaces": [
            generator_state(getattr(space, "_np_random", None))
            for space in (base.action_space, base.observation_space)
        ],
    }


def restore_env(env: Any, saved: dict[str, Any]) -> None:
    """Put `env`, made anew, into the captured state.

    Raises:
        StateError: `saved` is of another env or other wrappers.
    """
    base = env.unwrapped
    if not capturable(env):
        raise StateError(f"{type(base).__name__} cannot be put into a saved state")
    wrappers = list(_wrappers(env))
    if [type(w).__name__ for w in wrappers] != [w["kind"] for w in saved["wrappers"]]:
        raise StateError("the saved state is of an env in other wrappers")
    for wrapper, values in zip(wrappers, saved["wrappers"], strict=True):
        restore_wrapper(wrapper, values)
        if type(wrapper).__name__ == "PassiveEnvChecker":
            # it has nothing left to check, and no earlier step to compare with
            wrapper.checked_reset = wrapper.checked_step = wrapper.checked_data_reuse = True
    if hasattr(base, "set_state"):
        base.set_state(saved["own"])
    else:
        _write(base, CLASSIC[type(base).__name__], saved["own"])
    base._np_random = make_generator(saved["random"])
    for space, state in zip((base.action_space, base.observation_space), saved["spaces"], strict=True):
        space._np_random = make_generator(state)


def capture_wrapper(wrapper: Any) -> dict[str, Any]:
    """The state of one of `WRAPPERS`."""
    kind = type(wrapper).__name__
    return {"kind": kind, **_read(wrapper, WRAPPERS[kind])}


def restore_wrapper(wrapper: Any, saved: dict[str, Any]) -> None:
    """Put a wrapper into the captured state."""
    _write(wrapper, WRAPPERS[type(wrapper).__name__], saved)


def generator_state(generator: np.random.Generator | None) -> dict[str, Any] | None:
    """The state of a random generator, None for one that was never made."""
    return None if generator is None else dict(generator.bit_generator.state)


def make_generator(state: Any) -> np.random.Generator | None:
    """A generator in the state that `generator_state` gave.

    Raises:
        StateError: of a kind that Gymnasium does not use.
    """
    if state is None:
        return None
    if state["bit_generator"] != "PCG64":
        raise StateError(f"the saved random generator is a {str(state['bit_generator'])[:40]}, not a PCG64")
    bits = np.random.PCG64()
    bits.state = state
    return np.random.Generator(bits)


def _wrappers(env: Any) -> Iterator[Any]:
    while env is not env.unwrapped:
        yield env
        env = env.env


def _known(part: Any, table: dict[str, tuple[str, ...]]) -> bool:
    """Of a name in `table` and really the library's: a subclass may keep more than it says."""
    kind = type(part)
    return kind.__name__ in table and kind.__module__.startswith(_LIBRARIES)


def _read(part: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _plain(getattr(part, name)) for name in names}


def _plain(value: Any) -> Any:
    """A long list of floats (Monitor's rewards) as one array."""
    if isinstance(value, list):
        return {"list": np.asarray(value, dtype=np.float64)}
    return value.copy() if isinstance(value, np.ndarray) else value


def _write(part: Any, names: tuple[str, ...], values: dict[str, Any]) -> None:
    for name in names:
        value = values[name]
        setattr(part, name, value["list"].tolist() if isinstance(value, dict) else value)

"""What a class of the user's own keeps beside what the library knows of: found, saved, or named.

An attribute is the user's own if no method of the library's classes that it derives from sets it.
Numbers, text, arrays and generators are saved, and lists and dicts of those; functions are code, and code is
never saved; anything else is named by `unsaved`.
"""

from __future__ import annotations

import copy
import dis
import functools
import types
from collections import deque
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecEnv

from arzbench.errors import StateError
from arzbench.sb3 import codec

_LIBRARIES = ("stable_baselines3.", "sb3_contrib.", "arzbench.sb3.")
_FOUNDATIONS = ("builtins", "abc", "typing")
#: saved as weights and optimizers, where a model has them
_LEARNED: Any = th.nn.Module | th.optim.Optimizer
_CODE: Any = types.FunctionType | types.MethodType | types.BuiltinFunctionType | type | functools.partial
_WORLD: Any = gymnasium.Env | gymnasium.Space | VecEnv


def is_own(thing: Any) -> bool:
    """Whether the class of `thing`, or one that it derives from, is neither the library's nor Python's."""
    kind: Any = type(thing)
    return _is_own_kind(kind)


@functools.lru_cache
def _is_own_kind(kind: Any) -> bool:
    return any(not _of_library(c) and c.__module__ not in _FOUNDATIONS for c in kind.__mro__)


@functools.lru_cache
def _library_names(kind: Any) -> frozenset[str]:
    names: set[str] = set()
    for one in filter(_of_library, kind.__mro__):
        names |= set(getattr(one, "__annotations__", {}))
        for method in vars(one).values():
            if isinstance(method, types.FunctionType):
                names |= {i.argval for i in dis.get_instructions(method) if i.opname == "STORE_ATTR"}
    return frozenset(names)


def _of_library(kind: type) -> bool:
    return f"{kind.__module__}.".startswith(_LIBRARIES)


def _own(thing: Any) -> dict[str, Any]:
    if not is_own(thing):
        return {}
    kind: Any = type(thing)
    library = _library_names(kind)
    return {name: value for name, value in vars(thing).items() if name not in library}


def capture(thing: Any) -> dict[str, Any]:
    """The values of the user's own attributes of `thing`, a model or a buffer; empty without any."""
    values = {name: _plain(value) for name, value in _own(thing).items() if _can_be_saved(value)}
    return {name: value for name, value in values.items() if _packs(value)}


def restore(thing: Any, saved: Mapping[str, Any]) -> None:
    """Write what `capture` gave into `thing`, made anew.

    Raises:
        StateError: it has no such attributes.
    """
    own = _own(thing)
    for name, value in saved.items():
        if name not in own:
            raise StateError(f"the saved state is of a {type(thing).__name__} with a part {name[:40]!r}")
        now = own[name]
        if isinstance(now, th.Tensor):
            with th.no_grad():
                now.copy_(th.from_numpy(value.copy()))
        elif isinstance(now, np.random.Generator):
            setattr(thing, name, codec.make_generator(value))
        elif isinstance(now, deque):
            setattr(thing, name, deque(value, maxlen=now.maxlen))
        else:
            setattr(thing, name, copy.deepcopy(value))


def unsaved(thing: Any, learned: bool) -> list[str]:
    """The user's own attributes of `thing` that cannot be saved; `learned`: networks in it are, elsewhere."""
    names = []
    for name, value in _own(thing).items():
        known = isinstance(value, _CODE | _WORLD) or (learned and isinstance(value, _LEARNED))
        if not known and not (_can_be_saved(value) and _packs(_plain(value))):
            names.append(f"{name} ({type(value).__name__})")
    return names


def _can_be_saved(value: Any) -> bool:
    return not isinstance(value, _CODE | _WORLD | _LEARNED)


def _plain(value: Any) -> Any:
    if isinstance(value, th.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, np.random.Generator):
        return codec.generator_state(value)
    return list(value) if isinstance(value, deque) else value


def _packs(value: Any) -> bool:
    try:
        codec.pack(value, "", {})
    except StateError:
        return False
    return True

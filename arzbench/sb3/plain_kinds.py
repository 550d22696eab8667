"""What can be written down, what things are called, and how attributes are read without asking objects."""

from __future__ import annotations

import collections
import functools
import hashlib
import logging
import operator
import random
import re
import threading
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import torch as th

from arzbench.errors import StateError
from arzbench.sb3.code_reach import MISSING, cell_contents, module_of, name_of

#: one object: what kind it is, and what it holds
Node: TypeAlias = dict[str, Any]
ATOMS = frozenset({type(None), bool, int, float, str})
#: more would not be a state but a program's memory
MAX_NODES = 300_000
#: an array of this many bytes that is as it was when the training was made is named by its digest
LARGE = 1 << 20
BITS = {
    kind.__name__: kind
    for kind in (
        np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64,
    )
}  # fmt: skip
_FIELD = type(vars(collections.namedtuple("_One", "one"))["one"])
#: containers, a subclass may add attributes
BASES: tuple[type, ...] = (list, dict, set, deque, tuple, frozenset)
EXACT = (*BASES, OrderedDict, Counter, defaultdict)
LOCKS = (type(threading.Lock()), type(threading.RLock()))
#: what a name stands for again, in every process
NAMED = (
    types.ModuleType, type, types.BuiltinFunctionType, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.GenericAlias, type(Ellipsis), type(NotImplemented), np.dtype, np.ufunc,
    re.Pattern, logging.Logger, th.dtype, th.device, operator.itemgetter, operator.attrgetter,
)  # fmt: skip
#: where methods of built-in objects can be looked up without running anything
LOOKED_UP = (list, dict, set, deque, random.Random, np.random.Generator, np.random.RandomState, np.ndarray)
_MONITOR = "stable_baselines3.common.monitor.Monitor"
CHECKER = "gymnasium.wrappers.common.PassiveEnvChecker"
#: attributes of the libraries' classes that need not be kept: clocks, files, what a step writes anew,
#: or what their arguments alone decide
IGNORED = {
    _MONITOR: {"t_start", "results_writer", "episode_times"},
    CHECKER: {"checked_reset", "checked_step", "checked_render", "checked_data_reuse", "_previous_data"},
    "stable_baselines3.common.vec_env.vec_monitor.VecMonitor": {"t_start", "results_writer"},
    "stable_baselines3.common.vec_env.base_vec_env.VecEnvWrapper": {"class_attributes"},
    "stable_baselines3.common.vec_env.dummy_vec_env.DummyVecEnv": {"actions", "buf_infos"},
    "gymnasium.core.Env": {"spec"},
    "gymnasium.core.Wrapper": {"_cached_spec"},
    "gymnasium.envs.toy_text.cliffwalking.CliffWalkingEnv": {"P"},
    "gymnasium.envs.toy_text.taxi.TaxiEnv": {"P"},
    "gymnasium.wrappers.common.RecordEpisodeStatistics": {"episode_start_time", "time_queue"},
}
#: envs whose `reset` was read and tried: it makes anew all that is compiled in them.
#: BipedalWalker's keeps its world: episodes after the first differ from those of an env made anew
REBUILT = frozenset({
    "gymnasium.envs.box2d.lunar_lander.LunarLander", "gymnasium.envs.mujoco.mujoco_env.MujocoEnv",
})  # fmt: skip
NUMBER = re.compile(r"\[\d+\]")
_DRAWN = {"screen", "clock", "surf", "window", "window_surface", "isopen"}  # by render() of Gymnasium's envs


class Slot:
    """A name outside of objects that holds state: a global, a class's attribute, a function with cells."""

    def __init__(self, name: str, holder: Any) -> None:
        """`name` ends in ":attribute" for a namespace or class."""
        self.name = name
        self._holder = holder
        self._key = name.rpartition(":")[2]

    def get(self) -> Any:
        """What it holds, `MISSING` for nothing."""
        if isinstance(self._holder, types.FunctionType):
            return self._holder
        inside = self._holder if isinstance(self._holder, dict) else vars(self._holder)
        return inside.get(self._key, MISSING)

    def set(self, value: Any) -> None:
        """Let it hold `value`; a class's own `__setattr__` is not asked.

        Raises:
            StateError: it is a function, or holds code.
        """
        if isinstance(self._holder, types.FunctionType) or dunder(self._key) or is_code(self.get()):
            raise StateError(f"the saved state has something for {self.name[:80]!r}, which holds no state")
        if isinstance(self._holder, dict):
            self._holder[self._key] = value
        else:
            type.__setattr__(self._holder, self._key, value)


def named_as(value: Any) -> str:
    """What a module, function, class or the like is called in a saved state."""
    if isinstance(value, types.FunctionType):
        name = f"function {name_of(value)}"
        return f"{name} {_code_digest(value.__code__)}" if "<" in name else name
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, type):
        return f"class {name_of(value)}"
    if isinstance(value, NAMED) and not callable(value):
        return repr(value)
    return f"{type(value).__name__} {name_of(value)}"


@functools.lru_cache(maxsize=4096)
def _code_digest(code: types.CodeType) -> str:
    """Tells lambdas apart, wherever in a file they stand."""
    whole = hashlib.sha256(code.co_code)
    whole.update(repr([c for c in code.co_consts if type(c) in ATOMS]).encode())
    whole.update(repr((code.co_names, code.co_freevars)).encode())
    return whole.hexdigest()[:12]


def attributes_of(value: Any) -> Node:
    """All attributes of an object, in `__dict__` and slots; its properties are not asked."""
    found: dict[str, Any] = {}
    for part in type(value).__mro__:
        for name, item in vars(part).items():
            if isinstance(item, types.MemberDescriptorType) and not dunder(name):
                try:
                    found.setdefault(name, item.__get__(value))
                except AttributeError:  # empty
                    continue
    try:
        found.update(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        return found
    return {name: item for name, item in found.items() if isinstance(name, str)}


def set_attribute(value: Any, name: str, item: Any) -> None:
    """Set an attribute without asking properties and `__setattr__`; `MISSING` takes it away."""
    for part in type(value).__mro__:
        slot = vars(part).get(name)
        if isinstance(slot, types.MemberDescriptorType):
            if item is MISSING:
                slot.__delete__(value)
            else:
                slot.__set__(value, item)
            return
    inside = object.__getattribute__(value, "__dict__")
    if item is MISSING:
        del inside[name]
    else:
        inside[name] = item


def ignored_in(kind: type) -> frozenset[str]:
    """Attributes that no later step depends on."""
    found: set[str] = set()
    for part in kind.__mro__:
        found |= IGNORED.get(name_of(part), set())
        if part.__module__.startswith("gymnasium.envs."):
            found |= _DRAWN
    return frozenset(found)


def own_state(value: Any) -> Any:
    """What an env that has `get_state` and `set_state` says beside its attributes, else `MISSING`."""
    kind = type(value)
    if not (issubclass(kind, gymnasium.Env) and hasattr(kind, "get_state") and hasattr(kind, "set_state")):
        return MISSING
    try:
        return value.get_state()
    except Exception:  # named so, and something else
        return MISSING


def dunder(name: str) -> bool:
    """Whether Python gives `name` its meaning."""
    return name.startswith("__") and name.endswith("__")


def is_code(value: Any) -> bool:
    """Functions, classes, descriptors: what a class's namespace holds beside data."""
    return isinstance(value, (
        types.FunctionType, staticmethod, classmethod, property, type, types.MemberDescriptorType,
        types.GetSetDescriptorType, types.ModuleType, types.BuiltinFunctionType, functools.cached_property,
        functools.partialmethod, functools._lru_cache_wrapper, _FIELD,
    )) or compiled(value)  # fmt: skip


def is_ours(value: Any) -> bool:
    """A function that this package hung into an object."""
    function = getattr(value, "__func__", value)
    return isinstance(function, types.FunctionType) and str(function.__module__).startswith("arzbench.sb3.")


def compiled(value: Any) -> bool:
    """A function compiled by Numba or Cython."""
    if type(value).__name__ == "cython_function_or_method":
        return True
    return hasattr(type(value), "py_func") or (
        "numba" in (module_of(type(value)) or "") and callable(value) and hasattr(value, "py_func")
    )


def holds_state(function: types.FunctionType) -> bool:
    """Whether a function keeps something from call to call."""
    contents = [cell_contents(cell) for cell in function.__closure__ or ()]
    names = function.__code__.co_freevars
    cells = [c for n, c in zip(names, contents, strict=True) if not (n == "__class__" or is_code(c))]
    kept = [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    attributes = [name for name in vars(function) if not dunder(name)]
    return bool(attributes or cells) or any(type(item) not in ATOMS for item in kept)


def hashed_by_address(value: Any) -> bool:
    """Whether a set gives `value` in another order in another process."""
    here: Any = type(value).__hash__
    return here is object.__hash__


def locked(lock: Any) -> bool:
    """Whether somebody holds `lock`."""
    if hasattr(lock, "locked"):
        return bool(lock.locked())
    return not repr(lock).startswith("<unlocked")


def awkward(value: Any) -> bool:
    """Text and numbers that JSON cannot hold."""
    if type(value) is int:
        return value.bit_length() > 1000
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return True
    return False


def digest_of(array: np.ndarray[Any, Any]) -> str:
    """The SHA-256 of an array's type, shape and bytes."""
    whole = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    whole.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return whole.hexdigest()


def seed_of(bits: Any) -> list[Any] | None:
    """What makes a bit generator's seed sequence, None for one of another kind."""
    sequence = bits.seed_seq
    if type(sequence) is not np.random.SeedSequence:
        return None
    entropy, key = sequence.entropy, [int(n) for n in sequence.spawn_key]
    if entropy is not None and not isinstance(entropy, int):
        entropy = [int(n) for n in np.ravel(entropy)]
    return [entropy, key, int(sequence.pool_size), int(sequence.n_children_spawned)]


def copied(value: Any) -> Any:
    """`value` with arrays of its own."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal in every bit and type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and bool(np.array_equal(one, other) or one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(item, other[key]) for key, item in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))

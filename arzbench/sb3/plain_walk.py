"""Looks at an object and all that it reaches, and writes it down as nodes of plain values.

Nothing of it is called but `get_state` of an env that has it. See `plain_state`.
"""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import queue
import random
import re
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import gymnasium
import numpy as np
import torch as th

from arzbench.sb3.code_reach import MISSING, CodeReach, cell_contents, functions_of, module_of, name_of
from arzbench.sb3.plain_kinds import (
    ATOMS,
    BASES,
    BITS,
    EXACT,
    LARGE,
    LOCKS,
    LOOKED_UP,
    MAX_NODES,
    NAMED,
    NUMBER,
    REBUILT,
    Node,
    Slot,
    attributes_of,
    awkward,
    compiled,
    digest_of,
    dunder,
    hashed_by_address,
    holds_state,
    ignored_in,
    is_code,
    is_ours,
    locked,
    named_as,
    own_state,
    same,
    seed_of,
)


class Walk:
    """One look at all that a root reaches."""

    def __init__(
        self,
        root: Any,
        reach: CodeReach,
        skip: frozenset[str] = frozenset(),
        large: frozenset[str] = frozenset(),
    ) -> None:
        """Attributes of `root` in `skip` are left out; arrays whose digests are in `large` are not held."""
        self._root = root
        self._reach = reach
        self.skipped = skip
        self._large = large
        self.nodes: list[dict[str, Any]] = []
        self.objects: list[Any] = []
        self.paths: list[str] = []
        self._numbers: dict[int, int] = {}
        self._done = 0
        self._unseen: dict[str, str] = {}
        self._covered: dict[str, str] = {}
        self._kinds: dict[str, type] = {}  # of objects, by path
        self.digests: dict[str, np.ndarray[Any, Any]] = {}
        self.names: dict[str, Any] = {}  # of functions, classes and the like
        self.slots: dict[str, Slot] = {}
        self.values: dict[str, Any] = {}
        self.atoms: dict[str, Any] = {}
        self.value(root, type(root).__name__)
        self._walk()

    def _walk(self) -> None:
        while True:
            while self._done < len(self.nodes):
                number = self._done
                self._done += 1
                if number >= MAX_NODES:
                    self._unseen[self.paths[0]] = f"more than {MAX_NODES} objects"
                    return
                self.nodes[number] = self._node(self.objects[number], self.paths[number])
            self._reach.follow()
            fresh = [slot for slot in self._find_slots() if slot.name not in self.slots]
            if not fresh and self._done == len(self.nodes):
                return
            for slot in fresh:
                self.slots[slot.name] = slot
                value = slot.get()
                if value is MISSING:
                    continue
                if type(value) in ATOMS:
                    self.atoms[slot.name] = value
                else:
                    self.values[slot.name] = self.value(value, slot.name)

    def _find_slots(self) -> Iterator[Slot]:
        reach = self._reach
        for name, namespace in list(reach.slots.items()):
            yield Slot(name, namespace)
        for kind in list(reach.classes):
            self.names.setdefault(f"class {name_of(kind)}", kind)
            for item in vars(kind).values():
                for function in functions_of(item):
                    if isinstance(function, types.FunctionType):
                        self.names.setdefault(named_as(function), function)
            if issubclass(kind, enum.Enum):
                continue
            for name, value in list(vars(kind).items()):
                if not (dunder(name) or name == "_abc_impl" or is_code(value)):
                    yield Slot(f"{name_of(kind)}:{name}", kind)
        for function in list(reach.known.values()):
            self.names.setdefault(named_as(function), function)
        for function in list(reach.functions.values()):
            if holds_state(function):
                yield Slot(named_as(function), function)

    def named(self) -> tuple[list[str], list[str]]:
        """What cannot be seen, and what decides beside the state."""
        unseen = dict.fromkeys(
            f"{re.sub(NUMBER, '[]', self.shown(path))} ({why})"
            for path, why in self._unseen.items()
            if not any(path.startswith(p) and not path.startswith(f"{p}get_state()") for p in self._covered)
        )
        covered = tuple(self._covered.values())
        influences = [
            what
            for what, library in self._reach.influences.items()
            if not (library and covered and what.startswith(covered))
        ]
        return list(unseen), influences

    def _owner(self, path: str) -> str:
        """The path of the object that `path` leads into."""
        within = (p for p in self._kinds if path.startswith(f"{p}.") or path.startswith(f"{p}["))
        return max(within, key=len, default=path)

    def of_space(self, path: str) -> bool:
        """Whether `path` leads into an action or observation space."""
        return issubclass(self._kinds.get(self._owner(path), object), gymnasium.Space)

    def shown(self, path: str) -> str:
        """A path from the class it belongs to."""
        owner = self._owner(path)
        kind = self._kinds.get(owner)
        return path if kind is None else f"{kind.__qualname__}{path[len(owner) :]}"

    def rebuilt(self) -> bool:
        """Whether all that was not seen belongs to envs that are known to make it anew at each reset."""
        owners = [self._kinds.get(self._owner(path), object) for path in self._unseen]
        # what a user's subclass adds is not known
        return all(
            REBUILT.intersection(map(name_of, owner.__mro__))
            if owner.__module__.startswith("gymnasium.envs.")
            else name_of(owner) in REBUILT
            for owner in owners
        )

    def tree(self, built: dict[str, Any]) -> Node:
        """What was seen; atoms outside of objects are state only where they are not as they were `built`."""
        changed = {n: v for n, v in self.atoms.items() if n not in built or not same(built[n], v)}
        constants = {n: v for n, v in self.atoms.items() if n not in changed}
        return {
            "nodes": self.nodes,
            "outside": [[name, value] for name, value in {**self.values, **changed}.items()],
            "constants": [[name, value] for name, value in constants.items()],
        }

    # -- values -----------------------------------------------------------------------------------

    def value(self, value: Any, path: str) -> Any:
        """An atom as it is, a NumPy number as [dtype, number], anything else as [node]."""
        kind = type(value)
        if kind in ATOMS and not awkward(value):
            return value
        if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            return [value.dtype.str, value.item()]
        key = id(value)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.nodes)
            self.nodes.append({})
            self.objects.append(value)
            self.paths.append(path)
        return [number]

    def _node(self, value: Any, path: str) -> Node:
        kind = type(value)
        plain = _PLAIN.get(kind)
        if plain is not None:
            return plain(self, value, path)
        if isinstance(value, np.generic):
            return {**self.of_array(np.asarray(value), path), "scalar": True}
        if isinstance(value, enum.Enum):
            self._meet(kind)
            known = kind._member_map_.get(value.name or "") is value
            return (
                {"is": "member", "class": name_of(kind), "of": value.name}
                if known
                else self._not(path, value)
            )
        if isinstance(value, types.FunctionType):
            return self._function(value, path)
        if isinstance(value, NAMED) or compiled(value):
            return self._constant(value, path)
        if isinstance(value, LOCKS):
            return {"is": "lock"} if not locked(value) else self._not(path, value)
        if isinstance(value, PurePath):
            return {"is": "path", "of": str(value)}
        if isinstance(value, functools._lru_cache_wrapper):
            self._reach.add_callable(value, self.shown(path))
            return self._constant(value, path)
        if isinstance(value, np.random.BitGenerator) and kind.__name__ in BITS:
            return self._bits(value, path)
        if self._walkable(kind):
            return self._object(value, path)
        return self._not(path, value)

    def _not(self, path: str, value: Any) -> Node:
        what = type(value)
        self._unseen[path] = name_of(what).removeprefix("builtins.")
        return {"is": "unseen", "of": f"{module_of(what)}.{what.__qualname__}"}

    def _meet(self, kind: type) -> None:
        self._reach.add_class(kind)
        self.names.setdefault(f"class {name_of(kind)}", kind)

    def _walkable(self, kind: type) -> bool:
        """Whether all that objects of `kind` hold are attributes, and items of a built-in container."""
        if kind is types.SimpleNamespace:
            return True
        for part in kind.__mro__:
            if part is object or part in EXACT or module_of(part) in ("typing", "abc", "collections.abc"):
                continue
            module = module_of(part)
            origin = self._reach.origin(module)
            source = str(getattr(sys.modules.get(module or ""), "__file__", None) or "")
            script = module == "__main__"
            if origin not in ("own", "library", "pure") or not (source.endswith(".py") or script):
                return False
            if not part.__flags__ & (1 << 9):  # made by C, not by a class statement
                return False
        return True

    def _object(self, value: Any, path: str) -> Node:
        kind = self._kinds[path] = type(value)
        self._meet(kind)
        node: dict[str, Any] = {"is": "object", "class": name_of(kind)}
        base = next((b for b in BASES if isinstance(value, b)), None)
        if base is not None:
            node["items"] = _PLAIN[base](self, value, path)
        said = own_state(value)
        if said is not MISSING:
            node["own"] = self.value(said, f"{path}.get_state()")
            self._covered[f"{path}."] = f"{kind.__qualname__}."  # what is compiled in it is in what it says
            if kind.__module__.startswith("arzbench."):
                return self._add_generators(node, value, path)
        attributes = attributes_of(value)
        ignored = ignored_in(kind)
        if value is self._root:
            ignored |= self.skipped
        names = [n for n in sorted(attributes) if n not in ignored and not is_ours(attributes[n])]
        for name in [n for n in names if dunder(n)]:
            names.remove(name)
            if not is_code(attributes[name]):
                self._not(f"{path}.{name}", attributes[name])
        self._reach.absent.update(name for name in names if attributes[name] is None)
        node["names"] = names
        node["values"] = [self.value(attributes[name], f"{path}.{name}") for name in names]
        return node

    def _add_generators(self, node: dict[str, Any], value: Any, path: str) -> Node:
        """Of an env that tells its state: its generator, and those of its spaces."""
        names = [n for n in ("_np_random", "action_space", "observation_space") if n in vars(value)]
        node["names"], node["values"] = names, [self.value(vars(value)[n], f"{path}.{n}") for n in names]
        return node

    def _constant(self, value: Any, path: str) -> Node:
        name = named_as(value)
        if isinstance(value, types.BuiltinFunctionType) and not isinstance(
            value.__self__, types.ModuleType | type | None
        ):
            owner = value.__self__
            if isinstance(owner, LOCKS):
                return {"is": "lock"}
            if type(owner) not in LOOKED_UP:
                return self._not(path, value)
            return {
                "is": "built-in method",
                "self": self.value(owner, f"{path}.__self__"),
                "of": value.__name__,
            }
        if isinstance(value, type) or callable(value):
            self._reach.add_callable(value, self.shown(path))
        self.names.setdefault(name, value)
        return {"is": "name", "of": name}

    def _function(self, value: types.FunctionType, path: str) -> Node:
        name = named_as(value)
        self.names.setdefault(name, value)
        self._reach.add_callable(value, self.shown(path))
        node: dict[str, Any] = {"is": "name", "of": name}
        if self._reach.origin(value.__module__) == "own" and holds_state(value):
            closed = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
            node |= {
                "is": "function",
                "cells": [None if n == "__class__" else self.value(c, f"{path} cell") for n, c in closed],
                "defaults": self.value(value.__defaults__, f"{path} defaults"),
                "keywords": self.value(value.__kwdefaults__, f"{path} defaults"),
                "names": sorted(n for n in vars(value) if not dunder(n)),
            }
            node["values"] = [self.value(vars(value)[n], f"{path}.{n}") for n in node["names"]]
        return node

    def of_cell(self, value: Any, path: str) -> Node:
        """A variable that closures share."""
        content = cell_contents(value)
        return {"is": "cell", "of": [] if content is MISSING else [self.value(content, path)]}

    def of_method(self, value: Any, path: str) -> Node:
        return {
            "is": "method",
            "self": self.value(value.__self__, f"{path}.__self__"),
            "function": self.value(value.__func__, f"{path}.__func__"),
        }

    def of_partial(self, value: Any, path: str) -> Node:
        parts = (value.func, value.args, value.keywords)
        if callable(value.func):
            self._reach.add_callable(value.func, self.shown(path))
        return {"is": "partial", "values": [self.value(part, f"{path} partial") for part in parts]}

    # -- containers -------------------------------------------------------------------------------

    def of_list(self, value: Any, path: str) -> Node:
        length = list.__len__(value)
        if length > 8:
            kinds = set(map(type, list.__iter__(value)))
            if kinds == {float}:
                return {"is": "floats", "of": np.array(value, np.float64)}
            if kinds == {int} and all(-(2**63) <= n < 2**63 for n in value):
                return {"is": "ints", "of": np.array(value, np.int64)}
        return {
            "is": "list",
            "of": [self.value(v, f"{path}[{i}]") for i, v in enumerate(list.__iter__(value))],
        }

    def of_tuple(self, value: Any, path: str) -> Node:
        return {
            "is": "tuple",
            "of": [self.value(v, f"{path}[{i}]") for i, v in enumerate(tuple.__iter__(value))],
        }

    def of_deque(self, value: Any, path: str) -> Node:
        node = {
            "is": "deque",
            "of": [self.value(v, f"{path}[{i}]") for i, v in enumerate(deque.__iter__(value))],
        }
        return {**node, "maxlen": value.maxlen}

    def of_set(self, value: Any, path: str) -> Node:
        """In the order it gives its items, which depends on its size in memory too."""
        kind = "set" if isinstance(value, set) else "frozenset"
        if any(hashed_by_address(item) for item in value):
            return self._not(path, value)  # in the order of addresses in memory
        items = [self.value(v, f"{path} item") for v in (set if kind == "set" else frozenset).__iter__(value)]
        return {"is": kind, "of": items, "bytes": sys.getsizeof(value) if items else 0}

    def of_dict(self, value: Any, path: str) -> Node:
        flat: list[Any] = []
        for key, item in dict.items(value):
            flat += (self.value(key, f"{path} key"), self.value(item, f"{path}[{str(key)[:40]!r}]"))
        kind = next(k for k in ("defaultdict", "Counter", "OrderedDict", "dict")
                    if isinstance(value, getattr(collections, k, dict)))  # fmt: skip
        node = {"is": "dict", "class": kind, "of": flat}
        if kind == "defaultdict":
            node["factory"] = self.value(value.default_factory, f"{path}.default_factory")
        return node

    # -- arrays and generators --------------------------------------------------------------------

    def of_array(self, value: Any, path: str) -> Node:
        base = value.base
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        if base is not None and not isinstance(base, bytes):
            whole = type(base) is np.ndarray and base.flags.forc and not base.dtype.hasobject
            if not whole:
                return self._not(path, value)
            offset = value.__array_interface__["data"][0] - base.__array_interface__["data"][0]
            return {
                "is": "view", "base": self.value(base, f"{path}.base"), "offset": offset,
                "shape": list(value.shape), "strides": list(value.strides), "dtype": value.dtype.str,
            } if value.dtype.kind in "biufc" else self._not(path, value)  # fmt: skip
        if value.dtype.hasobject:
            items = [self.value(v, f"{path}[{i}]") for i, v in enumerate(value.ravel().tolist())]
            return {"is": "objects", "shape": list(value.shape), "of": items}
        if value.nbytes >= LARGE:
            digest = digest_of(value)
            self.digests[digest] = value
            if digest in self._large:
                return {"is": "as made", "of": digest}
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        if value.dtype.kind in "biufc":
            return {"is": "array", "of": value, "order": order, "read": not value.flags.writeable}
        raw = np.frombuffer(value.tobytes(), np.uint8)
        return {
            "is": "raw",
            "of": raw,
            "dtype": np.lib.format.dtype_to_descr(value.dtype),
            "shape": list(value.shape),
        }

    def of_bytes(self, value: Any, path: str) -> Node:
        return {"is": type(value).__name__, "of": np.frombuffer(bytes(value), np.uint8)}

    def of_generator(self, value: Any, path: str) -> Node:
        return {"is": "generator", "bits": self.value(value.bit_generator, f"{path}.bit_generator")}

    def of_random_state(self, value: Any, path: str) -> Node:
        state = value.get_state(legacy=False)
        rest = {"has_gauss": state["has_gauss"], "gauss": state["gauss"]}
        return {
            "is": "random state",
            "bits": self.value(value._bit_generator, f"{path}._bit_generator"),
            **rest,
        }

    def _bits(self, value: Any, path: str) -> Node:
        """Its seed sequence decides what it spawns."""
        return {"is": "bits", "of": value.state, "seed": seed_of(value)}

    def of_python_random(self, value: Any, path: str) -> Node:
        version, words, gauss = value.getstate()
        return {"is": "random", "version": version, "words": np.array(words, np.uint64), "gauss": gauss}

    def of_torch_generator(self, value: Any, path: str) -> Node:
        if value.device.type != "cpu":
            return self._not(path, value)
        return {"is": "torch generator", "of": value.get_state().numpy()}

    def of_tensor(self, value: Any, path: str) -> Node:
        odd = value.device.type != "cpu" or value.requires_grad or not value.is_contiguous()
        if odd or value._base is not None or value.dtype is th.bfloat16 or value.layout is not th.strided:
            return self._not(path, value)
        return {"is": "tensor", "of": value.numpy()}

    def of_queue(self, value: Any, path: str) -> Node:
        if locked(value.mutex) or value.not_empty._waiters or value.not_full._waiters:
            return self._not(path, value)  # somebody waits for it
        node = {"is": "queue", "class": type(value).__name__, "maxsize": value.maxsize}
        return {**node, "unfinished": value.unfinished_tasks, "of": self.value(value.queue, f"{path}.queue")}

    def of_simple(self, value: Any, path: str) -> Node:
        """What a few atoms say."""
        parts: list[Any]
        match value:
            case int():
                parts = [hex(value)]
            case complex():
                parts = [value.real, value.imag]
            case range() | slice():
                parts = [value.start, value.stop, value.step]
            case datetime.timedelta():
                parts = [value.days, value.seconds, value.microseconds]
            case datetime.datetime() if value.tzinfo is not None:
                return self._not(path, value)
            case datetime.date():
                parts = [value.isoformat()]
            case _:
                return self._not(path, value)
        if not all(type(part) in ATOMS for part in parts):
            return self._not(path, value)
        return {"is": "simple", "class": type(value).__name__, "of": parts}


_PLAIN: dict[type, Callable[[Walk, Any, str], Node]] = {
    list: Walk.of_list,
    tuple: Walk.of_tuple,
    deque: Walk.of_deque,
    np.ndarray: Walk.of_array,
    np.random.Generator: Walk.of_generator,
    np.random.RandomState: Walk.of_random_state,
    random.Random: Walk.of_python_random,
    th.Generator: Walk.of_torch_generator,
    th.Tensor: Walk.of_tensor,
    types.MethodType: Walk.of_method,
    types.CellType: Walk.of_cell,
    functools.partial: Walk.of_partial,
    **dict.fromkeys((set, frozenset), Walk.of_set),
    **dict.fromkeys((bytes, bytearray), Walk.of_bytes),
    **dict.fromkeys((queue.Queue, queue.LifoQueue, queue.PriorityQueue), Walk.of_queue),
    **dict.fromkeys((dict, OrderedDict, Counter, defaultdict), Walk.of_dict),
    **dict.fromkeys((int, str, complex, range, slice), Walk.of_simple),
    **dict.fromkeys((datetime.date, datetime.datetime, datetime.timedelta), Walk.of_simple),
}

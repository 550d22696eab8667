"""Puts what `plain_walk` wrote down back into objects made anew: fills those that are there, makes others.

A saved state may be an enemy's. It can name only classes and functions that the walk of the new objects met
or that lie in the modules of their classes; nothing of them is called, and no name that Python gives a
meaning is written.
"""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import math
import queue
import random
import sys
import types
from collections import deque
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np
import torch as th

from arzbench.errors import StateError
from arzbench.sb3.code_reach import MISSING, CodeReach, cell_contents, inner_codes, name_of
from arzbench.sb3.plain_kinds import (
    ATOMS,
    BASES,
    BITS,
    CHECKER,
    LOOKED_UP,
    Node,
    Slot,
    attributes_of,
    compiled,
    digest_of,
    dunder,
    ignored_in,
    is_code,
    is_ours,
    named_as,
    seed_of,
    set_attribute,
)
from arzbench.sb3.plain_walk import Walk

_DICTS = {kind.__name__: kind for kind in (dict, collections.OrderedDict, collections.Counter)}
_QUEUES: dict[str, type] = {k.__name__: k for k in (queue.Queue, queue.LifoQueue, queue.PriorityQueue)}


class NotHereError(StateError):
    """A saved state is sound, but something that it needs is not here."""


class Fill:
    """One restoration: each node becomes one object, the one that is there where it fits."""

    def __init__(self, look: Callable[[], Walk], reach: CodeReach, tree: Node) -> None:
        self._look = look
        self._fresh = look()
        self._reach = reach
        self._tree = tree
        self._nodes: list[Node] = tree["nodes"]
        self._made: dict[int, Any] = {}
        self._taken: dict[int, Any] = {}  # by id: an object stands for one node only
        self._todo: deque[tuple[Node, Any]] = deque()
        self._hashed: list[tuple[Node, Any]] = []
        self._own: list[tuple[Any, Any]] = []

    def run(self) -> None:
        """Put everything back.

        Raises:
            StateError: something saved has no place here. Malformed trees raise other errors, too.
        """
        root = self._fresh.objects[0]
        if self._nodes[0].get("class") != name_of(type(root)) or self._put([0], root) is not root:
            raise StateError(f"the saved state is of something other than a {type(root).__name__}")
        self._drain()
        if any(name not in self._fresh.slots for name, _ in self._tree["outside"]):
            self._fresh = self._look()  # objects made just now reach further
        for name, value in self._tree["outside"]:
            slot = self._slot(name)
            before = slot.get()
            new = self._put(value, before)
            if new is not before and new is not MISSING:
                slot.set(new)
            self._drain()
        for node, target in self._hashed:
            self._fill_hashed(node, target)
            self._drain()
        for target, state in self._own:
            target.set_state(state)

    def _drain(self) -> None:
        while self._todo:
            node, target = self._todo.popleft()
            self._fill(node, target)

    def _slot(self, name: Any) -> Slot:
        found = self._fresh.slots.get(name)
        if found is None:
            owner, _, attribute = str(name).rpartition(":")
            kind = self._fresh.names.get(f"class {owner}")
            if kind not in self._reach.classes or not attribute.isidentifier():
                raise NotHereError(f"the saved state has something for {str(name)[:80]!r}, which is not here")
            found = Slot(str(name), kind)
        return found

    # -- one value --------------------------------------------------------------------------------

    def _put(self, value: Any, live: Any) -> Any:
        """The object that `value` stands for; `live` is what is in its place now."""
        if type(value) in ATOMS:
            return value
        if len(value) == 2:
            dtype = np.dtype(value[0])
            if dtype.kind not in "biuf":
                raise StateError("a saved number is of no known kind")
            return dtype.type(value[1])
        (number,) = value
        if number not in self._made:
            if type(number) is not int or not 0 <= number < len(self._nodes):
                raise StateError("the saved state lacks a part of itself")
            node = self._nodes[number]
            free = MISSING if id(live) in self._taken else live
            made = getattr(self, f"_make_{_HANDLERS[node['is']]}")(node, free)
            self._made[number] = made
            if made is not MISSING:
                self._taken[id(made)] = made
            self._queue(node, made)
        return self._made[number]

    def _queue(self, node: Node, made: Any) -> None:
        kind = node["is"]
        if kind in ("list", "deque", "object", "function", "objects", "queue", "cell"):
            self._todo.append((node, made))
        elif kind in ("dict", "set"):
            self._hashed.append((node, made))

    def _class(self, name: Any) -> type:
        """A class by its full name: met, or in a module of the user's or of a library."""
        found = self._fresh.names.get(f"class {name}")
        if isinstance(found, type):
            return found
        parts = str(name).split(".")
        for end in range(len(parts) - 1, 0, -1):
            module: Any = sys.modules.get(".".join(parts[:end]))
            if module is None:
                continue
            found = module
            for part in parts[end:]:
                found = vars(found).get(part) if isinstance(found, types.ModuleType | type) else None
            if isinstance(found, type) and name_of(found) == name and self._allowed(found):
                return found
        raise NotHereError(f"the saved state has an object of {str(name)[:80]!r}, which is not here")

    def _allowed(self, kind: type) -> bool:
        origin = self._reach.origin(kind.__module__)
        return origin == "own" or (origin in ("library", "pure") and not hasattr(kind, "__del__"))

    # -- what is there, or is made ----------------------------------------------------------------

    def _make_object(self, node: Node, live: Any) -> Any:
        base: Any
        kind = self._class(node["class"])
        if "items" in node and issubclass(kind, tuple | frozenset):
            items = self._items(node["items"], live)
            base = tuple if issubclass(kind, tuple) else frozenset
            if type(live) is kind and len(live) == len(items) and all(map(_is, live, items)):
                return live
            return base.__new__(kind, items)
        if type(live) is kind:
            return live
        if kind is types.SimpleNamespace:
            return kind()
        base = next((b for b in BASES if issubclass(kind, b)), object)
        return base.__new__(kind)

    def _items(self, node: Node, live: Any) -> list[Any]:
        lives = list(live) if isinstance(live, tuple | list) else []
        lives += [MISSING] * (len(node["of"]) - len(lives))
        items = [self._put(v, one) for v, one in zip(node["of"], lives, strict=False)]
        return [None if item is MISSING else item for item in items]

    def _make_container(self, node: Node, live: Any) -> Any:
        match node["is"]:
            case "deque":
                maxlen = node["maxlen"]
                return live if type(live) is deque and live.maxlen == maxlen else deque(maxlen=maxlen)
            case "list":
                return live if type(live) is list else []
            case "set":
                return live if type(live) is set else set()
            case "floats" | "ints":
                made = live if type(live) is list else []
                made[:] = node["of"].tolist()
                return made
        if node["class"] == "defaultdict":
            return live if type(live) is collections.defaultdict else collections.defaultdict()
        kind = _DICTS[node["class"]]
        return live if type(live) is kind else kind()

    def _make_fixed(self, node: Node, live: Any) -> Any:
        kind = tuple if node["is"] == "tuple" else frozenset
        items = self._items(node, live)
        if type(live) is kind and len(live) == len(items) and all(map(_is, live, items)):
            return live
        return kind(items)

    def _make_member(self, node: Node, live: Any) -> Any:
        kind = self._class(node["class"])
        if not issubclass(kind, enum.Enum):
            raise StateError("a saved member is of no enumeration")
        return kind._member_map_[node["of"]]

    def _make_name(self, node: Node, live: Any) -> Any:
        name = node["of"]
        if live is not MISSING and (not callable(live) or is_code(live)) and named_as(live) == name:
            return live
        found = self._fresh.names.get(name, MISSING)
        if found is MISSING:
            found = self._define(name)
        if found is MISSING:
            raise NotHereError(f"the saved state mentions {str(name)[:80]!r}, which is not to be found here")
        return found

    def _define(self, name: Any) -> Any:
        """A function that code known here would define: with empty cells, to be filled."""
        known = [f for f in self._fresh.names.values() if isinstance(f, types.FunctionType)]
        for outer in known:
            codes = deque(inner_codes(outer.__code__))
            while codes:
                code = codes.popleft()
                codes.extend(inner_codes(code))
                if f"function {outer.__module__}.{code.co_qualname}" == str(name).rpartition(" ")[0]:
                    cells = tuple(types.CellType() for _ in code.co_freevars)
                    made = types.FunctionType(code, outer.__globals__, code.co_name, None, cells)
                    if named_as(made) == name:
                        return made
        return MISSING

    def _make_method(self, node: Node, live: Any) -> Any:
        method = isinstance(live, types.MethodType)
        owner = self._put(node["self"], live.__self__ if method else MISSING)
        function = self._put(node["function"], live.__func__ if method else MISSING)
        if method and live.__self__ is owner and live.__func__ is function:
            return live
        if not (isinstance(function, types.FunctionType) or compiled(function)):
            raise StateError("a saved method is not one")
        return types.MethodType(function, owner)

    def _make_built_in_method(self, node: Node, live: Any) -> Any:
        owner = self._put(node["self"], getattr(live, "__self__", MISSING))
        name = node["of"]
        if type(owner) not in LOOKED_UP or not hasattr(type(owner), name) or name.startswith("_"):
            raise StateError("a saved method is not one")
        return getattr(owner, name)

    def _make_partial(self, node: Node, live: Any) -> Any:
        there = isinstance(live, functools.partial)
        now = (live.func, live.args, live.keywords) if there else (MISSING,) * 3
        function, args, keywords = map(self._put, node["values"], now)
        self._drain()
        if there and function is now[0] and args is now[1] and keywords is now[2]:
            return live
        for pending in [p for p in self._hashed if p[1] is keywords]:
            self._hashed.remove(pending)
            self._fill_hashed(*pending)
        return functools.partial(function, *args, **keywords)

    def _make_lock(self, node: Node, live: Any) -> Any:
        if live is MISSING or live is None:
            raise NotHereError("the saved state has a lock that is not here")
        return live

    def _make_unseen(self, node: Node, live: Any) -> Any:
        """What is there stays; where nothing is, nothing comes."""
        return live

    def _make_queue(self, node: Node, live: Any) -> Any:
        kind = _QUEUES[node["class"]]
        return live if type(live) is kind else kind(int(node["maxsize"]))

    def _make_simple(self, node: Node, live: Any) -> Any:
        of = node["of"]
        if node["is"] == "path":
            return live if isinstance(live, PurePath) and str(live) == of else type(PurePath())(of)
        makers: Node = {
            "int": lambda: int(of[0], 16), "complex": lambda: complex(*of), "range": lambda: range(*of),
            "slice": lambda: slice(*of), "timedelta": lambda: datetime.timedelta(*of),
            "date": lambda: datetime.date.fromisoformat(of[0]),
            "datetime": lambda: datetime.datetime.fromisoformat(of[0]),
        }  # fmt: skip
        return makers[node["class"]]()

    # -- arrays and generators --------------------------------------------------------------------

    def _make_array(self, node: Node, live: Any) -> Any:
        kind, of = node["is"], node["of"]
        if kind == "as made":
            if type(live) is np.ndarray and digest_of(live) == of:
                return live
            if of not in self._fresh.digests:
                raise NotHereError("a large array that was not changed is another one here")
            return self._fresh.digests[of]
        if kind == "raw":
            dtype = np.lib.format.descr_to_dtype(node["dtype"])
            if dtype.hasobject:
                raise StateError("a saved array holds objects")
            of = np.frombuffer(of.tobytes(), dtype).reshape(node["shape"])
        if node.get("scalar"):
            return of[()]
        order = node.get("order", "C")
        fits = type(live) is np.ndarray and live.base is None and live.flags.writeable
        fits = fits and live.shape == of.shape and live.dtype == of.dtype
        if fits and not node.get("read") and live.flags[f"{order}_CONTIGUOUS"]:
            np.copyto(live, of)
            return live
        new = np.array(of, order=order)
        if node.get("read"):
            new.setflags(write=False)
        return new

    def _make_view(self, node: Node, live: Any) -> Any:
        there = live.base if type(live) is np.ndarray else None
        while isinstance(there, np.ndarray) and there.base is not None:
            there = there.base
        base = self._put(node["base"], MISSING if there is None else there)
        dtype, offset = np.dtype(node["dtype"]), node["offset"]
        if type(base) is not np.ndarray or dtype.kind not in "biufc" or base.dtype.hasobject:
            raise StateError("a saved array is a part of something else")
        if base is there and live.dtype == dtype and list(live.strides) == node["strides"]:
            moved = live.__array_interface__["data"][0] - base.__array_interface__["data"][0]
            if moved == offset and list(live.shape) == node["shape"]:
                return live
        whole = base if base.flags.c_contiguous else base.T
        return np.ndarray(tuple(node["shape"]), dtype, whole.data, offset, tuple(node["strides"]))

    def _make_objects(self, node: Node, live: Any) -> Any:
        shape = tuple(node["shape"])
        if math.prod(shape) != len(node["of"]):
            raise StateError("a saved array lacks items")
        fits = type(live) is np.ndarray and live.dtype == object and live.shape == shape
        return live if fits else np.empty(shape, object)

    def _make_bytes(self, node: Node, live: Any) -> Any:
        of = node["of"].tobytes()
        if node["is"] == "bytes":
            return of
        made = live if type(live) is bytearray else bytearray()
        made[:] = of
        return made

    def _make_generator(self, node: Node, live: Any) -> Any:
        if node["is"] == "generator":
            there = live.bit_generator if type(live) is np.random.Generator else MISSING
            bits = self._put(node["bits"], there)
            return live if bits is there else np.random.Generator(bits)
        there = live._bit_generator if type(live) is np.random.RandomState else MISSING
        bits = self._put(node["bits"], there)
        made = live if bits is there else np.random.RandomState(bits)
        made.set_state({**bits.state, "has_gauss": node["has_gauss"], "gauss": node["gauss"]})
        return made

    def _make_bits(self, node: Node, live: Any) -> Any:
        kind, seed = BITS[node["of"]["bit_generator"]], node["seed"]
        if type(live) is not kind or seed_of(live) != seed:
            sequence = None
            if seed is not None:
                entropy, key, pool, spawned = seed
                if not 4 <= pool <= 64:
                    raise StateError("a saved random generator has an odd seed")
                sequence = np.random.SeedSequence(
                    entropy, spawn_key=tuple(key), pool_size=pool, n_children_spawned=spawned
                )
            live = kind(sequence)
        live.state = node["of"]
        return live

    def _make_random(self, node: Node, live: Any) -> Any:
        made = live if type(live) is random.Random else random.Random()
        made.setstate((node["version"], tuple(node["words"].tolist()), node["gauss"]))
        return made

    def _make_torch(self, node: Node, live: Any) -> Any:
        of = th.from_numpy(np.array(node["of"]))
        if node["is"] == "torch generator":
            made = live if type(live) is th.Generator and live.device.type == "cpu" else th.Generator()
            made.set_state(of)
            return made
        if type(live) is th.Tensor and live.shape == of.shape and live.dtype == of.dtype:
            live.copy_(of)
            return live
        return of

    # -- what they hold ---------------------------------------------------------------------------

    def _make_function(self, node: Node, live: Any) -> Any:
        """A closure shares its cells with others: where they are not those that are there, it is another."""
        name = node["of"]
        there = live if isinstance(live, types.FunctionType) and named_as(live) == name else None
        source = there or self._fresh.names.get(name) or self._define(name)
        if not isinstance(source, types.FunctionType) or len(node["cells"]) != len(source.__closure__ or ()):
            raise NotHereError(f"the saved state has {str(name)[:80]!r}, which is not to be found here")
        free, before = id(source) not in self._taken, source.__closure__ or ()
        cells = tuple(
            cell if value is None else self._put(value, cell if free else MISSING)
            for value, cell in zip(node["cells"], before, strict=True)
        )
        if free and all(map(_is, cells, before)):
            return source
        made = types.FunctionType(source.__code__, source.__globals__, source.__name__, None, cells)
        made.__qualname__ = source.__qualname__
        vars(made).update({n: v for n, v in vars(source).items() if dunder(n)})
        return made

    def _make_cell(self, node: Node, live: Any) -> Any:
        return live if isinstance(live, types.CellType) else types.CellType()

    def _fill(self, node: Node, target: Any) -> None:
        match node["is"]:
            case "list" | "deque":
                self._fill_items(node, target)
            case "objects":
                lives = target.ravel().tolist()
                flat = np.empty(len(lives), object)
                for index, (item, live) in enumerate(zip(node["of"], lives, strict=True)):
                    flat[index] = self._put(item, live)
                target[...] = flat.reshape(target.shape)
            case "queue":
                target.queue = self._put(node["of"], target.queue)
                target.maxsize, target.unfinished_tasks = int(node["maxsize"]), int(node["unfinished"])
            case "function":
                self._fill_function(node, target)
            case "cell":
                now = cell_contents(target)
                for value in node["of"]:
                    new = self._put(value, now)
                    if new is not now:
                        target.cell_contents = new
            case _:
                self._fill_object(node, target)

    def _fill_items(self, node: Node, target: Any) -> None:
        base = deque if isinstance(target, deque) else list
        lives = list(base.__iter__(target))
        lives += [MISSING] * (len(node["of"]) - len(lives))
        items = [self._put(v, live) for v, live in zip(node["of"], lives, strict=False)]
        base.clear(target)
        base.extend(target, [item for item in items if item is not MISSING])

    def _fill_hashed(self, node: Node, target: Any) -> None:
        of = node["of"]
        if node["is"] == "set":
            items = [self._put(value, MISSING) for value in of]
            self._drain()
            set.clear(target)
            for item in items:
                if item is not MISSING:
                    set.add(target, item)
            return
        if isinstance(target, collections.defaultdict):
            target.default_factory = self._put(node["factory"], target.default_factory)
        keys_now = list(dict.keys(target))
        keys_now += [MISSING] * (len(of) // 2 - len(keys_now))
        keys = [self._put(key, now) for key, now in zip(of[::2], keys_now, strict=False)]
        self._drain()
        items = [
            self._put(value, dict.get(target, key, MISSING))
            for key, value in zip(keys, of[1::2], strict=True)
        ]
        dict.clear(target)
        for key, item in zip(keys, items, strict=True):
            if item is not MISSING and key is not MISSING:
                dict.__setitem__(target, key, item)

    def _fill_object(self, node: Node, target: Any) -> None:
        kind = type(target)
        if "items" in node:
            self._queue(node["items"], target)
            if node["items"]["is"] in ("floats", "ints"):
                list.__setitem__(target, slice(None), node["items"]["of"].tolist())
        self._fill_attributes(
            node, target, attributes_of(target), "own" in node and kind.__module__.startswith("arzbench.")
        )
        if name_of(kind) == CHECKER:
            # it has nothing left to check, and no earlier step to compare with
            target.checked_reset = target.checked_step = target.checked_data_reuse = True
        if "own" in node:
            state = self._put(node["own"], MISSING)
            self._own.append((target, state))

    def _fill_attributes(self, node: Node, target: Any, now: Node, partly: bool) -> None:
        names, ignored = node["names"], ignored_in(type(target))
        for name, value in zip(names, node["values"], strict=True):
            if type(name) is not str or dunder(name) or name in ignored:
                raise StateError(f"the saved state writes to {str(name)[:40]!r}")
            if is_ours(now.get(name)):
                continue
            new = self._put(value, now.get(name, MISSING))
            if new is not now.get(name, MISSING) and new is not MISSING:
                set_attribute(target, name, new)
        skipped = self._fresh.skipped if target is self._fresh.objects[0] else frozenset()
        for name in () if partly else now.keys() - set(names) - ignored - skipped:
            if not (is_ours(now[name]) or dunder(name)):
                set_attribute(target, name, MISSING)

    def _fill_function(self, node: Node, target: types.FunctionType) -> None:
        defaults = self._put(node["defaults"], target.__defaults__)
        if defaults is not target.__defaults__:
            target.__defaults__ = defaults
        target.__kwdefaults__ = self._put(node["keywords"], target.__kwdefaults__)
        inside = vars(target)
        for name, value in zip(node["names"], node["values"], strict=True):
            if type(name) is not str or dunder(name):
                raise StateError(f"the saved state writes to {str(name)[:40]!r}")
            inside[name] = self._put(value, inside.get(name, MISSING))
        for name in [n for n in inside if n not in node["names"] and not dunder(n)]:
            del inside[name]


def _is(one: Any, other: Any) -> bool:
    return one is other or (type(one) in ATOMS and type(one) is type(other) and one == other)


#: kind of node -> who makes it
_HANDLERS = {
    "object": "object", "deque": "container", "list": "container", "set": "container", "floats": "container",
    "ints": "container", "dict": "container", "tuple": "fixed", "frozenset": "fixed", "member": "member",
    "name": "name", "method": "method", "built-in method": "built_in_method", "partial": "partial",
    "lock": "lock", "unseen": "unseen", "queue": "queue", "simple": "simple", "path": "simple",
    "as made": "array", "raw": "array", "array": "array", "view": "view", "objects": "objects",
    "bytes": "bytes", "bytearray": "bytes", "generator": "generator", "random state": "generator",
    "bits": "bits", "random": "random", "torch generator": "torch", "tensor": "torch", "function": "function",
    "cell": "cell",
}  # fmt: skip

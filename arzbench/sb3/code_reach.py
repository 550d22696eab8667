"""What the methods of a user's classes reach beyond their objects, read from their bytecode. Nothing is run.

Two things come of it: *slots*, names of modules that hold state (a counter, a table), to be captured with
the objects; and *influences*, what no capture can bring back: the clock, files, the system's entropy,
threads, other people's compiled code. What cannot be judged counts as an influence.
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import itertools
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

#: libraries whose functions keep nothing from call to call but the generators that a training saves
LIBRARIES = frozenset({
    "arzbench", "gymnasium", "numba", "numpy", "sb3_contrib", "scipy", "stable_baselines3", "torch",
})  # fmt: skip
#: modules of Python that do as the first, or only write
PURE = frozenset({
    "__future__", "abc", "array", "base64", "bisect", "builtins", "cmath", "collections", "colorsys",
    "contextlib", "copy", "dataclasses", "datetime", "enum", "fractions", "functools", "hashlib",
    "heapq", "itertools", "json", "logging", "math", "numbers", "operator", "pprint", "queue", "random", "re",
    "statistics", "string", "struct", "textwrap", "traceback", "types", "typing", "warnings", "zlib",
    "_abc", "_bisect", "_collections", "_functools", "_hashlib", "_heapq", "_operator", "_random", "_struct",
    "_io", "_thread", "_collections_abc", "_queue", "posixpath", "ntpath",
})  # fmt: skip
#: modules that let something happen between steps: named wherever a class uses them
BACKGROUND = frozenset({
    "asyncio", "concurrent", "ctypes", "multiprocessing", "sched", "signal", "socket", "subprocess",
    "threading",
})  # fmt: skip
#: of `LIBRARIES`, `PURE` and the built-in functions, what depends on more than its arguments
IMPURE = frozenset({
    "builtins.__import__", "builtins.compile", "builtins.eval", "builtins.exec", "builtins.globals",
    "builtins.hash", "builtins.id", "builtins.input", "builtins.open",
    "io.open", "numpy.load", "numpy.memmap", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile",
    "random.SystemRandom", "_thread.start_new_thread", "_thread.start_joinable_thread",
    "posixpath.exists", "torch.load", "torch.initial_seed",
})  # fmt: skip
#: made without a seed, these take the system's entropy
SEEDED = frozenset({
    "MT19937", "PCG64", "PCG64DXSM", "Philox", "RandomState", "Random", "SFC64", "SeedSequence",
    "default_rng", "np_random", "seed",
})  # fmt: skip
#: of `datetime`, what reads the clock
NOW = frozenset({"now", "today", "utcnow"})
ENTRIES = frozenset({"step", "reset", "step_wait", "step_async"})
#: run when an object is made, shown or dropped, not by its steps
UNUSED = frozenset({
    "__init__", "__new__", "__post_init__", "__repr__", "__str__", "__del__", "__init_subclass__",
    "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__copy__", "__deepcopy__",
    "__class_getitem__", "__enter__", "__exit__", "__format__", "__dir__", "__sizeof__", "__annotate__",
    "__annotate_func__",
})  # fmt: skip
MADE = frozenset({"__init__", "__new__", "__post_init__"})
MISSING: Any = object()


class Ref(NamedTuple):
    """A name that code loads, what it takes of it, and how that is called: "" where a seed is given."""

    kind: str  # "global", "cell", "import", "word" for a method
    name: str
    chain: tuple[str, ...]
    seed: str = ""  # "none", "variable NAME" (may be None), "attribute NAME"


class Names(NamedTuple):
    """What one code object mentions."""

    refs: tuple[Ref, ...]
    words: frozenset[str]  # attributes, and texts that may be attributes
    dynamic: bool  # takes attributes by names it computes


class CodeReach:
    """Reads classes and functions as they become known.

    Attributes:
        slots: "module:name" to the namespace that holds, or may come to hold, the name.
        classes: The user's classes that code can make or change.
        functions: The user's functions that hold state: cells, mutable defaults, attributes.
        known: The user's functions that code mentions.
        influences: What decides beside the state, as a text, and whether it is a foreign library.
    """

    def __init__(self, own: Iterable[str] = (), every: bool = False) -> None:
        """`own` are packages that count as the user's; `every` method may be called, not only steps."""
        self._own = frozenset(own)
        self._every = every
        self.slots: dict[str, dict[str, Any]] = {}
        self.classes: dict[type, None] = {}
        self.functions: dict[int, types.FunctionType] = {}
        self.influences: dict[str, bool] = {}
        self.known: dict[int, types.FunctionType] = {}
        self.absent: set[str] = set()  # attributes that are None in some object: no seed
        self._words: set[str] = set(ENTRIES)
        self._made: set[type] = set()
        self._read_codes: set[Any] = set()
        self._todo: list[types.FunctionType] = []
        self._modules: dict[str, types.ModuleType] = {}  # used by another name, or handed on

    def origin(self, module: str | None) -> str:
        """Whose a module is: "own", "library", "pure", "background" or "other"."""
        top = (module or "").partition(".")[0]
        if top in LIBRARIES:
            return "library"
        if top in PURE or module is None:
            return "pure"
        if top in BACKGROUND:
            return "background"
        if top in sys.stdlib_module_names:
            return "other"
        file = str(getattr(sys.modules.get(str(module)), "__file__", None) or "")
        installed = "site-packages" in file or "dist-packages" in file
        ours = module == "__main__" or top in self._own or (file.endswith(".py") and not installed)
        return "own" if ours else "other"

    def add_class(self, kind: type, *, made: bool = False) -> None:
        """A class whose objects exist, or are `made` by code."""
        for part in [*kind.__mro__, *type(kind).mro(type(kind))]:
            if self.origin(module_of(part)) == "own":
                self.classes.setdefault(part)
                if made and part not in self._made:
                    self._made.add(part)
            elif self.origin(module_of(part)) == "background":
                self._blame(kind.__qualname__, f"a {module_of(part)}.{part.__qualname__}")

    def add_callable(self, value: Any, where: str) -> None:
        """Something that can be called, held by an object or mentioned by code."""
        value = unwrap(value)
        if isinstance(value, types.MethodType):
            value = value.__func__
        if isinstance(value, types.FunctionType):
            origin = self.origin(value.__module__)
            if origin == "own":
                self.known.setdefault(id(value), value)
                self._todo.append(value)
            else:
                self._judge_foreign(value, value.__module__, where)
        elif isinstance(value, functools._lru_cache_wrapper):
            if self.origin(module_of(value)) == "own":
                self._blame(where, f"the cache of {name_of(value)}")
                self.add_callable(value.__wrapped__, where)
        elif hasattr(type(value), "py_func") or "numba" in (module_of(type(value)) or ""):
            self._check_compiled(value, where)
        elif type(value).__name__ == "cython_function_or_method":
            self._judge_foreign(value, module_of(value), where)
        elif isinstance(value, type):
            if self.origin(module_of(value)) == "own":
                self.add_class(value, made=True)
            else:
                self._judge_foreign(value, module_of(value), where)
        elif isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType):
            owner = getattr(value, "__self__", None)
            module = (
                owner.__name__ if isinstance(owner, types.ModuleType) else getattr(value, "__module__", None)
            )
            self._judge_foreign(value, module, where)

    def _judge_foreign(self, value: Any, module: str | None, where: str) -> None:
        """A function or class that is not the user's."""
        origin, name = self.origin(module), name_of(value)
        if name == "builtins.hash" and where.endswith(".__hash__"):
            return
        if name in IMPURE or origin == "background":
            self._blame(where, name)
        elif origin == "other":
            library = (module or "").partition(".")[0] not in sys.stdlib_module_names
            self._blame(where, name, library=library)

    def follow(self) -> None:
        """Read all code that is known to be run."""
        while True:
            for kind in tuple(self.classes):
                self._todo.extend(self._methods(kind))
            for module in self._modules.values():
                for name in self._words & vars(module).keys():
                    self._add_slot(vars(module), name, vars(module)[name])
                    if callable(vars(module)[name]):
                        self.add_callable(vars(module)[name], module.__name__)
            fresh = [f for f in self._todo if (f.__code__, id(f.__closure__)) not in self._read_codes]
            self._todo = []
            if not fresh:
                return
            for function in fresh:
                self._read_codes.add((function.__code__, id(function.__closure__)))
                self._read(function, function.__code__)

    def _methods(self, kind: type) -> Iterator[types.FunctionType]:
        for name, item in vars(kind).items():
            special = name.startswith("__") and name.endswith("__")
            if (name in MADE and kind in self._made) or (self._every and name not in UNUSED):
                called = True
            else:
                called = (name not in UNUSED and special) or name in self._words
            for function in functions_of(item):
                if called and name not in UNUSED - (MADE if kind in self._made else set()):
                    if isinstance(function, types.FunctionType):
                        if self.origin(function.__module__) == "own":
                            yield function
                    else:
                        self.add_callable(function, f"{kind.__qualname__}.{name}")
                elif isinstance(function, types.FunctionType):
                    self._check_background(function, function.__code__)

    def _check_background(self, function: types.FunctionType, code: types.CodeType) -> None:
        """Of code that steps do not run only what goes on between steps matters."""
        if code in self._read_codes:
            return
        self._read_codes.add(code)
        for ref in names_in(code).refs:
            value = None if ref.kind == "word" else self._base(function, ref)
            if isinstance(value, types.ModuleType):
                module = value.__name__
            else:
                module = getattr(value, "__module__", None) or "builtins"
            if self.origin(module) == "background":
                self._blame(function.__qualname__, ".".join((ref.name, *ref.chain)))
        for inner in inner_codes(code):
            self._check_background(function, inner)

    def _read(self, function: types.FunctionType, code: types.CodeType) -> None:
        where = function.__qualname__
        cells = [
            cell_contents(cell)
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            if name != "__class__"
        ]
        if cells or function.__defaults__ or function.__kwdefaults__ or vars(function):
            self.functions.setdefault(id(function), function)
        for content in (*cells, *(function.__defaults__ or ()), *vars(function).values()):
            if callable(content):
                self.add_callable(content, where)
        names = names_in(code)
        self._words |= names.words
        told = sorted(names.words & NOW)
        if told and any("datetime" in part for ref in names.refs for part in (ref.name, *ref.chain)):
            self._blame(where, f"datetime.{told[0]}")
        self._every = self._every or names.dynamic
        for ref in names.refs:
            if ref.kind == "word":
                if ref.seed and self._lacks_seed(code, ref):
                    self._blame(where, "a generator seeded by the system")
                continue
            self._judge(function, code, ref)
        for inner in inner_codes(code):
            self._read(function, inner)

    def _base(self, function: types.FunctionType, ref: Ref) -> Any:
        if ref.kind == "import":
            return sys.modules.get(ref.name, MISSING)
        if ref.kind == "cell":
            names = function.__code__.co_freevars
            cell = (function.__closure__ or ())[names.index(ref.name)] if ref.name in names else None
            return MISSING if cell is None else cell_contents(cell)
        return function.__globals__.get(ref.name, getattr(builtins, ref.name, MISSING))

    def _judge(self, function: types.FunctionType, code: types.CodeType, ref: Ref) -> None:
        where, chain = function.__qualname__, list(ref.chain)
        value = self._base(function, ref)
        if ref.kind == "import" and value is MISSING:
            if self.origin(ref.name) not in ("library", "pure"):
                self._blame(where, ref.name)
            return
        if ref.kind == "global" and (value is MISSING or ref.name in function.__globals__):
            self._add_slot(function.__globals__, ref.name, value)
        label = ref.name
        while chain and isinstance(value, types.ModuleType | type):
            if isinstance(value, types.ModuleType) and self.origin(value.__name__) == "own":
                self._add_slot(vars(value), chain[0], vars(value).get(chain[0], MISSING))
            if isinstance(value, type):
                self.add_class(value)
            name = chain.pop(0)
            value, label = unwrap(inspect.getattr_static(value, name, MISSING)), f"{label}.{name}"
        if isinstance(value, types.ModuleType):
            if self.origin(value.__name__) == "own":
                self._modules[value.__name__] = value
            elif self.origin(value.__name__) in ("other", "background"):
                self._blame(
                    where, label, library=value.__name__.partition(".")[0] not in sys.stdlib_module_names
                )
        elif ref.name == "__class__":
            return
        elif callable(value) and not (isinstance(value, type) and chain):
            if label != "time.sleep":
                self.add_callable(value, where)
            if chain == [] and getattr(value, "__name__", "") in SEEDED and self._lacks_seed(code, ref):
                self._blame(where, "a generator seeded by the system")
        elif value is not MISSING and ref.kind == "global" and ref.chain:
            base = function.__globals__.get(ref.name)
            if isinstance(base, types.ModuleType) and self.origin(base.__name__) in ("other", "background"):
                self._blame(where, label)

    def _add_slot(self, namespace: dict[str, Any], name: str, value: Any) -> None:
        """A global that holds data; modules, classes and functions are read instead."""
        module = str(namespace.get("__name__"))
        code = isinstance(value, types.ModuleType | type | types.FunctionType | types.BuiltinFunctionType)
        if self.origin(module) == "own" and not code and not name.startswith("__"):
            self.slots[f"{module}:{name}"] = namespace

    def _lacks_seed(self, code: types.CodeType, ref: Ref) -> bool:
        kind, _, name = ref.seed.partition(" ")
        return kind == "none" or kind == "variable" or (kind == "attribute" and name in self.absent)

    def _check_compiled(self, value: Any, where: str) -> None:
        """A function compiled by Numba: its draws come from a generator that nobody can read."""
        inner = getattr(value, "py_func", None)
        if isinstance(inner, types.FunctionType):
            for ref in names_in(inner.__code__).refs:
                base = self._base(inner, ref)
                if getattr(base, "__name__", "") in ("numpy.random", "random") or ref.chain[:1] == (
                    "random",
                ):
                    self._blame(where, "the generator of compiled code")
                elif base is not value and hasattr(base, "py_func"):
                    self._check_compiled(base, where)

    def _blame(self, where: str, what: str, *, library: bool = False) -> None:
        self.influences.setdefault(f"{where} ({what})", library)


def unwrap(item: Any) -> Any:
    """The function in a static or class method."""
    return item.__func__ if isinstance(item, staticmethod | classmethod) else item


def functions_of(item: Any) -> Iterator[Any]:
    """The functions that an entry of a class's namespace stands for."""
    item = unwrap(item)
    if isinstance(item, property):
        yield from (f for f in (item.fget, item.fset, item.fdel) if f is not None)
    elif isinstance(item, functools.cached_property | functools.partialmethod):
        yield item.func
    elif callable(item) and not isinstance(item, type):
        yield item


def name_of(value: Any) -> str:
    """The full name of a function or class."""
    name = getattr(value, "__qualname__", getattr(value, "__name__", type(value).__name__))
    module = getattr(value, "__module__", None)
    owner = getattr(value, "__self__", None)
    if module is None and isinstance(owner, type):
        module = module_of(owner)
    if module is None and isinstance(getattr(value, "__objclass__", None), type):
        module = module_of(value.__objclass__)
    return f"{module}.{name}" if module else str(name)


def module_of(value: Any) -> str | None:
    """The module that a class or function says it is from; classes made by SWIG say none."""
    return getattr(value, "__module__", None)


def cell_contents(cell: Any) -> Any:
    """What a closure's cell holds, `MISSING` for an empty one."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def inner_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Functions, lambdas and comprehensions that `code` defines."""
    return (const for const in code.co_consts if isinstance(const, types.CodeType))


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> Names:
    """Read one code object, not those within."""
    steps = [
        s for s in dis.get_instructions(code) if s.opname not in ("PRECALL", "CACHE", "PUSH_NULL", "NOP")
    ]
    tested = {
        str(a.argval)
        for a, b in itertools.pairwise(steps)
        if a.opname.startswith("LOAD_FAST") and b.opname.startswith(("POP_JUMP", "TO_BOOL"))
    }
    refs: list[Ref] = []
    words = {const for const in code.co_consts if isinstance(const, str) and const.isidentifier()}
    dynamic = False
    for at, step in enumerate(steps):
        name = str(step.argval)
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "STORE_ATTR"):
            words.add(name)
            if name in SEEDED and step.opname != "STORE_ATTR":
                refs.append(Ref("word", name, (), _seed(code, steps, at + 1, tested)))
            continue
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"):
            kind = "global"
        elif step.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF"):
            kind = "cell"
        elif step.opname == "IMPORT_NAME":
            refs.extend(_imported(steps, at, name))
            continue
        else:
            continue
        end, chain = at + 1, []
        while end < len(steps) and steps[end].opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
            chain.append(str(steps[end].argval))
            end += 1
        refs.append(Ref(kind, name, tuple(chain), _seed(code, steps, end, tested)))
        computed = end + 1 < len(steps) and steps[end + 1].opname != "LOAD_CONST"
        dynamic = dynamic or (kind == "global" and name in ("getattr", "attrgetter") and computed)
    return Names(tuple(refs), frozenset(words), dynamic)


def _imported(steps: list[dis.Instruction], at: int, name: str) -> Iterator[Ref]:
    taken = []
    for step in steps[at + 1 :]:
        if step.opname == "IMPORT_FROM":
            taken.append(str(step.argval))
        elif not step.opname.startswith("STORE"):
            break
    yield Ref("import", name, ())  # by whatever name it goes from here on
    for part in taken:
        yield Ref("import", name, (part,), "none" if part in SEEDED else "")


def _seed(code: types.CodeType, steps: list[dis.Instruction], at: int, tested: set[str]) -> str:
    """Whether the call that begins at `at` is given a seed; empty where it is, or nothing is called."""
    words = [s for s in steps[at : at + 5] if s.opname != "KW_NAMES"]
    if not words:
        return ""
    first = words[0]
    if first.opname.startswith("CALL"):
        return "none" if first.arg in (0, None) else ""
    called = len(words) > 1 and words[1].opname.startswith("CALL")
    name = str(first.argval)
    if first.opname in ("LOAD_CONST", "RETURN_CONST"):
        return "none" if called and first.argval is None else ""
    if first.opname.startswith("LOAD_FAST"):
        if called:
            count = code.co_argcount + code.co_kwonlyargcount
            doubtful = name in code.co_varnames[:count] or name == "seed"
            return f"variable {name}" if doubtful and name not in tested else ""
        if len(words) > 2 and words[1].opname == "LOAD_ATTR" and words[2].opname.startswith("CALL"):
            return f"attribute {words[1].argval}"
    return ""

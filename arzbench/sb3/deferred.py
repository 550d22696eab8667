"""Parts of torch that are imported when something of them is used.

The first optimizer of a process imports torch's compiler, a second and 1,300 modules, to say that its methods
are not to be compiled. Here that is said without: a function is run as it is until something else has
imported the compiler, which alone could compile it.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
#: The shapes that operations have on tensors without data, those on the device "meta", and what they are made
#: of: a quarter of what `import torch` takes. They import each other, which only works from the first on.
SHAPES = ("torch._meta_registrations", "torch._decomp", "torch._refs", "torch._prims")

_lock = threading.RLock()


def defer(*names: str) -> None:
    """Let the first import of each of these modules, where it is still to come, wait for their first use."""
    for name in {*names} - sys.modules.keys():
        sys.meta_path.insert(0, _Finder(name))


class _Finder:
    """Finds one module, once."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:  # else the import fails, as ever
            spec.loader_state, spec.loader = spec.loader, _Loader()  # type: ignore[assignment]
        return spec


class _Loader:
    """Leaves the module empty: it is a stand-in."""

    def create_module(self, spec: ModuleSpec) -> None:
        pass

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.pop("__path__", None)  # an import of what lies below asks for it
        module.__class__ = _Compiler if module.__name__ == COMPILER else _Deferred


class _Deferred(ModuleType):
    """A module that is loaded, in place, when something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        _load(self)
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _load(self)
        object.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        _load(self)
        return dir(self)


class _Compiler(_Deferred):
    """torch's compiler; what an optimizer asks of it is answered without it."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("disable", "graph_break"):
            asking = sys._getframe(1).f_globals.get("__name__")
            if (name, asking) == ("graph_break", "torch.optim.optimizer"):
                return _nothing  # what it does where nothing is compiled
            if (name, asking) == ("disable", "torch._compile"):
                return functools.partial(_disabled, self)
        return super().__getattribute__(name)


def _nothing() -> None:
    pass


def _disabled(compiler: ModuleType, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`function`, never compiled: itself as long as there is no compiler, then what that makes of it."""
    made: list[Callable[..., Any]] = []

    def run(*given: Any, **named: Any) -> Any:
        if not made:
            if "disable" not in compiler.__dict__:
                return function(*given, **named)
            made.append(compiler.disable(function, *args, **kwargs))
        return made[0](*given, **named)

    return run


def _load(module: ModuleType) -> None:
    """Load `module`, unless that was done or is being done."""
    with _lock:
        if module.__name__ in SHAPES[1:] and SHAPES[0] in sys.modules:
            _load(sys.modules[SHAPES[0]])
        if isinstance(module, _Deferred):
            _execute(module)


def _execute(module: ModuleType) -> None:
    object.__setattr__(module, "__class__", ModuleType)
    spec: Any = module.__spec__
    spec.loader = module.__loader__ = spec.loader_state
    if spec.submodule_search_locations is not None:
        module.__path__ = spec.submodule_search_locations
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)  # as an import that fails does
        raise

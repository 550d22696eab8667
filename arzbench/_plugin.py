"""Makes `gymnasium.make("arzbench/TrafficLight-v0")` work after `pip install`, without importing arzbench.

Gymnasium 1.0 dropped the entry-point loader that 0.29 had. A `.pth` file in site-packages imports this
module when Python starts; it costs one entry in `sys.meta_path` until gymnasium is imported, and
registers our envs right after it (docs/decisions/0002-gymnasium-registration.md).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_AFTER = "gymnasium"


class _ThenRegister(importlib.abc.Loader):
    """Runs the module's own loader, then registers."""

    def __init__(self, inner: importlib.abc.Loader) -> None:
        self._inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = module.__loader__ = self._inner
        self._inner.exec_module(module)
        from arzbench.traffic.env import register_envs

        register_envs()


class _GymnasiumFinder(importlib.abc.MetaPathFinder):
    """Steps in for one module, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _AFTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


def install() -> None:
    """Register when gymnasium is imported; at once if it was."""
    if _AFTER in sys.modules:
        from arzbench.traffic.env import register_envs

        register_envs()
    elif not any(isinstance(finder, _GymnasiumFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _GymnasiumFinder())


install()

"""Makes `gymnasium.make("arzbench/TrafficLight-v0")` work after `pip install`, without importing arzbench.

Gymnasium 1.0 dropped the entry-point loader that 0.29 had. A `.pth` file in site-packages imports this
module when Python starts; it costs one entry in `sys.meta_path` until gymnasium is imported, and
registers our envs right after it (docs/decisions/0002-gymnasium-registration.md).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_AFTER = "gymnasium"


class _GymnasiumFinder:
    """Steps in for one module, once: its own loader runs, then the envs are registered.

    Not a subclass of `importlib.abc.MetaPathFinder`: to import that takes longer than Python takes to start.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AFTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and (loader := spec.loader) is not None:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                del loader.exec_module  # the loader is its own again
                execute(module)
                _register()

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _register() -> None:
    from arzbench.traffic.env import register_envs

    register_envs()


def install() -> None:
    """Register when gymnasium is imported; at once if it was."""
    if _AFTER in sys.modules:
        _register()
    elif not any(isinstance(finder, _GymnasiumFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _GymnasiumFinder())


install()

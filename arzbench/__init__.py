"""Wall-clock planning for reinforcement-learning trainings, on an ARZ traffic model.

Importing the package loads nothing else, so that a command starts at once; public names load what they need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arzbench.session import Session

__version__ = "0.1.0"
__all__ = ["Session"]

#: a public name -> its module
_MODULES = {
    "Session": "arzbench.session",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

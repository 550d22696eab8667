"""Wall-clock planning for reinforcement-learning trainings, on an ARZ traffic model.

Importing the package loads nothing else, so that a command starts at once; its names are looked up when
they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arzbench.wiring.learning import Outcome, learn

__version__ = "0.1.0"
__all__ = ["Outcome", "learn"]

_WHERE = {"learn": "arzbench.wiring.learning", "Outcome": "arzbench.wiring.learning"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'arzbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)

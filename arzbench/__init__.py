"""Wall-clock planning for reinforcement-learning trainings, on an ARZ traffic model.

Importing the package loads nothing else, so that a command starts at once; public names load what they need.
"""

__version__ = "0.1.0"
__all__ = ["BudgetCallback", "Outcome", "Session", "learn"]

#: names of the Python API -> the modules that have them, loaded when they are first asked for
_MODULES = {
    "BudgetCallback": "arzbench.sb3.budget_callback",
    "Outcome": "arzbench.wiring.tasks",
    "Session": "arzbench.session",
    "learn": "arzbench.wiring.learning",
}

TYPE_CHECKING = False  # as in `typing`, which would have to be loaded
if TYPE_CHECKING:
    from arzbench.sb3.budget_callback import BudgetCallback
    from arzbench.session import Session
    from arzbench.wiring.learning import learn
    from arzbench.wiring.tasks import Outcome
else:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import random
        from importlib import import_module

        drawn = random.getstate()  # seeded by the script, and rich draws from it when it is imported
        try:
            return getattr(import_module(_MODULES[name]), name)
        finally:
            random.setstate(drawn)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])

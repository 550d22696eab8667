"""Methods of live objects that are replaced for as long as a training runs, and put back after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ABSENT = object()


def attach(owner: Any, name: str, method: Callable[..., Any]) -> None:
    """Let `owner` have `method`, a function made for it, in place of its own, until `detach`."""
    method.__dict__["in_place_of"] = vars(owner).get(name, _ABSENT)
    setattr(owner, name, method)


def detach(owner: Any) -> None:
    """Give `owner` the methods back that it had before any `attach`."""
    for name, value in list(vars(owner).items()):
        before = value
        while callable(before) and _is_ours(before):
            before = vars(before).get("in_place_of", _ABSENT)
        if before is _ABSENT:
            delattr(owner, name)
        elif before is not value:
            setattr(owner, name, before)


def _is_ours(function: Any) -> bool:
    module = getattr(function, "__module__", None)
    return hasattr(function, "__code__") and str(module).startswith("arzbench.sb3.")

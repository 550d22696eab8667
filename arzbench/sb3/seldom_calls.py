"""What the other callbacks of a `learn` do seldom, known beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

#: a callback that acts every so many calls names their number so
FREQUENCIES = ("eval_freq", "save_freq")


class SeldomCalls:
    """The other callbacks of a `learn` that act every so many calls, such as EvalCallback."""

    def __init__(self, root: Any, own: Any) -> None:
        """`root` is what `learn` calls at each step, `own` the callback that asks, somewhere in it."""
        flat = list(_flat(root))
        at = flat.index(own) if own in flat else -1
        self._seldom = [
            (callback, type(callback).__name__, getattr(callback, name), at < place)
            for place, callback in enumerate(flat)
            for name in FREQUENCIES
            if isinstance(getattr(callback, name, None), int) and getattr(callback, name) > 0
        ]

    def ahead(self) -> tuple[tuple[str, ...], tuple[str, ...], float]:
        """Which act before the next step is over; which also when that step ends the training; free steps.

        Those that are called after the asking one act even where it has just ended the training.
        """
        due: list[str] = []
        forced: list[str] = []
        free = math.inf
        for callback, name, frequency, after in self._seldom:
            calls = frequency - callback.n_calls % frequency  # until it acts
            if calls == 1:
                due.append(name)
            elif calls == 2 and after:
                forced.append(name)
            # every step may be one that acts
            free = min(free, max(0, calls - 2 - after))
        return tuple(due), tuple(forced), free

    def counts(self, steps: float) -> dict[str, int]:
        """How often each acts in so many steps."""
        found: dict[str, int] = {}
        for callback, name, frequency, _ in self._seldom:
            times = math.floor((callback.n_calls % frequency + steps) / frequency)
            found[name] = found.get(name, 0) + times
        return found


def _flat(callback: Any) -> Iterator[Any]:
    """A callback and those it calls at each step, in their order."""
    yield callback
    for child in getattr(callback, "callbacks", ()):
        yield from _flat(child)

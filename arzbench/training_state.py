"""A training at a consistent point, as arrays and plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

#: how exactly the envs of a saved state come back, and what that means
TIERS = {
    "exact": "the envs come back as they were",
    "replay": "open episodes are played again from the state at their last reset, and all of it is checked",
    "unproven": "inexact: what can be seen of envs and model came back as it was, and not all can be seen",
    "reset": "inexact: the envs start new episodes",
}


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a ring buffer, numbered in the order they were written; a row once written stays as it is.

    Row r is at index (r - `origin`) modulo the length that all `arrays` have. `total` rows were ever
    written; the last ones are there, from `first` on.
    """

    arrays: Mapping[str, np.ndarray[Any, Any]]
    total: int
    origin: int = 0

    @property
    def length(self) -> int:
        """Rows there is room for."""
        return min((len(array) for array in self.arrays.values()), default=0)

    @property
    def first(self) -> int:
        """The oldest row that is there."""
        return max(self.origin, self.total - self.length)

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray[Any, Any]]:
        """Rows `start` to `stop` in order, `first <= start <= stop <= total`; a view where they lie so."""
        at = (start - self.origin) % self.length if self.length else 0
        end = at + stop - start
        if end <= self.length:
            return {name: array[at:end] for name, array in self.arrays.items()}
        return {n: np.concatenate((a[at:], a[: end - self.length])) for n, a in self.arrays.items()}


class TrainingState(msgspec.Struct, frozen=True, kw_only=True):
    """A training at a consistent point.

    `arrays` are numeric NumPy arrays of any shape; `values` is JSON: None, bool, int, finite float,
    str, lists and dicts with string keys. `ring` is the replay buffer, where there is one. Both are live
    memory: to be saved or copied before the training goes on. `tier` says how exactly the envs come back,
    see `TIERS`.
    """

    arrays: Mapping[str, np.ndarray[Any, Any]]
    values: Mapping[str, Any]
    tier: str
    ring: Ring | None = None

"""What the units of a loop take, learned as they go by: the next one at most, and all that are left."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable

from arzbench.predict.remaining import UNIT_SIGMA
from arzbench.predict.spread import HOST_SIGMA
from arzbench.records import Estimate

#: durations that are kept
RECENT = 100
#: as long as fewer were seen the next may take so many times the longest, later so many times
FEW, FEW_FACTOR, FACTOR = 5, 2.0, 1.25
#: and so many standard deviations above the mean
SIGMAS = 4.0
#: and so many times the longest, as far as that costs no more than so many seconds or this share of the quota
SURPRISE, SURPRISE_S, SURPRISE_SHARE = 3.0, 1.0, 0.02


class UnitTimes:
    """The newest `RECENT` durations, in seconds; the first of each session apart: it often is longer."""

    def __init__(
        self, first: Iterable[float] = (), later: Iterable[float] = (), *, quota_s: float | None = None
    ) -> None:
        """`first` and `later` were seen in earlier sessions."""
        self.first = deque(first, RECENT)
        self.later = deque(later, RECENT)
        self._begun = False
        self._cap_s = max(SURPRISE_S, SURPRISE_SHARE * (quota_s or 0.0))

    def add(self, seconds: float) -> None:
        """One more took `seconds`."""
        (self.later if self._begun else self.first).append(seconds)
        self._begun = True

    def _known(self) -> list[float]:
        """Those that the next is likely to be like."""
        alone = self._begun and len(self.later) >= FEW
        return [*self.later] if alone else [*self.first, *self.later]

    @property
    def longest_s(self) -> float | None:
        """The longest that the next is likely to be like; None before any."""
        return max(self._known(), default=None)

    def allow_s(self) -> float | None:
        """What the next may take; None before any.

        A delay met once counts as far as a surprise may cost beyond the second longest.
        """
        known = sorted(self._known())
        if not known:
            return None
        if len(known) < FEW:
            longest, likely = known[-1], FEW_FACTOR * known[-1]
        else:
            longest = known[-1] = min(known[-1], known[-2] + self._cap_s)
            likely = max(FACTOR * longest, _mean(known) + SIGMAS * math.sqrt(_variance(known)))
        return max(likely, min(SURPRISE * longest, longest + self._cap_s))

    def mean_s(self) -> float | None:
        """What one takes on average; None before any."""
        known = self.later or self.first
        return _mean(known) if known else None

    def remaining(self, units: int) -> Estimate | None:
        """What `units` more take; None before any was measured.

        The interval holds how far units differ, how well their mean is known, and how far a machine's
        speed changes from one hour to another.
        """
        known = self.later or self.first
        mean = self.mean_s()
        if mean is None:
            return None
        if units <= 0 or mean <= 0:
            return Estimate(p50_s=0.0, p90_s=0.0, p99_s=0.0)
        seen = len(known)
        if seen == 1:
            relative = UNIT_SIGMA**2
        else:
            each = _variance(known) / mean**2 * (seen + 1) / (seen - 1)  # few say little
            relative = each * (1 / units + 1 / seen)
        sigma = math.sqrt(relative + HOST_SIGMA**2)
        left = units * mean
        return Estimate(
            p50_s=left, p90_s=left * math.exp(1.2816 * sigma), p99_s=left * math.exp(2.3263 * sigma)
        )


def _mean(values: Collection[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Collection[float]) -> float:
    """As `statistics.variance`, which takes as long as a short unit."""
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)

"""What is left of a training, by what it showed of itself so far: no calibration, no model of costs.

Each kind of work has a pace, seconds per unit. It is kept in blocks of at least `BLOCK_S`, and how far the
paces of blocks lie apart tells how far the mean of those to come may lie from the mean of those that were:

    variance of the logarithm = s^2 (1 / blocks seen + 1 / blocks to come) + MOMENT_SIGMA^2

s^2 is the variance of the blocks' logarithms, together with a prior that counts as `PRIOR_BLOCKS` blocks and
has the spread of identical trainings. Blocks grow while the training goes on, so that a machine whose good
and bad hours alternate shows as wide a spread as it has. The last term is what no block can tell: that the
machine is slower from now on. Kinds are summed as independent, and the sum is taken as log-normal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from arzbench.predict.remaining import MOMENT_SHARE
from arzbench.records import Estimate

#: seconds of a block at first; when there are so many, each two become one
BLOCK_S, MOST_BLOCKS = 0.5, 64
#: standard deviation of the logarithm between identical trainings (see `predict.spread`), and its weight
PRIOR_SIGMA, PRIOR_BLOCKS = 0.10, 2
#: what is left may go faster or slower than all that was seen
MOMENT_SIGMA = MOMENT_SHARE * PRIOR_SIGMA


class Pace:
    """Seconds per unit of one kind of work, and how much they vary."""

    def __init__(self, prior_sigma: float = PRIOR_SIGMA) -> None:
        """`prior_sigma`: how far a block's pace usually lies from another's, before there are several."""
        self._prior = PRIOR_BLOCKS * prior_sigma**2
        self._blocks: list[tuple[float, float]] = []
        self._least_s = BLOCK_S
        self._seconds = self._units = 0.0  # of the block that is open
        self._all_seconds = self._all_units = 0.0

    @property
    def known(self) -> bool:
        """Whether any unit was seen."""
        return self._all_units > 0

    @property
    def seconds(self) -> float:
        """How long units were seen, all together."""
        return self._all_seconds

    @property
    def mean_s(self) -> float:
        """Seconds per unit, 0 as long as none was seen."""
        return self._all_seconds / self._all_units if self._all_units else 0.0

    def add(self, seconds: float, units: float) -> None:
        """`units` took `seconds`."""
        self._all_seconds += seconds
        self._all_units += units
        self._seconds += seconds
        self._units += units
        if self._seconds < self._least_s:
            return
        self._blocks.append((self._seconds, self._units))
        self._seconds = self._units = 0.0
        if len(self._blocks) >= MOST_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [(s + t, n + m) for (s, n), (t, m) in pairs]
            self._least_s *= 2

    def variance(self, left_s: float) -> float:
        """Of the logarithm of (actual / predicted) seconds, for work that is predicted to take `left_s`."""
        logs = [math.log(seconds / units) for seconds, units in self._blocks if units]
        seen = max(1, len(logs))
        mean = sum(logs) / seen
        squares = sum((x - mean) ** 2 for x in logs)
        between = (self._prior + squares) / (PRIOR_BLOCKS + seen - 1)
        block_s = max(self._least_s, self._all_seconds / seen)
        return between * (1 / seen + 1 / max(1.0, left_s / block_s))


def left(parts: Iterable[tuple[Pace, float]]) -> Estimate:
    """What `units` of each pace still take together."""
    total = variance = 0.0
    for pace, units in parts:
        seconds = pace.mean_s * units
        total += seconds
        variance += seconds**2 * pace.variance(seconds)
    if total <= 0:
        return Estimate(p50_s=0.0, p90_s=0.0, p99_s=0.0)
    sigma = math.sqrt(variance / total**2 + MOMENT_SIGMA**2)
    p90_s, p99_s = (total * math.exp(z * sigma) for z in (1.2816, 2.3263))
    return Estimate(p50_s=total, p90_s=p90_s, p99_s=p99_s)

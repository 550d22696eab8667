"""Counters of a log as series: which of them counts env steps, what a step costs, where it restarts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from arzbench.logs.events import Counter

T = TypeVar("T")

#: values kept of a series; of a longer one every second, fourth, ... value
MAX_KEPT = 4096
#: counters in a log, and stretches of one, that are told apart
MAX_SERIES = 200
MAX_STRETCHES = 500
#: counters of something larger than a step
_LARGER = ("epoch", "iter", "episode", "bar")


class Thinned(Generic[T]):
    """A sample of a stream, evenly spaced, of bounded size."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        self.values: list[T] = []
        self.count = 0
        self._most = most
        self._stride = 1

    def add(self, value: T) -> None:
        """Take the next value of the stream."""
        if self.count % self._stride == 0:
            self.values.append(value)
            if len(self.values) >= self._most:
                del self.values[1::2]
                self._stride *= 2
        self.count += 1


@dataclass(slots=True, frozen=True)
class Point:
    """A counter's value, and when and where it was logged."""

    value: int
    time: float | None
    row: int
    offset: int
    sim_s: float | None


@dataclass(slots=True, frozen=True)
class Gap:
    """From one value to the next, per step."""

    seconds: float | None
    rows: float
    bytes: float
    sim_s: float | None


@dataclass(slots=True)
class Stretch:
    """A stretch in which the counter only grows."""

    first: Point
    last: Point
    n: int = 1
    ones: int = 0  # steps of one
    gaps: Thinned[Gap] = field(default_factory=Thinned)
    points: Thinned[Point] = field(default_factory=lambda: Thinned(1024))
    sim_restarts: int = 0  # how often simulated time began anew
    longest_sim_s: float = 0.0

    @property
    def steps(self) -> int:
        """Steps from the first to the last value."""
        return self.last.value - self.first.value

    @property
    def seconds(self) -> float | None:
        """Wall time from the first to the last value."""
        if self.first.time is None or self.last.time is None:
            return None
        return self.last.time - self.first.time

    def add(self, point: Point) -> None:
        """Take the next, larger value."""
        ahead = point.value - self.last.value
        self.ones += ahead == 1
        seconds = None
        if point.time is not None and self.last.time is not None:
            seconds = (point.time - self.last.time) / ahead
        sim = None
        if point.sim_s is not None and self.last.sim_s is not None:
            if point.sim_s > self.last.sim_s:
                sim = (point.sim_s - self.last.sim_s) / ahead
            else:
                self.sim_restarts += 1
        self.longest_sim_s = max(self.longest_sim_s, point.sim_s or 0.0)
        rows, size = point.row - self.last.row, point.offset - self.last.offset
        self.gaps.add(Gap(seconds, rows / ahead, size / ahead, sim))
        self.points.add(point)
        self.last = point
        self.n += 1


@dataclass(slots=True)
class Series:
    """One counter of the log."""

    name: str
    word: str
    total: int | None = None
    stretches: list[Stretch] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Values seen."""
        return sum(s.n for s in self.stretches)

    @property
    def by_ones(self) -> bool:
        """Whether most steps are by one."""
        inside = sum(s.n - 1 for s in self.stretches)
        return inside > 0 and sum(s.ones for s in self.stretches) >= 0.7 * inside

    @property
    def has_sim(self) -> bool:
        """Whether its messages carry simulated time."""
        return any(s.first.sim_s is not None for s in self.stretches)

    def add(self, counter: Counter, time: float | None, row: int, offset: int) -> None:
        """Take the next value in the log."""
        point = Point(counter.value, time, row, offset, counter.sim_s)
        self.total = counter.total or self.total
        last = self.stretches[-1] if self.stretches else None
        if last is not None and counter.value == last.last.value:
            return
        if last is None or (counter.value < last.last.value and len(self.stretches) < MAX_STRETCHES):
            new = Stretch(point, point, longest_sim_s=point.sim_s or 0.0)
            new.points.add(point)
            self.stretches.append(new)
        elif counter.value > last.last.value:
            last.add(point)

    def gaps(self) -> list[Gap]:
        """Return the gaps between values, over all stretches."""
        return [gap for s in self.stretches for gap in s.gaps.values]


class Counters:
    """All counters of a log."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}

    def add(self, counter: Counter, time: float | None, row: int, offset: int) -> None:
        """Take one value."""
        series = self.series.get(counter.name)
        if series is None:
            if len(self.series) >= MAX_SERIES:
                return
            series = self.series[counter.name] = Series(counter.name, counter.word)
        series.add(counter, time, row, offset)

    def env_steps(self) -> Series | None:
        """Return the counter of env steps: it grows by one, and most often beside simulated time."""
        fit = [s for s in self.series.values() if any(g.n > 1 for g in s.stretches)]
        if not fit:
            return None
        return max(fit, key=_likeness)


def _likeness(series: Series) -> tuple[bool, bool, bool, bool, int]:
    step = not series.word.startswith(_LARGER)
    return step and series.by_ones, step, series.has_sim, "timestep" in series.word, series.n


def typical(values: Iterable[float | None], resolution_s: float = 0.0) -> float | None:
    """Return the median, or the mean where the clock is too coarse for one; None has no say."""
    present = [v for v in values if v is not None]
    if not present:
        return None
    middle = statistics.median(present)
    return statistics.fmean(present) if resolution_s > 0.05 * middle else middle

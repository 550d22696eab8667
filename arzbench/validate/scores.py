"""What the raw figures of a validation say: errors, the machine's own floor, coverage, criteria.

An error is predicted / actual - 1: below zero the run took longer than was said. Errors, floor and
coverage are of runs without a quota: one that is stopped tells only that it takes longer.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence

import msgspec

from arzbench.validate.result import Cell, Outcome, Validation

#: central intervals: probability -> its two quantiles
INTERVALS = {0.5: ("0.25", "0.75"), 0.9: ("0.05", "0.95"), 0.95: ("0.025", "0.975"), 0.99: ("0.005", "0.995")}
#: every quantile that is kept of a prediction: also the one that such a share of the runs stays under
QUANTILES = sorted({*map(str, INTERVALS), *(q for pair in INTERVALS.values() for q in pair)}, key=float)
MARKS = (0.05, 0.10, 0.25)
ALONE_MOST, BESIDE_MOST, FLOOR_FACTOR = 0.10, 0.15, 1.25
COVERED = (0.88, 1.0)
AT_10_MOST, AT_25_MOST = 0.08, 0.05
CALIBRATION_MOST_S = 60.0


class Criterion(msgspec.Struct, frozen=True, kw_only=True):
    """One condition; `passed` is None where nothing was measured that could tell."""

    text: str
    found: str
    passed: bool | None


def error(run: Outcome, predicted_s: float) -> float:
    """Signed error of a prediction of the wall time."""
    return predicted_s / run.wall_s - 1


def own_error(run: Outcome) -> float:
    """Signed error of the planned P50."""
    return error(run, run.quantiles["0.5"])


def price_error(run: Outcome) -> float:
    """Signed error of prices and counts alone, without what earlier runs taught."""
    return error(run, run.quantiles["0.5"] / math.exp(run.log_centre))


def naive_error(run: Outcome, cell: Cell) -> float:
    """Of seconds per step of the first 100 steps times all steps."""
    return error(run, cell.first_100_s / 100 * cell.timesteps)


def fps_error(run: Outcome, cell: Cell) -> float | None:
    """Of all steps over the library's own speed in a trial; None where it logged none."""
    return error(run, cell.timesteps / cell.own_fps) if cell.own_fps else None


def online_errors(run: Outcome, share: float) -> tuple[float, float] | None:
    """(ours, a progress bar's) at a mark; None where it was not reached in time to be told.

    The bar's is elapsed / share of the steps since the training began, after the start-up that there was.
    """
    mark = next((m for m in run.marks if m.share == share), None)
    if mark is None or not run.finished:
        return None
    bar_s = mark.elapsed_s - mark.learning_s + mark.learning_s / mark.done
    return error(run, mark.elapsed_s + mark.left_p50_s), error(run, bar_s)


def median_size(values: Iterable[float]) -> float | None:
    """Median of absolute values, None of none."""
    sizes = [abs(v) for v in values]
    return statistics.median(sizes) if sizes else None


def repeats(runs: Sequence[Outcome]) -> list[float]:
    """Relative differences of all two finished runs of the same training under the same conditions."""
    return [
        abs(one.wall_s - other.wall_s) / ((one.wall_s + other.wall_s) / 2)
        for one, other in itertools.combinations([r for r in runs if r.finished], 2)
        if (one.pair, one.beside) == (other.pair, other.beside)
    ]


def floor(runs: Sequence[Outcome]) -> float | None:
    """The machine's own: median relative difference of two runs of the same training."""
    return median_size(repeats(runs))


def cell_of(validation: Validation, run: Outcome) -> Cell:
    """The calibration that predicted `run`."""
    return next(c for c in validation.cells if (c.pair, c.beside) == (run.pair, run.beside))


def below(runs: Sequence[Outcome], quantile: str) -> float | None:
    """The share of runs that ended within a predicted quantile."""
    hits = [r.finished and r.wall_s <= r.quantiles[quantile] for r in runs]
    return statistics.fmean(hits) if hits else None


def covered(runs: Sequence[Outcome], level: float) -> float | None:
    """The share of runs within the central interval of a probability."""
    low, high = INTERVALS[level]
    hits = [r.finished and r.quantiles[low] <= r.wall_s <= r.quantiles[high] for r in runs]
    return statistics.fmean(hits) if hits else None


def half_width(runs: Sequence[Outcome], level: float) -> float | None:
    """Median half-width of the central interval, relative to the P50."""
    low, high = INTERVALS[level]
    return median_size((r.quantiles[high] - r.quantiles[low]) / 2 / r.quantiles["0.5"] for r in runs)


def overruns(runs: Sequence[Outcome]) -> list[Outcome]:
    """Runs whose process ended after its quota."""
    return [r for r in runs if r.quota_s is not None and r.wall_s > r.quota_s]


def online(runs: Sequence[Outcome], share: float) -> tuple[float | None, float | None, int]:
    """(median size of our errors, of a progress bar's, runs) at a mark."""
    found = [e for r in runs if (e := online_errors(r, share)) is not None]
    return median_size(e[0] for e in found), median_size(e[1] for e in found), len(found)


def unlimited(validation: Validation) -> list[Outcome]:
    """Runs without a quota: they took as long as they take. Which have one is settled before any has run."""
    return [r for r in validation.runs if r.quota_s is None]


def by_record(validation: Validation) -> dict[str, list[Outcome]]:
    """Runs by how often their calibration had been tried when they were predicted."""
    first = [r for r in unlimited(validation) if r.repetition == 0]
    later = [r for r in unlimited(validation) if r.repetition > 0]
    return {name: runs for name, runs in (("first runs", first), ("later runs", later)) if runs}


def split(validation: Validation) -> dict[str, list[Outcome]]:
    """Runs alone and beside a busy process; conditions without runs are left out."""
    kinds = {"alone": False, "beside a busy process": True}
    found = {name: [r for r in unlimited(validation) if r.beside == b] for name, b in kinds.items()}
    return {name: runs for name, runs in found.items() if runs}


def criteria(validation: Validation) -> list[Criterion]:
    """Every condition of a prediction one can bet on."""
    runs = unlimited(validation)
    found = _error_criteria(validation)
    for what, share in (("P95 interval", covered(runs, 0.95)), ("P95", below(runs, "0.95"))):
        text = f"{what} covers 88 to 100 % of the runs"
        found.append(_between(text, share, *COVERED))
    booked = [r for r in validation.runs if r.quota_s is not None]
    late = overruns(booked)
    found.append(
        Criterion(
            text="no run ends after a quota set at its planned P95",
            found=f"{len(late)} of {len(booked)}" if booked else "not measured",
            passed=not late if booked else None,
        )
    )
    for share, most in ((0.10, AT_10_MOST), (0.25, AT_25_MOST)):
        text = f"at {share:.0%} of a run the median error of its predicted end is at most {most:.0%}"
        found.append(_between(text, online(validation.runs, share)[0], 0.0, most))
    found.append(_beats(validation))
    longest = max((c.calibration_s for c in validation.cells), default=None)
    found.append(
        Criterion(
            text="a calibration takes at most 60 s",
            found="not measured" if longest is None else f"{longest:.1f} s",
            passed=None if longest is None else longest <= CALIBRATION_MOST_S,
        )
    )
    return found


def _between(text: str, value: float | None, least: float, most: float) -> Criterion:
    if value is None:
        return Criterion(text=text, found="not measured", passed=None)
    return Criterion(text=text, found=f"{value:.1%}", passed=least <= value <= most)


def _error_criteria(validation: Validation) -> list[Criterion]:
    found = []
    for name, runs in split(validation).items():
        size = median_size(map(own_error, runs))
        most = BESIDE_MOST if runs[0].beside else ALONE_MOST
        text = f"{name}: the median error is at most {most:.0%}"
        found.append(_between(text, size, 0.0, most))
    runs = unlimited(validation)
    size, own_floor = median_size(map(own_error, runs)), floor(runs)
    text = "the median error is at most 1.25 times the machine's own floor"
    if size is None or own_floor is None:
        return [*found, Criterion(text=text, found="not measured", passed=None)]
    comparison = f"{size:.1%} against 1.25 x {own_floor:.1%} = {FLOOR_FACTOR * own_floor:.1%}"
    return [*found, Criterion(text=text, found=comparison, passed=size <= FLOOR_FACTOR * own_floor)]


def _beats(validation: Validation) -> Criterion:
    """At 5 % of a run, on every pair: one that told nothing there is not beaten."""
    lost, seen, pairs = [], 0, len(validation.design.pairs)
    for pair in validation.design.pairs:
        ours, theirs, count = online([r for r in validation.runs if r.pair == pair.name], MARKS[0])
        if ours is not None and theirs is not None and count:
            seen += 1
            lost += [pair.name] if ours >= theirs else []
    return Criterion(
        text="at 5 % of a run its predicted end is nearer than a progress bar's, on every pair",
        found=f"{seen - len(lost)} of {pairs}{': not ' + ', '.join(lost) if lost else ''}",
        passed=False if lost else (True if seen == pairs > 0 else None),
    )

"""A validation as sheets: criteria, errors beside others' rules, coverage, online, every run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from arzbench.report.sheets import Sheet, host_line
from arzbench.units import format_duration
from arzbench.validate import scores
from arzbench.validate.result import Outcome, Validation

_WORDS = {True: "passed", False: "FAILED", None: "not measured"}


def validation_lines(validation: Validation) -> list[str]:
    """What stands above the tables."""
    design, runs = validation.design, validation.runs
    beside = sum(r.beside for r in runs)
    lengths = [r.wall_s for r in runs]
    lines = [
        f"host: {host_line(validation.host)}",
        f"began {validation.created}, took {format_duration(validation.took_s)}; seed {design.seed}",
        f"{len(runs)} runs of {len({r.pair for r in runs})} pairs, {len(runs) - beside} alone, "
        f"{beside} beside a busy process (calibrated and run beside it)",
    ]
    if lengths:
        lines.append(
            f"run lengths {format_duration(min(lengths))} to {format_duration(max(lengths))}, "
            f"evaluations and checkpoints on"
        )
    idle = "an idle machine" if validation.load <= 0.5 else "not an idle machine: the figures say little"
    lines.append(f"load before it began: {validation.load:.1f} ({idle})")
    if runs:
        first, last = runs[0].spread, runs[-1].spread
        later = "" if first == last else f"; at the end: {last}"
        lines.append(f"width of the intervals from: {first}{later}")
    return lines


def validation_sheets(validation: Validation) -> list[Sheet]:
    """The tables, from the verdict to every run."""
    return [
        _criteria_sheet(validation),
        _error_sheet(validation),
        _coverage_sheet(validation),
        _online_sheet(validation),
        _pair_sheet(validation),
        _phase_sheet(validation),
        _run_sheet(validation),
    ]


def _percent(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.1%}" if signed else f"{value:.1%}"


def _size_and_worst(errors: Sequence[float]) -> tuple[str, str]:
    return _percent(scores.median_size(errors)), _percent(max(errors, key=abs, default=None), signed=True)


def _criteria_sheet(validation: Validation) -> Sheet:
    criteria = scores.criteria(validation)
    return Sheet(
        title="what was to be shown",
        columns=("criterion", "found", ""),
        align="lll",
        rows=tuple((c.text, c.found, _WORDS[c.passed]) for c in criteria),
    )


def _error_sheet(validation: Validation) -> Sheet:
    rows = []
    groups = {
        **scores.split(validation), **scores.by_record(validation), "all": scores.unlimited(validation),
    }  # fmt: skip
    for name, runs in groups.items():
        cells = [scores.cell_of(validation, r) for r in runs]
        ours = [scores.own_error(r) for r in runs]
        naive = [scores.naive_error(r, c) for r, c in zip(runs, cells, strict=True)]
        fps = [e for r, c in zip(runs, cells, strict=True) if (e := scores.fps_error(r, c)) is not None]
        rows.append(
            (
                name,
                str(len(runs)),
                _percent(statistics.median(ours) if ours else None, signed=True),
                *_size_and_worst(ours),
                _percent(scores.median_size(map(scores.price_error, runs))),
                _percent(scores.floor(runs)),
                *_size_and_worst(naive),
                *_size_and_worst(fps),
            )
        )
    return Sheet(
        title="errors of the predicted P50, the machine's floor, and what others would have said",
        columns=(
            "", "runs", "median", "median size", "worst", "prices alone: size", "floor",
            "naive: size", "naive: worst", "fps: size", "fps: worst",
        ),
        align="lrrrrrrrrrr",
        rows=tuple(rows),
        notes=(
            "of runs without a quota; error: predicted / actual - 1 of the wall time of the whole process",
            "first runs: of a calibration not tried before; later runs know what those before them took",
            "prices alone: without what the host's record of finished runs says",
            "floor: median relative difference of two runs of the same training, same seed, same conditions",
            "naive: seconds of the library's learn(100) / 100 x total_timesteps",
            "fps: total_timesteps / the last time/fps that the library logged in 1,000 steps or two rollouts",
        ),
    )  # fmt: skip


def _coverage_sheet(validation: Validation) -> Sheet:
    runs = scores.unlimited(validation)
    rows = [
        (
            f"P{level:.0%}".rstrip("%"),
            _percent(scores.below(runs, str(level))),
            _percent(scores.covered(runs, level)),
            f"± {_percent(scores.half_width(runs, level))}",
        )
        for level in scores.INTERVALS
    ]
    booked = [r for r in validation.runs if r.quota_s is not None]
    late = scores.overruns(booked)
    stopped = [r for r in booked if not r.finished]
    slack = [r.quota_s - r.wall_s for r in booked if r.quota_s is not None]
    notes = [
        "of runs without a quota; runs below: at or below the quantile; within: in the central interval of "
        "that probability",
        f"quota at the planned P95: {len(booked)} runs, {len(late)} ended after it, {len(stopped)} were "
        "stopped and saved before their end",
    ]
    if slack:
        notes.append(f"least time left of a quota: {min(slack):.2f} s")
    return Sheet(
        title="do the intervals hold",
        columns=("", "runs below", "within", "median half-width"),
        align="lrrr",
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _online_sheet(validation: Validation) -> Sheet:
    rows = []
    for share in scores.MARKS:
        ours, theirs, count = scores.online(validation.runs, share)
        rows.append((f"{share:.0%}", str(count), _percent(ours), _percent(theirs)))
    return Sheet(
        title="errors of the end predicted while a run goes on",
        columns=("training steps done", "runs", "ours: median size", "progress bar: median size"),
        align="rrrr",
        rows=tuple(rows),
        notes=(
            "of the wall time of the whole; a progress bar says elapsed / share of the steps since the "
            "training began, here after the start-up that there was",
        ),
    )


def _pair_sheet(validation: Validation) -> Sheet:
    rows = []
    for cell in sorted(validation.cells, key=lambda c: (c.pair, c.beside)):
        runs = [r for r in validation.runs if (r.pair, r.beside) == (cell.pair, cell.beside)]
        free = [r for r in runs if r.quota_s is None]
        ours = [scores.own_error(r) for r in free]
        online = [scores.online(runs, share)[:2] for share in scores.MARKS[:2]]
        rows.append(
            (
                cell.pair,
                "beside" if cell.beside else "alone",
                f"{cell.timesteps:,}",
                format_duration(cell.calibration_s),
                f"{cell.drift:.0%}",
                str(len(runs)),
                _percent(statistics.median(ours) if ours else None, signed=True),
                _percent(scores.floor(free)),
                *(f"{_percent(a)} | {_percent(b)}" for a, b in online),
            )
        )
    return Sheet(
        title="pair by pair",
        columns=("pair", "", "steps", "calibration", "drift", "runs", "error", "floor",
                 "online 5 %", "online 10 %"),
        align="llrrrrrrrr",
        rows=tuple(rows),
        notes=("online: median size of our error | of a progress bar's",),
    )  # fmt: skip


def _phase_sheet(validation: Validation) -> Sheet:
    """Where the errors come from: predicted against actual, phase by phase."""
    runs = [r for r in validation.runs if r.finished]
    names = dict.fromkeys(p for r in runs for p in (*r.predicted_phases, *r.actual_phases))
    rows = []
    for name in names:
        predicted = sum(r.predicted_phases.get(name, 0.0) for r in runs)
        took = sum(r.actual_phases.get(name, 0.0) for r in runs)
        whole = sum(r.wall_s for r in runs)
        if max(predicted, took) < 0.002 * whole:
            continue
        off = f"{(predicted - took) / whole:+.1%}"
        rows.append((name, f"{took / whole:.1%}", f"{predicted / took:.2f}" if took else "-", off))
    return Sheet(
        title="where the errors come from",
        columns=("phase", "share of the time", "predicted / actual", "of the whole"),
        align="lrrr",
        rows=tuple(rows),
        notes=("finished runs, all pairs together; a run cannot time its own teardown",),
    )


def _run_sheet(validation: Validation) -> Sheet:
    return Sheet(
        title="every run, in the order they ran",
        columns=("pair", "", "", "predicted P50", "P95", "quota", "actual", "error", "ended"),
        align="llrrrrrrl",
        rows=tuple(_run_row(run) for run in validation.runs),
    )


def _run_row(run: Outcome) -> tuple[str, ...]:
    return (
        run.pair,
        "beside" if run.beside else "alone",
        str(run.repetition + 1),
        format_duration(run.quantiles["0.5"]),
        format_duration(run.quantiles["0.95"]),
        "-" if run.quota_s is None else format_duration(run.quota_s),
        format_duration(run.wall_s),
        ("" if run.finished else "at most ") + _percent(scores.own_error(run), signed=True),
        "finished" if run.finished else "stopped, saved",
    )

"""What `arzbench logs` shows of a report: sentences and tables."""

from __future__ import annotations

from collections.abc import Iterator

from arzbench.logs.cycle import Cycle
from arzbench.logs.findings import Flood, Forecast, LogReport
from arzbench.report.sheets import Sheet
from arzbench.units import format_bytes, format_duration

_TAGS = 15


def log_lines(report: LogReport) -> Iterator[str]:
    """The answer in sentences: what it is, how it ended, what it cost."""
    yield f"{report.file}: {report.format}, {format_bytes(report.bytes)}"
    counted = f"{report.messages:,} messages"
    if report.messages != report.lines:
        counted += f" in {report.lines:,} lines"
    if report.first_s is not None and report.last_s is not None:
        counted += f", from {report.first_s:,.1f} s to {report.last_s:,.1f} s"
    if report.lines_per_s is not None:
        counted += f", {report.lines_per_s:,.0f} lines/s"
    yield counted
    if report.unfinished is not None:
        yield f"after them a piece of a progress bar, cut off while it was drawn: {report.unfinished[:60]!r}"
    yield f"end: {report.end.text}"
    if report.ready_s is not None:
        yield f"dependencies ready at {report.ready_s:,.1f} s"
    yield from _step_lines(report)
    if report.cycle is not None:
        yield from _cycle_lines(report.cycle)
    if report.flood is not None:
        yield from _flood_lines(report.flood)
    if report.forecast is not None:
        yield _forecast_line(report.forecast)
    yield from (f"note: {note}" for note in report.notes)


def _step_lines(report: LogReport) -> Iterator[str]:
    steps = report.steps
    if steps is None:
        yield "no counter of steps was found (name one with --pattern)"
        return
    parts = [f"steps {steps.first:,} to {steps.last:,}, counted by {steps.counter!r}"]
    if steps.step_s is not None:
        parts.append(f"{steps.step_s:.2g} s per env step")
    if steps.lines is not None and steps.bytes is not None:
        parts.append(f"{steps.lines:,.0f} lines and {steps.bytes / 1e3:,.1f} kB per env step (median)")
    if steps.sim_s is not None:
        parts.append(f"{steps.sim_s:g} simulated s per step")
    yield ", ".join(parts)
    if steps.drift is not None and steps.drift_error is not None:
        sure = "" if abs(steps.drift) > steps.drift_error else ", within the noise"
        error = f"± {steps.drift_error:.1%}{sure}"
        yield f"drift of the step time, last third against first: {steps.drift:+.1%} ({error})"


def _cycle_lines(cycle: Cycle) -> Iterator[str]:
    place = f"step {cycle.step:,} at t = {cycle.sim_s:,.0f} s is step {cycle.position:,} of an episode"
    if cycle.training_alone:
        yield f"schedule: {place}; {', '.join(cycle.fits[:1])}"
    else:
        other = cycle.training_alone_sim_s
        where = (
            f": with episodes of {cycle.length:,} steps it would be at {other:,.0f} s"
            if other and cycle.length
            else ""
        )
        yield f"schedule: {place}. Pure training cannot explain that{where}"
        if cycle.fits:
            more = f"; so can {', '.join(cycle.fits[1:4])}" if len(cycle.fits) > 1 else ""
            more += f" and {cycle.n_fits - 4} others" if cycle.n_fits > 4 else ""
            yield f"schedule: training steps + evaluation episodes of {cycle.fits[0]} can{more}"
    basis = f"{cycle.n_fits} of {cycle.tried:,} tried, {cycle.places:,} place(s) compared"
    yield f"schedule: {cycle.sure} ({basis})"


def _flood_lines(flood: Flood) -> Iterator[str]:
    rate = f", {format_bytes(flood.bytes_per_s)}/s" if flood.bytes_per_s is not None else ""
    yield f"flood: {flood.share:.1%} of all lines are {', '.join(flood.tags)}{rate}"
    yield f"cost of the flood: {flood.how}"


def _forecast_line(forecast: Forecast) -> str:
    line = f"whole study: {format_duration(forecast.seconds)} ({forecast.how})"
    if forecast.quota_s is None or forecast.fits is None:
        return line
    verdict = "fits" if forecast.fits else "does not fit"
    return f"{line}: {verdict} {format_duration(forecast.quota_s)}"


def log_sheets(report: LogReport) -> Iterator[Sheet]:
    """The tables: tags, phases, steps, rates."""
    yield _tag_sheet(report)
    if report.phases:
        yield _phase_sheet(report)
    if report.steps is not None and report.steps.rows:
        yield Sheet(
            title="steps, simulated time, wall time",
            columns=("step", "simulated", "wall"),
            align="rrr",
            rows=tuple((f"{r.step:,}", _s(r.sim_s), _s(r.wall_s)) for r in report.steps.rows),
        )
    if report.rates:
        rows = ((_s(r.begin_s), _s(r.end_s), f"{r.lines_per_s:,.1f}", _each(r.step_s)) for r in report.rates)
        yield Sheet(
            title="rates over time",
            columns=("from", "to", "lines/s", "a step"),
            align="rrrr",
            rows=tuple(rows),
        )


def _tag_sheet(report: LogReport) -> Sheet:
    rows = [
        (
            t.tag,
            f"{t.lines:,}",
            f"{t.share:.1%}",
            "-" if t.per_step is None else f"{t.per_step:,.1f}",
            "-" if t.calls is None else f"{t.calls:,}",
            t.example[:60],
        )
        for t in report.tags[:_TAGS]
    ]
    left = len(report.tags) - _TAGS
    return Sheet(
        title="lines by tag",
        columns=("tag", "lines", "share", "per step", "calls", "example"),
        align="lrrrrl",
        rows=tuple(rows),
        notes=(f"and {left} more tags (all with --json)",) if left > 0 else (),
    )


def _phase_sheet(report: LogReport) -> Sheet:
    rows = [
        (
            p.kind,
            _s(p.begin_s),
            _s(p.end_s),
            f"{p.end_s - p.begin_s:,.1f} s",
            f"{p.steps:,}" if p.steps else "-",
            _s(p.steps_s),
            _each(p.first_step_s),
            _each(p.median_step_s),
        )
        for p in report.phases
    ]
    return Sheet(
        title="phases",
        columns=("phase", "from", "to", "took", "steps", "steps in", "first step", "a step"),
        align="lrrrrrrr",
        rows=tuple(rows),
        notes=tuple(f"{p.kind}: by {p.sure}" for p in report.phases if p.kind != "set-up"),
    )


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:,.1f} s"


def _each(seconds: float | None) -> str:
    if seconds is None or seconds >= 1:
        return _s(seconds)
    return format_duration(seconds) if seconds < 0.1 else f"{seconds:.2f} s"

"""Turns the bytes of a log into a `LogReport`."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from arzbench.logs.cycle import Cycle, infer
from arzbench.logs.findings import Flood, Forecast, LogContext, LogReport, RateRow, StepRow, Steps, TagCount
from arzbench.logs.formats import Format, Json, Stamps, compile_pattern, detect
from arzbench.logs.scan import Message, Scanner
from arzbench.logs.source import Source
from arzbench.logs.steps import Counters, Gap, Series, Stretch, typical
from arzbench.logs.timeline import Timeline, find_end, find_phases

#: where Kaggle ends a session (its documentation, Notebooks, Technical specifications)
KAGGLE_LIMITS = (("the 12-h limit", 43_200.0), ("the 9-h limit of TPU sessions", 32_400.0))
_WINDOWS = 10
_TABLE_ROWS = 12
#: a tag is a flood from this share of all lines on, where lines come at this rate [1/s]
FLOOD_SHARE = 0.2
FLOOD_RATE = 200.0
_UNNAMED = ("(empty)", "(untagged)", "(progress bar)", "(table)", "(other)")


class Analysis:
    """Takes blocks of whole lines; can be asked for its results at any time."""

    def __init__(self, context: LogContext, kind: Format | None = None, stamps: Stamps | None = None) -> None:
        """Read a log of `kind` (None: detected from its start); `stamps` reads the times of its lines."""
        self.context = context
        self._pattern = compile_pattern(context.pattern) if context.pattern is not None else None
        self.kind = Format.PATTERN if self._pattern is not None else kind
        self.least_resolution_s = 0.0
        self.counters = Counters()
        self.timeline = Timeline()
        self.episode_steps: int | None = None
        self.total_steps: int | None = None
        self.scanner = Scanner(False)
        self._begun = False
        self._stamps = stamps
        self._json: Json | None = None

    def feed(self, block: bytes) -> None:
        """Take whole lines (of JSON: any piece)."""
        if not self._begun:
            self._begin(block)
        if self._json is not None:
            block = self._json.convert(block)
        for message in self.scanner.feed(block):
            self._take(message)

    def _begin(self, block: bytes) -> None:
        """Choose the format by the first block."""
        self._begun = True
        self.kind = self.kind or detect(block)
        if self.kind in (Format.KAGGLE, Format.JSONL):
            self._json = Json(self.kind)
        numbered = self.kind in (Format.TAIL, Format.KAGGLE, Format.JSONL)
        self.scanner = Scanner(numbered, self._pattern, self._stamps or Stamps(self._pattern))
        self.scanner.resolution_s = self.least_resolution_s

    def _take(self, message: Message) -> None:
        facts = message.facts
        self.timeline.add(message)
        self.episode_steps = facts.episode_steps or self.episode_steps
        self.total_steps = facts.total_steps or self.total_steps
        for counter in facts.counters:
            self.counters.add(counter, message.time, message.row, message.offset)

    def loud_tags(self) -> list[tuple[str, int]]:
        """Return (tag, lines) of the tags with a flood's share of all lines, most lines first."""
        least = FLOOD_SHARE * self.scanner.lines
        loud = [(n, t.lines) for n, t in self.scanner.tags.items() if n not in _UNNAMED and t.lines > least]
        return sorted(loud, key=lambda item: -item[1])

    def pace(self) -> tuple[int, float, int | None] | None:
        """Return (current step, seconds a step, steps in all); None where nothing counts steps."""
        series = self.counters.env_steps()
        step_s = _step_s(series, self.scanner.resolution_s) if series is not None else None
        if series is None or step_s is None:
            return None
        total = self.context.total_steps or series.total or self.total_steps
        return series.stretches[-1].last.value, step_s, total

    def report(self, file: str, size: int, notes: Sequence[str] = ()) -> LogReport:
        """Report on the log so far; `size` is that of the file in bytes."""
        scanner, context, json = self.scanner, self.context, self._json
        if json is not None:
            json.finish()
        series = self.counters.env_steps()
        steps = self._steps(series)
        first, last = scanner.first_time, scanner.last_time
        seconds = last - first if first is not None and last is not None and last > first else None
        phases = find_phases(self.timeline, series, first, last, scanner.resolution_s)
        trained = [p for p in phases if p.kind != "set-up"]
        all_notes = list(notes)
        if scanner.unnumbered and self.kind is Format.TAIL:
            all_notes.append(f"{scanner.unnumbered:,} lines have no time and number of their own")
        if json is not None and json.damaged:
            all_notes.append(f"{json.damaged:,} places in the JSON could not be read")
        return LogReport(
            file=file,
            format=(self.kind or Format.PLAIN).value,
            bytes=size,
            lines=scanner.lines,
            messages=scanner.lines - scanner.unnumbered,
            unfinished=scanner.unfinished,
            first_s=first,
            last_s=last,
            lines_per_s=scanner.lines / seconds if seconds else None,
            ready_s=self.timeline.ready(trained[0].begin_s if trained else math.inf),
            tags=tuple(self._tags(steps)),
            steps=steps,
            phases=tuple(phases),
            rates=tuple(self._rates(series)),
            cycle=self._cycle(series),
            flood=self._flood(series, steps, seconds),
            forecast=self._forecast(series, steps),
            end=find_end(
                self.timeline,
                limits=(
                    *(KAGGLE_LIMITS if self.kind in (Format.TAIL, Format.KAGGLE) else ()),
                    *context.limits,
                ),
                last_s=last,
                rows=scanner.rows,
                unfinished=scanner.unfinished,
                closed=json.closed if json is not None and self.kind is Format.KAGGLE else None,
            ),
            notes=tuple(all_notes),
        )

    def _tags(self, steps: Steps | None) -> Iterator[TagCount]:
        lines_a_step = steps.lines if steps is not None else None
        for name, tag in sorted(self.scanner.tags.items(), key=lambda item: -item[1].lines):
            share = tag.lines / max(1, self.scanner.lines)
            yield TagCount(
                tag=name,
                lines=tag.lines,
                share=share,
                bytes=tag.bytes,
                per_step=share * lines_a_step if lines_a_step else None,
                calls=tag.calls or None,
                example=tag.example,
            )

    def _steps(self, series: Series | None) -> Steps | None:
        if series is None:
            return None
        gaps = series.gaps()
        resolution = self.scanner.resolution_s
        drift, error = _drift(max(series.stretches, key=lambda s: s.n))
        return Steps(
            counter=series.name,
            first=series.stretches[0].first.value,
            last=series.stretches[-1].last.value,
            seen=series.n,
            unit=series.by_ones,
            step_s=_step_s(series, resolution),
            lines=typical(g.rows for g in gaps),
            bytes=typical(g.bytes for g in gaps),
            sim_s=typical(g.sim_s for g in gaps),
            drift=drift,
            drift_error=error,
            rows=tuple(_table(series)),
        )

    def _rates(self, series: Series | None) -> Iterator[RateRow]:
        course = self.scanner.course
        if len(course) < 3 or course[-1][0] <= course[0][0]:
            return
        times = np.array([c[0] for c in course])
        lines = np.array([c[1] for c in course], float)
        edges = np.linspace(times[0], times[-1], min(_WINDOWS, len(course) - 1) + 1)
        at = np.interp(edges, times, lines)
        spans = _spans(series)
        for i, (begin, end) in enumerate(itertools.pairwise(edges.tolist())):
            inside = [(t, n) for middle, t, n in spans if begin <= middle < end]
            steps = sum(n for _, n in inside)
            yield RateRow(
                begin_s=begin,
                end_s=end,
                lines_per_s=float(at[i + 1] - at[i]) / (end - begin),
                step_s=sum(t for t, _ in inside) / steps if steps else None,
            )

    def _cycle(self, series: Series | None) -> Cycle | None:
        context = self.context
        if series is None or not series.has_sim:
            return None
        stretch = max(series.stretches, key=lambda s: s.n)
        step_sim = typical(g.sim_s for g in stretch.gaps.values)
        if step_sim is None:
            return None
        observed = [(p.value, p.sim_s) for p in stretch.points.values if p.sim_s is not None]
        seen = round(stretch.longest_sim_s / step_sim) if stretch.sim_restarts else None
        return infer(
            observed,
            step_sim,
            stretch.longest_sim_s,
            length=context.episode_steps or seen or self.episode_steps,
            train=context.eval_freq,
            episodes=context.eval_episodes,
        )

    def _flood(self, series: Series | None, steps: Steps | None, seconds: float | None) -> Flood | None:
        scanner, loud = self.scanner, self.loud_tags()
        rate = scanner.lines / seconds if seconds else None
        if not loud or (rate is not None and rate < FLOOD_RATE) or scanner.lines < 1000:
            return None
        at_most, how = _cost(series.gaps() if series is not None else [])
        return Flood(
            tags=tuple(name for name, _ in loud),
            share=sum(lines for _, lines in loud) / scanner.lines,
            lines_per_step=steps.lines if steps is not None else None,
            bytes_per_s=scanner.size / seconds if seconds else None,
            at_most=at_most,
            how=how,
        )

    def _forecast(self, series: Series | None, steps: Steps | None) -> Forecast | None:
        total, how = self.context.total_steps, "--total-steps"
        if total is None and series is not None:
            total, how = series.total or self.total_steps, "the total the log itself names"
        return forecast(steps, total, self.context.quota_s, how) if total else None


def forecast(steps: Steps | None, total: int, quota_s: float | None, how: str) -> Forecast | None:
    """Price `total` env steps at the pace of `steps`; `how` says where the total is from."""
    if steps is None or steps.step_s is None:
        return None
    seconds = total * steps.step_s
    return Forecast(
        total_steps=total,
        step_s=steps.step_s,
        seconds=seconds,
        quota_s=quota_s,
        fits=None if quota_s is None else seconds <= quota_s,
        how=f"{steps.step_s:.3g} s a step, as here, times {total:,} steps ({how}); set-up is not in it",
    )


def _spans(series: Series | None) -> list[tuple[float, float, int]]:
    """Return (middle, seconds, steps) from each value of the counter to the next."""
    pairs = [
        (a.time, b.time, b.value - a.value)
        for stretch in (series.stretches if series is not None else ())
        for a, b in itertools.pairwise(stretch.points.values)
    ]
    return [((a + b) / 2, b - a, n) for a, b, n in pairs if a is not None and b is not None]


def _step_s(series: Series, resolution_s: float) -> float | None:
    """Return the median seconds a step, or the mean over the whole where the clock is too coarse."""
    middle = typical(g.seconds for g in series.gaps())
    if middle is None or (middle > 0 and resolution_s <= 0.05 * middle):
        return middle
    spans = [(s.seconds, s.steps) for s in series.stretches if s.seconds is not None]
    steps = sum(n for _, n in spans)
    return sum(t for t, _ in spans) / steps if steps else None


def _drift(stretch: Stretch) -> tuple[float | None, float | None]:
    """Return how much slower the last third's steps are than the first third's, and its error (95 %)."""
    values = [g.seconds for g in stretch.gaps.values if g.seconds is not None]
    third = len(values) // 3
    if third < 3:
        return None, None
    early, late = values[:third], values[-third:]
    base = statistics.fmean(early)
    if base <= 0:
        return None, None
    error = math.sqrt((statistics.variance(early) + statistics.variance(late)) / third) / base
    return statistics.fmean(late) / base - 1, 1.96 * error


def _table(series: Series) -> Iterator[StepRow]:
    points = [p for s in series.stretches for p in s.points.values]
    stride = max(1, -(-(len(points) - 1) // (_TABLE_ROWS - 1)))
    for point in [*points[:-1:stride], *points[-1:]]:
        yield StepRow(step=point.value, sim_s=point.sim_s, wall_s=point.time)


def _cost(gaps: Sequence[Gap]) -> tuple[float | None, str]:
    """Return an upper bound (95 %) of the share of a step that goes into lines, and what it rests on.

    Steps with more lines take longer if lines cost something: a straight line through (lines, seconds).
    """
    pairs = [(g.rows, g.seconds) for g in gaps if g.seconds is not None]
    if len(pairs) < 8:
        return None, "too few steps in this log to tell what its lines cost"
    rows, seconds = np.array(pairs).T
    mean, spread = float(rows.mean()), float(rows.std())
    if mean <= 0 or seconds.mean() <= 0 or spread == 0:
        return None, "every step has the same number of lines: this log cannot tell what a line costs"
    slope = float(np.cov(rows, seconds, bias=True)[0, 1]) / spread**2
    left = seconds - seconds.mean() - slope * (rows - mean)
    error = math.sqrt(float(left @ left) / (len(pairs) - 2)) / (spread * math.sqrt(len(pairs)))
    share = max(0.0, slope + 2 * error) * mean / float(seconds.mean())
    if share >= 1:
        return None, (
            f"lines a step vary by only {spread / mean:.1%} here, too little to tell what a line costs: "
            "compare with a log without them, or run arzbench calibrate"
        )
    if slope < 2 * error:
        return share, f"steps with more lines are not measurably slower: at most {share:.0%} of a step (95 %)"
    return (
        share,
        f"steps with more lines are slower: {slope * 1e6:.3g} us a line, at most {share:.0%} of a step",
    )


def compare(reports: Sequence[LogReport]) -> list[str]:
    """Bound the price of a line by each pair of logs, as if nothing else differed between them."""
    measured = sorted(
        (
            (r.steps.lines, r.steps.step_s, r.file)
            for r in reports
            if r.steps is not None and r.steps.lines is not None and r.steps.step_s is not None
        ),
        key=lambda item: -item[0],
    )
    return [
        f"{one}: {many - few:,.0f} more lines a step than {other} and {slow - fast:.3g} s slower: "
        f"at most {(slow - fast) / (many - few) * 1e6:.3g} us a line, if nothing else differs"
        for (many, slow, one), (few, fast, other) in itertools.combinations(measured, 2)
        if many > 2 * few and slow > fast
    ]


def read_log(source: Source, context: LogContext) -> LogReport:
    """Read `source` to its end.

    Raises:
        UsageError: it is not text.
    """
    analysis = Analysis(context)
    for block in source.blocks():
        analysis.feed(block)
    return analysis.report(source.name, source.size, source.notes)

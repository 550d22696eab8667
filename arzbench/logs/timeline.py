"""Finds the phases of a log and how it ends, from events in messages and restarts of the step counter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from arzbench.logs.events import Event
from arzbench.logs.findings import End, LogPhase
from arzbench.logs.scan import Message
from arzbench.logs.steps import Series, Stretch, typical

_STARTS = {Event.TRAIN_START: "training", Event.EVAL_START: "evaluation"}
_ENDS = {Event.TRAIN_END: "training", Event.EVAL_END: "evaluation"}
_PROGRESS = frozenset({*_STARTS, *_ENDS, Event.DONE})
#: events kept: the first and the last ones
_MOST = 400


@dataclass(slots=True, frozen=True)
class Moment:
    """An event, with when and where it was logged."""

    event: Event
    time: float
    row: int
    text: str


@dataclass(slots=True)
class Timeline:
    """The events of a log, in order."""

    moments: list[Moment] = field(default_factory=list)
    progress_row: int = -1  # of the last sign that the program goes on
    error: Moment | None = None
    killed: Moment | None = None
    converted: Moment | None = None
    traceback_row: int = -1

    def add(self, message: Message) -> None:
        """Take the events of a message."""
        if message.facts.counters:
            self.progress_row = message.row
        for event in message.facts.events:
            moment = Moment(event, message.time or 0.0, message.row, message.text[:300])
            if event in _PROGRESS:
                self.progress_row = message.row
            elif event is Event.TRACEBACK:
                self.traceback_row = message.row
            elif event is Event.ERROR:
                self.error = moment
            elif event is Event.KILLED:
                self.killed = moment
            elif event is Event.CONVERT:
                self.converted = moment
            if event not in (Event.ERROR, Event.TRACEBACK):
                self.moments.append(moment)
                if len(self.moments) > _MOST:
                    del self.moments[_MOST // 2]

    def ready(self, until: float) -> float | None:
        """Return when the dependencies were installed, at the latest by `until`."""
        times = [m.time for m in self.moments if m.event is Event.READY and m.time <= until]
        return times[-1] if times else None


def find_phases(
    timeline: Timeline,
    series: Series | None,
    first_s: float | None,
    last_s: float | None,
    resolution_s: float,
) -> list[LogPhase]:
    """Return the phases in order: by the step counter where there is one, else by events alone."""
    if first_s is None or last_s is None:
        return []
    stretches = (
        [s for s in series.stretches if s.n > 1 and s.seconds is not None] if series is not None else []
    )
    phases = _from_counter(timeline, stretches, first_s, last_s, resolution_s)
    if not phases:
        phases = _from_events(timeline, last_s)
    if not phases or phases[0].begin_s <= first_s:
        return phases
    begin_s = phases[0].begin_s
    if timeline.ready(begin_s) is None and phases[0].kind == "steps":
        return phases
    sure = "what comes before the first phase"
    return [LogPhase(kind="set-up", begin_s=first_s, end_s=begin_s, sure=sure), *phases]


def _from_counter(
    timeline: Timeline, stretches: Sequence[Stretch], first_s: float, last_s: float, resolution_s: float
) -> list[LogPhase]:
    phases = []
    before = first_s - 1.0
    for index, stretch in enumerate(stretches):
        begin, end = stretch.first.time, stretch.last.time
        if begin is None or end is None:
            continue
        following = stretches[index + 1].first.time if index + 1 < len(stretches) else None
        starts = [m for m in timeline.moments if m.event in _STARTS and before < m.time <= begin]
        start = starts[-1] if starts else None
        kind = _STARTS[start.event] if start is not None else "steps"
        until = following if following is not None else last_s + 1.0
        stops = (m for m in timeline.moments if _ENDS.get(m.event) == kind and end <= m.time < until)
        stop = next(stops, None)
        phases.append(_phase(kind, stretch, start, stop, resolution_s))
        before = end
    return phases


def _phase(
    kind: str, stretch: Stretch, start: Moment | None, stop: Moment | None, resolution_s: float
) -> LogPhase:
    first, last = stretch.first, stretch.last
    first_s, last_s = first.time or 0.0, last.time or 0.0
    begin = start.time if start is not None else first_s
    quotes = [f"{m.text.strip()[:60]!r}" for m in (start, stop) if m is not None]
    return LogPhase(
        kind=kind,
        begin_s=begin,
        end_s=stop.time if stop is not None else last_s,
        steps=stretch.steps + 1 if start is not None else stretch.steps,
        steps_s=last_s - begin,
        first_step_s=first_s - begin if start is not None and first.value == 1 else None,
        median_step_s=typical((g.seconds for g in stretch.gaps.values), resolution_s),
        sure="the counter, and " + " and ".join(quotes)
        if quotes
        else "the counter alone: no message names it",
    )


def _from_events(timeline: Timeline, last_s: float) -> list[LogPhase]:
    spans: list[tuple[Moment, float]] = []
    open_: Moment | None = None
    for moment in timeline.moments:
        if moment.event in _STARTS:
            open_ = moment
        elif open_ is not None and _ENDS.get(moment.event) == _STARTS[open_.event]:
            spans.append((open_, moment.time))
            open_ = None
    if open_ is not None:
        spans.append((open_, last_s))
    return [
        LogPhase(
            kind=_STARTS[start.event], begin_s=start.time, end_s=end_s, sure=f"{start.text.strip()[:60]!r}"
        )
        for start, end_s in spans
    ]


def find_end(
    timeline: Timeline,
    *,
    limits: Sequence[tuple[str, float]],
    last_s: float | None,
    rows: int,
    unfinished: str | None,
    closed: bool | None,
) -> End:
    """Return how the log ends; `closed`: whether a JSON stream has its end, None for other formats."""
    error, killed = timeline.error, timeline.killed
    if error is not None and error.row > timeline.progress_row and error.row - timeline.traceback_row < 400:
        return End(kind="crash", at_s=error.time, text=f"crashed: {error.text.strip()[:200]}")
    if killed is not None and killed.row > timeline.progress_row:
        return End(kind="killed", at_s=killed.time, text=f"ended from outside: {killed.text.strip()[:200]}")
    done = timeline.converted or next(
        (
            m
            for m in reversed(timeline.moments)
            if m.event in (Event.DONE, *_ENDS) and m.row >= timeline.progress_row
        ),
        None,
    )
    if done is not None and closed is not False and not unfinished:
        at = "" if last_s is None else f" at {last_s:,.1f} s"
        return End(kind="finished", at_s=last_s, text=f"finished{at} ({done.text.strip()[:80]!r})")
    reached = [(n, s) for n, s in limits if last_s is not None and 0.997 * s <= last_s <= 1.01 * s + 60]
    if reached and last_s is not None:
        name, limit = min(reached, key=lambda item: abs(item[1] - last_s))
        text = f"cut off at {name}: the log breaks off at {last_s:,.1f} s, {limit:,.0f} s were allowed"
        return End(kind="timeout", at_s=last_s, text=text)
    why = "in the middle of a line" if unfinished else "without an end, an error or a known limit"
    if closed is False:
        why = "in the middle of its JSON: the file breaks off, or the run still went on"
    return End(kind="unknown", at_s=last_s, text=f"unknown: the log stops {why} ({rows:,} lines)")

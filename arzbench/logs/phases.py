"""Set-up, training, evaluation, and how a log ends: from marks in messages and restarts of the counter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from arzbench.logs.events import Mark
from arzbench.logs.findings import End, Phase
from arzbench.logs.scan import Heard
from arzbench.logs.steps import Segment, Series, typical

_STARTS = {Mark.TRAIN_START: "training", Mark.EVAL_START: "evaluation"}
_ENDS = {Mark.TRAIN_END: "training", Mark.EVAL_END: "evaluation"}
_PROGRESS = frozenset({*_STARTS, *_ENDS, Mark.DONE})
#: marks kept, the first and the last ones
_MOST = 400


@dataclass(slots=True, frozen=True)
class Moment:
    """A mark, when and where."""

    mark: Mark
    time: float
    row: int
    text: str


@dataclass(slots=True)
class Marks:
    """The moments of a log."""

    moments: list[Moment] = field(default_factory=list)
    progress_row: int = -1  # of the last sign that the program goes on
    error: Moment | None = None
    killed: Moment | None = None
    converted: Moment | None = None
    traceback_row: int = -1

    def add(self, heard: Heard) -> None:
        """Take what a message said."""
        if heard.said.counters:
            self.progress_row = heard.row
        for mark in heard.said.marks:
            moment = Moment(mark, heard.time or 0.0, heard.row, heard.text[:300])
            if mark in _PROGRESS:
                self.progress_row = heard.row
            elif mark is Mark.TRACEBACK:
                self.traceback_row = heard.row
            elif mark is Mark.ERROR:
                self.error = moment
            elif mark is Mark.KILLED:
                self.killed = moment
            elif mark is Mark.CONVERT:
                self.converted = moment
            if mark not in (Mark.ERROR, Mark.TRACEBACK):
                self.moments.append(moment)
                if len(self.moments) > _MOST:
                    del self.moments[_MOST // 2]

    def last_before(self, kinds: dict[Mark, str], after: float, until: float) -> Moment | None:
        """The last moment of `kinds` in (after, until]."""
        return next((m for m in reversed(self.moments) if m.mark in kinds and after < m.time <= until), None)

    def first_after(self, kind: str, after: float, until: float) -> Moment | None:
        """The first end of `kind` in [after, until)."""
        return next((m for m in self.moments if _ENDS.get(m.mark) == kind and after <= m.time < until), None)

    def ready(self, until: float) -> float | None:
        """When the dependencies were there."""
        times = [m.time for m in self.moments if m.mark is Mark.READY and m.time <= until]
        return times[-1] if times else None


def find_phases(
    marks: Marks, series: Series | None, first_s: float | None, last_s: float | None, resolution_s: float
) -> list[Phase]:
    """The phases, in order."""
    if first_s is None or last_s is None:
        return []
    segments = [s for s in series.segments if s.n > 1 and s.seconds is not None] if series is not None else []
    phases = _from_steps(marks, segments, first_s, last_s, resolution_s)
    if not phases:
        phases = _from_marks(marks, last_s)
    begun = phases[0].begin_s if phases else None
    if (
        begun is not None
        and begun > first_s
        and (marks.ready(begun) is not None or phases[0].kind != "steps")
    ):
        before = Phase(kind="set-up", begin_s=first_s, end_s=begun, sure="what comes before the first phase")
        phases.insert(0, before)
    return phases


def _from_steps(
    marks: Marks, segments: Sequence[Segment], first_s: float, last_s: float, resolution_s: float
) -> list[Phase]:
    phases = []
    before = first_s - 1.0
    for index, segment in enumerate(segments):
        begin, end = segment.first.time, segment.last.time
        if begin is None or end is None:
            continue
        following = segments[index + 1].first.time if index + 1 < len(segments) else None
        start = marks.last_before(_STARTS, before, begin)
        kind = _STARTS[start.mark] if start is not None else "steps"
        stop = marks.first_after(kind, end, following if following is not None else last_s + 1.0)
        phases.append(_phase(kind, segment, start, stop, resolution_s))
        before = end
    return phases


def _phase(
    kind: str, segment: Segment, start: Moment | None, stop: Moment | None, resolution_s: float
) -> Phase:
    first, last = segment.first, segment.last
    first_s, last_s = first.time or 0.0, last.time or 0.0
    begin = start.time if start is not None else first_s
    said = [f"{m.text.strip()[:60]!r}" for m in (start, stop) if m is not None]
    return Phase(
        kind=kind,
        begin_s=begin,
        end_s=stop.time if stop is not None else last_s,
        steps=segment.steps + 1 if start is not None else segment.steps,
        steps_s=last_s - begin,
        first_step_s=first_s - begin if start is not None and first.value == 1 else None,
        median_step_s=typical((g.seconds for g in segment.gaps.kept), resolution_s),
        sure="the counter, and " + " and ".join(said) if said else "the counter alone: no message names it",
    )


def _from_marks(marks: Marks, last_s: float) -> list[Phase]:
    phases: list[Phase] = []
    open_: Moment | None = None
    for moment in marks.moments:
        if moment.mark in _STARTS:
            open_ = moment
        elif open_ is not None and _ENDS.get(moment.mark) == _STARTS[open_.mark]:
            phases.append(_said(open_, moment.time))
            open_ = None
    if open_ is not None:
        phases.append(_said(open_, last_s))
    return phases


def _said(start: Moment, end_s: float) -> Phase:
    return Phase(
        kind=_STARTS[start.mark], begin_s=start.time, end_s=end_s, sure=f"{start.text.strip()[:60]!r}"
    )


def find_end(
    marks: Marks,
    *,
    limits: Sequence[tuple[str, float]],
    last_s: float | None,
    rows: int,
    unfinished: str | None,
    closed: bool | None,
) -> End:
    """How it ends; `closed`: whether a JSON stream has its end, None for other formats."""
    error, killed = marks.error, marks.killed
    if error is not None and error.row > marks.progress_row and error.row - marks.traceback_row < 400:
        return End(kind="crash", at_s=error.time, text=f"crashed: {error.text.strip()[:200]}")
    if killed is not None and killed.row > marks.progress_row:
        return End(kind="killed", at_s=killed.time, text=f"ended from outside: {killed.text.strip()[:200]}")
    done = marks.converted or next(
        (m for m in reversed(marks.moments) if m.mark in (Mark.DONE, *_ENDS) and m.row >= marks.progress_row),
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

"""The records of a log report, as `arzbench logs --json` prints them."""

from __future__ import annotations

from arzbench.facts import Record
from arzbench.logs.cycle import Cycle


class LogContext(Record, frozen=True, kw_only=True):
    """What the user says about the log."""

    pattern: str | None = None  # a regular expression of a line
    limits: tuple[tuple[str, float], ...] = ()  # (name, seconds): where a platform ends a session
    quota_s: float | None = None
    total_steps: int | None = None  # env steps of the whole study
    episode_steps: int | None = None
    eval_freq: int | None = None
    eval_episodes: int | None = None


class TagCount(Record, frozen=True, kw_only=True):
    """The messages under one tag."""

    tag: str
    lines: int
    share: float  # of all lines
    bytes: int
    per_step: float | None
    calls: int | None = None  # made, where a periodic logger counts them
    example: str


class LogPhase(Record, frozen=True, kw_only=True):
    """A phase of the logged program."""

    kind: str  # set-up | training | evaluation | steps
    begin_s: float
    end_s: float
    steps: int = 0
    steps_s: float | None = None  # from the beginning to the last step
    first_step_s: float | None = None
    median_step_s: float | None = None
    sure: str  # what it rests on


class StepRow(Record, frozen=True, kw_only=True):
    """One moment: the counter, simulated time, wall time."""

    step: int
    sim_s: float | None
    wall_s: float | None


class RateRow(Record, frozen=True, kw_only=True):
    """A window of the log."""

    begin_s: float
    end_s: float
    lines_per_s: float
    step_s: float | None


class Steps(Record, frozen=True, kw_only=True):
    """The env steps."""

    counter: str
    first: int
    last: int
    seen: int  # values in the log
    unit: bool  # it grows by one
    step_s: float | None
    lines: float | None  # per step, median; a carriage return begins a line too
    bytes: float | None
    sim_s: float | None  # simulated seconds a step
    drift: float | None  # of the step time, last third against first
    drift_error: float | None
    rows: tuple[StepRow, ...]


class Flood(Record, frozen=True, kw_only=True):
    """What the messages cost, as far as this log can tell."""

    tags: tuple[str, ...]
    share: float
    lines_per_step: float | None
    bytes_per_s: float | None
    at_most: float | None  # share of a step's time, 95 %
    how: str


class Forecast(Record, frozen=True, kw_only=True):
    """The whole study at this log's pace."""

    total_steps: int
    step_s: float
    seconds: float
    quota_s: float | None
    fits: bool | None
    how: str


class End(Record, frozen=True, kw_only=True):
    """How the log ends."""

    kind: str  # finished | timeout | crash | killed | unknown
    at_s: float | None
    text: str


class LogReport(Record, frozen=True, kw_only=True):
    """Everything read from one log."""

    file: str
    format: str
    bytes: int
    lines: int
    messages: int  # numbered lines of the tail, records of a stream
    unfinished: str | None
    first_s: float | None
    last_s: float | None
    lines_per_s: float | None
    ready_s: float | None  # dependencies ready
    tags: tuple[TagCount, ...]
    steps: Steps | None
    phases: tuple[LogPhase, ...]
    rates: tuple[RateRow, ...]
    cycle: Cycle | None
    flood: Flood | None
    forecast: Forecast | None
    end: End
    notes: tuple[str, ...] = ()


class LogReports(Record, frozen=True, kw_only=True):
    """What `arzbench logs --json` prints."""

    logs: tuple[LogReport, ...]
    compared: tuple[str, ...] = ()

"""Counts all messages and writes few: for each tag one call in so many, or one every so many seconds.

    log = PeriodicLogger(1000, sys.stdout)
    log.log("BC_GPU", "inflow_L=%r", inflow)     # [PERIODIC:1000] BC_GPU [Call #1000] inflow_L=...

Usable alone, in any project, also behind `logging` (`PeriodicFilter`, `PeriodicHandler`).
"""

from __future__ import annotations

import logging
import math
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from operator import length_hint
from pathlib import Path
from typing import TextIO

from arzbench.clock import Clock, SystemClock
from arzbench.errors import UsageError
from arzbench.units import parse_duration

#: the environment variable that sets the period
VARIABLE = "ARZBENCH_LOG_PERIOD"
#: messages that a filter tells apart
_MOST_MESSAGES = 1000
#: what logging may add to a step where the period is chosen by measurement
AUTO_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """How often messages are written; `tags` have rules of their own."""

    calls: int | None = None  # one call in so many
    seconds: float | None = None  # one every so many seconds
    tags: Mapping[str, Period] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.calls is not None and self.calls < 1:
            raise ValueError(f"period = {self.calls}: must be at least 1")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds = {self.seconds}: must be greater than zero")

    def __str__(self) -> str:
        parts = [] if self.calls is None else [str(self.calls)]
        return "/".join(parts + ([] if self.seconds is None else [f"{self.seconds:g}s"])) or "first"


class _Tag:
    """Counts the calls of one tag. The silent ones are a `repeat` that C code counts down."""

    __slots__ = ("due", "last_s", "looked", "looked_s", "quiet", "rule", "silent", "written")

    def __init__(self, rule: Period) -> None:
        self.rule = rule
        self.due = 1  # number of the next call that may be written
        self.quiet = repeat(None, 0)
        self.silent: Callable[[], None] = self.quiet.__next__
        self.written = 0
        self.last_s = self.looked_s = -math.inf
        self.looked = 0

    @property
    def calls(self) -> int:
        """Calls so far."""
        return self.due - 1 - length_hint(self.quiet)

    def look(self, clock: Clock) -> int:
        """Decide on the due call: return its number, or 0 where it stays silent."""
        call, rule = self.due, self.rule
        show = call == 1 or (rule.calls is not None and call % rule.calls == 0)
        ahead = [math.inf] if rule.calls is None else [rule.calls - call % rule.calls - 1]
        if rule.seconds is not None:
            now = clock.ticks()
            show = show or now - self.last_s >= rule.seconds
            self.last_s = now if show else self.last_s
            ahead.append(self._calls_until(self.last_s + rule.seconds, now))
        self.rest(int(min(min(ahead), sys.maxsize // 2)), call + 1)
        self.written += show
        return call if show else 0

    def _calls_until(self, end_s: float, now: float) -> int:
        """Return the calls until the clock is read again: half of those expected, at most twice the last."""
        made, took = self.due - self.looked, now - self.looked_s
        self.looked, self.looked_s = self.due, now
        expected = made * (end_s - now) / took if took > 0 and math.isfinite(took) else 0.0
        return int(min(expected / 2, 2 * made, 1e9))

    def rest(self, calls: int, following: int) -> None:
        """Stay silent for `calls` calls, of which number `following` is the first."""
        self.due = following + calls
        self.quiet = repeat(None, calls)
        self.silent = self.quiet.__next__


class PeriodicLogger:
    """Writes the first message of each tag and then one in `period`; with period 1, every message.

    A silent call takes about 60 ns: its text is never formatted (docs/guides/logs.md).
    """

    def __init__(
        self,
        period: int | Period = 1000,
        stream: TextIO | None = None,
        *,
        seconds: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Write to `stream` (None: standard output) one call in `period`, or one every `seconds`.

        Raises:
            ValueError: `period` is below 1, or `seconds` not above 0.
        """
        if seconds is not None:
            rule = Period(seconds=seconds)
        else:
            rule = period if isinstance(period, Period) else Period(calls=period)
        self.rule = rule
        self.stream = stream if stream is not None else sys.stdout
        self._clock = clock if clock is not None else SystemClock()
        self._tags: dict[str, _Tag] = {}
        self._silent: dict[str, Callable[[], None]] = {}

    @property
    def calls(self) -> dict[str, int]:
        """Calls made, by tag."""
        return {name: tag.calls for name, tag in self._tags.items()}

    @property
    def tags(self) -> int:
        """How many tags there are."""
        return len(self._tags)

    @property
    def written(self) -> int:
        """Messages written."""
        return sum(tag.written for tag in self._tags.values())

    @property
    def suppressed(self) -> int:
        """Messages counted and not written."""
        return sum(self.calls.values()) - self.written

    def log(self, tag: str, template: str, *args: object) -> None:
        """Log one message; the %-style `template` is formatted only when it is written."""
        try:
            self._silent[tag]()
            return
        except (KeyError, StopIteration):
            pass
        call = self.look(tag)
        if not call:
            return
        text = template % args if args else template
        rule = self._tags[tag].rule
        if rule.calls == 1:
            self.stream.write(f"[{tag}] {text}\n")
        else:
            self.stream.write(f"[PERIODIC:{rule}] {tag} [Call #{call}] {text}\n")

    def look(self, tag: str) -> int:
        """Count one call whose text is made elsewhere; return its number if it is to be written, else 0."""
        counter = self._tags.get(tag)
        if counter is None:
            counter = self._tags[tag] = _Tag(self.rule.tags.get(tag, self.rule))
        elif length_hint(counter.quiet):
            counter.silent()
            return 0
        call = counter.look(self._clock)
        self._silent[tag] = counter.silent
        return call

    def skip(self, calls: Mapping[str, int], times: int) -> int:
        """Count those of the next `times` rounds of `calls` (tag -> calls a round) that are silent.

        Returns how many they were; a caller with many messages skips them in one go.
        """
        for name, number in calls.items():
            if times and number:
                tag = self._tags.get(name)
                times = min(times, length_hint(tag.quiet) // number) if tag is not None else 0
        if times:
            for name, number in calls.items():
                tag = self._tags[name]
                left = length_hint(tag.quiet) - times * number
                tag.rest(left, tag.due - left)
                self._silent[name] = tag.silent
        return times

    def summary(self) -> str:
        """Return one line: how many messages were written and suppressed, and the calls by tag."""
        made = ", ".join(
            f"{name} {count:,}" for name, count in sorted(self.calls.items(), key=lambda c: -c[1])
        )
        total = sum(self.calls.values())
        return (
            f"{self.written:,} of {total:,} messages written, {self.suppressed:,} suppressed (calls: {made})"
        )

    def close(self) -> None:
        """Write the summary if anything was suppressed."""
        if self.suppressed:
            self.stream.write(f"[PERIODIC:{self.rule}] {self.summary()}\n")


class PeriodicFilter(logging.Filter):
    """For `logging`: lets the first record of each message through and then one in so many.

    Records are alike when their logger and their unformatted message are. `record.call` is the number of
    the call; with `mark`, the message says it.
    """

    def __init__(
        self,
        period: int | Period = 1000,
        *,
        seconds: float | None = None,
        mark: bool = True,
        clock: Clock | None = None,
    ) -> None:
        """Raises `ValueError` as `PeriodicLogger` does."""
        super().__init__()
        self.counts = PeriodicLogger(period, seconds=seconds, clock=clock)
        self._mark = mark

    def filter(self, record: logging.LogRecord) -> bool:
        key = f"{record.name}:{record.msg}"
        if self.counts.tags >= _MOST_MESSAGES:  # formatted beforehand: take all of a logger as one
            key = record.name
        call = self.counts.look(key)
        if not call:
            return False
        record.call = call
        if self._mark and self.counts.rule.calls != 1:
            record.msg = f"[PERIODIC:{self.counts.rule}] [Call #{call}] {record.msg}"
        return True


class PeriodicHandler(logging.StreamHandler[TextIO]):
    """A `logging` handler that writes to a stream what a `PeriodicFilter` lets through."""

    def __init__(
        self, period: int | Period = 1000, stream: TextIO | None = None, *, seconds: float | None = None
    ) -> None:
        """Raises `ValueError` as `PeriodicLogger` does."""
        super().__init__(stream if stream is not None else sys.stderr)
        self.addFilter(PeriodicFilter(period, seconds=seconds))


def parse_period(text: str) -> Period | None:
    """Parse "1000" (calls), "5s", "every" or "off" (None).

    Raises:
        UsageError: it is none of these.
    """
    value = text.strip().lower()
    if value == "off":
        return None
    if value == "every":
        return Period(calls=1)
    if value.replace(",", "").replace("_", "").isdigit() and int(value.replace(",", "")) > 0:
        return Period(calls=int(value.replace(",", "")))
    try:
        return Period(seconds=parse_duration(value))
    except UsageError:
        raise UsageError(
            f"{text!r} is no logging period", "one call in so many (1000), a time (5s), every, or off"
        ) from None


def configured(
    argument: str | None = None, *, file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Period | None:
    """Return the period by `argument`, ARZBENCH_LOG_PERIOD, `file`, or else one call in 1000; None: off.

    The file is TOML: `[periodic]` with `period = 1000` or `"5s"`, and `[periodic.tags]` of the same.

    Raises:
        UsageError: a value or the file cannot be read.
    """
    variables = os.environ if environment is None else environment
    table = _table(file) if file is not None else {}
    tags = {
        name: rule
        for name, value in table.get("tags", {}).items()
        if (rule := parse_period(str(value))) is not None
    }
    text = argument or variables.get(VARIABLE) or str(table.get("period", 1000))
    rule = parse_period(text)
    return None if rule is None else Period(calls=rule.calls, seconds=rule.seconds, tags=tags)


def _table(file: Path) -> dict[str, dict[str, object]]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("periodic", {})
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the logging settings {file}: {error}") from error
    if not isinstance(table, dict) or not isinstance(table.get("tags", {}), dict):
        raise UsageError(f"{file}: [periodic] and [periodic.tags] must be tables")
    return table


def smallest_period(
    *, off_s: float, periodic_s: float, period: int, every_s: float, share: float = AUTO_SHARE
) -> int | None:
    """Return the smallest period (1, 2, 5, 10, ...) at which messages add less than `share` to a step.

    `off_s`, `periodic_s` (one call in `period`), `every_s`: measured seconds a step. A step with one call
    in p costs `off + counting + writing / p`; both follow from the three. None: counting alone is too much.
    """
    writing = max(0.0, every_s - periodic_s) * period / max(1, period - 1)
    counting = max(0.0, periodic_s - off_s - writing / period)
    room = share * off_s - counting
    if room <= 0:
        return None
    needed = writing / room
    choices = (n * 10**power for power in range(10) for n in (1, 2, 5))
    return next((n for n in choices if n >= needed * (1 - 1e-6)), None)

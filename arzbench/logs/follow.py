"""Reads a log while it is written: a status line at any time, a report at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TextIO

from arzbench.clock import Clock
from arzbench.errors import UsageError
from arzbench.logs.analyze import FLOOD_RATE, Analysis
from arzbench.logs.findings import LogContext, LogReport
from arzbench.logs.formats import Format, Stamps
from arzbench.logs.source import BLOCK, PACKED, LineSplitter
from arzbench.units import format_bytes, format_duration

#: seconds between reads of a followed file, and between its status lines
READ_EVERY_S = 0.5
STATUS_EVERY_S = 10.0
#: lines that arrive in one read are this close in time [s]
RESOLUTION_S = 0.2


class _Arrival(Stamps):
    """Gives each line the time at which it arrived, whatever is written in it."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    def read(self, text: str) -> float | None:
        return self.at


class LiveLog:
    """Takes bytes as they come; `status` sums up the progress, `report` the whole log."""

    def __init__(self, context: LogContext, *, arrival: bool = True) -> None:
        """With `arrival`, a line's time is when it came; else the one written in it."""
        self._arrival = _Arrival() if arrival else None
        self.analysis = Analysis(context, Format.PLAIN if arrival else None, self._arrival)
        self.analysis.least_resolution_s = RESOLUTION_S if arrival else 0.0
        self._lines: dict[int, LineSplitter] = {}
        self._context = context
        self.bytes = 0
        self._before = (0.0, 0, 0)  # time, lines, bytes at the last status

    def feed(self, data: bytes, now: float, stream: int = 0) -> None:
        """Take `data` that came on `stream` at `now` seconds after the start."""
        self.bytes += len(data)
        if self._arrival is not None:
            self._arrival.at = now
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # a redrawn bar is a line
        whole = self._lines.setdefault(stream, LineSplitter()).feed(data)
        if whole:
            self.analysis.feed(whole)

    def finish(self) -> None:
        """Take the last line of each stream, which may lack its end."""
        for lines in self._lines.values():
            if rest := lines.rest():
                self.analysis.feed(rest)
        self._lines.clear()

    def status(self, now: float) -> str:
        """One line: lines so far, the rate since the last call, the progress."""
        lines = self.analysis.scanner.lines
        since, had, size = self._before
        self._before = (now, lines, self.bytes)
        span = max(1e-9, now - since)
        rate = (lines - had) / span
        parts = [
            f"{format_duration(now)}: {lines:,} lines",
            f"{rate:,.0f} lines/s ({format_bytes((self.bytes - size) / span)}/s)",
        ]
        parts += self._progress(now)
        if rate >= FLOOD_RATE and (loud := self.analysis.loud_tags()):
            tag, count = loud[0]
            parts.append(f"flood: {count / lines:.0%} of the lines are {tag}")
        return ", ".join(parts)

    def _progress(self, now: float) -> list[str]:
        pace = self.analysis.pace()
        if pace is None:
            return []
        step, step_s, total = pace
        if not total or total < step:
            return [f"step {step:,}, {step_s:.3g} s each"]
        left_s = (total - step) * step_s
        parts = [f"step {step:,} of {total:,}, {step_s:.3g} s each, ETA {format_duration(left_s)}"]
        quota = self._context.quota_s
        if quota is not None and now + left_s > quota:
            parts.append(f"will not end within {format_duration(quota)}")
        return parts

    def report(self, name: str) -> LogReport:
        """Report on the log so far."""
        return self.analysis.report(name, self.bytes)


def follow(
    name: str, context: LogContext, clock: Clock, out: TextIO, stop: Callable[[], bool] = lambda: False
) -> LogReport:
    """Read `name` as it grows, print a status line to `out` every 10 s, and report at Ctrl-C (or `stop`).

    A file that shrinks was started over, and is read from its start.

    Raises:
        UsageError: it cannot be opened, or is compressed.
    """
    live = LiveLog(context, arrival=False)
    began = clock.now()
    printed, at = began, 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            at = _read_on(name, at, live, clock.now() - began)
            if clock.now() - printed >= STATUS_EVERY_S:
                printed = clock.now()
                print(f"arzbench: {live.status(printed - began)}", file=out, flush=True)
            if stop():
                break
            clock.sleep(READ_EVERY_S)
    live.finish()
    return live.report(name)


def _read_on(name: str, at: int, live: LiveLog, now: float) -> int:
    """Feed what follows byte `at`, all of a file that was started over; return where it ends."""
    try:
        with open(name, "rb") as file:
            if os.fstat(file.fileno()).st_size < at:
                at = 0
            file.seek(at)
            while data := file.read(BLOCK):
                if at == 0 and data.startswith(PACKED):
                    raise UsageError(f"{name} is compressed: it cannot be followed", "leave --follow out")
                live.feed(data, now)
                at += len(data)
    except OSError as error:
        raise UsageError(
            f"cannot read the log {name}: {error.strerror}", "name a log file that another program writes"
        ) from error
    return at

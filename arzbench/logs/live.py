"""A log while it is written: rate, flood, estimated end, in one line."""

from __future__ import annotations

from arzbench.logs.analyze import FLOOD_RATE, Analysis
from arzbench.logs.findings import LogReport, Options
from arzbench.logs.formats import Format, Stamps
from arzbench.logs.source import Lines
from arzbench.units import format_bytes, format_duration

#: lines that come in one look are this close in time [s]
RESOLUTION_S = 0.2


class Arrival(Stamps):
    """Lines bear the time at which they came, whatever stands in them."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    def read(self, text: str) -> float | None:
        return self.at


class Live:
    """Takes bytes as they come; `line` says how it goes, `report` what was found."""

    def __init__(self, options: Options, *, arrival: bool = True) -> None:
        """With `arrival`, times are those of the bytes' coming; else those in the log."""
        self._arrival = Arrival() if arrival else None
        self.analysis = Analysis(options, Format.PLAIN if arrival else None, self._arrival)
        self.analysis.least_resolution_s = RESOLUTION_S if arrival else 0.0
        self._lines: dict[int, Lines] = {}
        self._options = options
        self.bytes = 0
        self._before = (0.0, 0, 0)  # time, lines, bytes at the last look

    def feed(self, data: bytes, now: float, stream: int = 0) -> None:
        """`data` came on `stream` at `now` seconds after the beginning."""
        self.bytes += len(data)
        if self._arrival is not None:
            self._arrival.at = now
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # each drawing of a bar counts
        whole = self._lines.setdefault(stream, Lines()).feed(data)
        if whole:
            self.analysis.feed(whole)

    def finish(self) -> None:
        """There is no more; a last line without an end counts."""
        for lines in self._lines.values():
            if rest := lines.rest():
                self.analysis.feed(rest)
        self._lines.clear()

    def line(self, now: float) -> str:
        """How it goes, and since the last look how fast."""
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
        loud = self.analysis.loudest()
        if rate >= FLOOD_RATE and loud is not None:
            parts.append(f"flood: {loud[1]:.0%} of the lines are {loud[0]}")
        return ", ".join(parts)

    def _progress(self, now: float) -> list[str]:
        pace = self.analysis.pace()
        if pace is None:
            return []
        step, step_s, total = pace
        if not total or total < step:
            return [f"step {step:,}, {step_s:.3g} s each"]
        said = [
            f"step {step:,} of {total:,}, {step_s:.3g} s each, ETA {format_duration((total - step) * step_s)}"
        ]
        quota = self._options.quota_s
        if quota is not None and now + (total - step) * step_s > quota:
            said.append(f"will not end within {format_duration(quota)}")
        return said

    def report(self, name: str) -> LogReport:
        """What was found."""
        return self.analysis.report(name, self.bytes)

"""Messages of a simulation, all counted and few written."""

from __future__ import annotations

from typing import TextIO


class PeriodicLogger:
    """Writes the first message of each tag and then one in `period`; with period 1, every message.

    A silent call is a dictionary look-up: its text is never put together.
    """

    def __init__(self, period: int, stream: TextIO) -> None:
        """Write to `stream`.

        Raises:
            ValueError: `period` is below 1.
        """
        if period < 1:
            raise ValueError(f"period = {period}: must be at least 1")
        self.period = period
        self.stream = stream
        self.calls: dict[str, int] = {}
        self.written = 0

    @property
    def suppressed(self) -> int:
        """Messages that were counted and not written."""
        return sum(self.calls.values()) - self.written

    def log(self, tag: str, template: str, *args: object) -> None:
        """One message: `template` is %-style and filled in with `args` only when it is written."""
        count = self.calls.get(tag, 0) + 1
        self.calls[tag] = count
        if count % self.period and count > 1:
            return
        self.written += 1
        text = template % args if args else template
        if self.period == 1:
            self.stream.write(f"[{tag}] {text}\n")
        else:
            self.stream.write(f"[PERIODIC:{self.period}] {tag} [Call #{count}] {text}\n")

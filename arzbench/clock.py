"""The only file that reads time: everything else is handed a `Clock`."""

from __future__ import annotations

import datetime
import functools
import os
import time
from collections.abc import Callable
from typing import Protocol

# Never jumps with the wall clock, and goes on while the machine is suspended: a quota does too.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


class Clock(Protocol):
    """What the rest of arzbench may know about time. All in seconds."""

    def now(self) -> float:
        """A monotonic time with an arbitrary origin, the same for all processes of this machine."""

    def ticks(self) -> float:
        """The finest monotonic time, for durations within one process."""

    def wall(self) -> datetime.datetime:
        """The date and time in UTC, for people and file names only."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clocks."""

    ticks: Callable[[], float] = staticmethod(time.perf_counter)

    # read before every step of a training: no Python function in between
    now: Callable[[], float] = staticmethod(
        time.monotonic if _BOOTTIME is None else functools.partial(time.clock_gettime, _BOOTTIME)
    )

    def wall(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class VirtualClock:
    """A clock that moves only when told: hours of training in milliseconds of test."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._epoch = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def now(self) -> float:
        return self._now

    def ticks(self) -> float:
        return self._now

    def wall(self) -> datetime.datetime:
        return self._epoch + datetime.timedelta(seconds=self._now)

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} s")
        self._now += seconds


def process_start(clock: Clock) -> float:
    """`clock.now()` at the start of this process: the interpreter's start-up and imports count too.

    Read from the kernel (10 ms steps); where it is not told, the moment of the call.
    """
    if _BOOTTIME is None or not isinstance(clock, SystemClock):
        return clock.now()
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return clock.now()


def boot_time() -> float | None:
    """Seconds since this machine started, None where the system does not tell."""
    return None if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)

"""The only file that reads time; everything else takes a `Clock`."""

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
    """How the rest of arzbench reads time. All in seconds."""

    def now(self) -> float:
        """Return a monotonic time with some origin, the same for all processes of this machine."""

    def ticks(self) -> float:
        """Return the finest monotonic time, for durations within one process."""

    def wall(self) -> datetime.datetime:
        """Return the date and time in UTC, for people and file names only."""

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
    """A clock that moves only by `advance` and `sleep`."""

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
    """Return what `clock.now()` was at the start of this process, before the interpreter's start-up.

    Read from the kernel in steps of 10 ms; where that is not possible, it is the time of the call.
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
    """Return the seconds since this machine started, None where the system does not say."""
    return None if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)

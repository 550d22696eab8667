"""A watcher beside the training: when no step ends for long, it reports where every thread is.

It reads what the guard notes anyway, so a step costs nothing more. It only reports: what hangs may come back.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
from pathlib import Path

from arzbench.clock import Clock
from arzbench.errors import StateError
from arzbench.run.guard import Guard
from arzbench.run.ledger_writer import LedgerWriter
from arzbench.units import format_duration

#: a step is stalled after so many times the P99 of those like it, and not before the floor
TIMES_P99 = 20
#: seconds between two looks, and reports a session makes at most
LOOK_S, MOST_REPORTS = 1.0, 10


class StallWatcher:
    """A thread while it is entered; `floor_s` None: none."""

    def __init__(
        self, guard: Guard, ledger: LedgerWriter, folder: Path, clock: Clock, floor_s: float | None
    ) -> None:
        self._guard = guard
        self._ledger = ledger
        self._folder = folder
        self._clock = clock
        self._floor_s = floor_s or 0.0
        self._look_s = min(LOOK_S, self._floor_s / 4)
        self._looked = self._resumed = clock.now()
        self._reported: float | None = None  # the stall last reported, by its beginning
        self._reports = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall watcher", daemon=True)

    def __enter__(self) -> StallWatcher:
        if self._floor_s:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._floor_s:
            self._thread.join(timeout=1.0)

    def _watch(self) -> None:
        while not self._ended.wait(self._look_s):
            self.look()

    def look(self) -> None:
        """Report a stall, once each."""
        now = self._clock.now()
        if now - self._looked > 5 * self._look_s:
            self._resumed = now  # this thread stood still too: the process was suspended or starved
        self._looked = now
        since, p99 = self._guard.waiting()
        waited = now - max(since, self._resumed)
        limit = max(self._floor_s, TIMES_P99 * (p99 or 0.0))
        if waited > limit and since != self._reported and self._reports < MOST_REPORTS:
            self._reported = since
            self._reports += 1
            self._report(waited, limit, p99)

    def _report(self, waited: float, limit: float, p99: float | None) -> None:
        name = f"stall-{self._ledger.session}-{self._reports}.txt"
        usual = "" if p99 is None else f" (P99 of such steps: {format_duration(p99)})"
        message = f"no step for {format_duration(waited)}{usual}"
        try:
            with open(self._folder / name, "w", encoding="utf-8") as file:
                file.write(f"{message}, at step {self._ledger.step:,}\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            where = f"all threads in {self._folder / name}"
        except OSError as error:
            where = f"its threads cannot be written: {error.strerror}"
        with contextlib.suppress(OSError):  # nobody may read it any more
            os.write(2, f"stalled: {message}; {where}\n".encode())
        with contextlib.suppress(StateError):  # last: a hanging or full disk may be what it is about
            self._ledger.write("stall", seconds=waited, limit_s=limit, p99_s=p99, file=name)

"""The state of a run at a glance, and who shows it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from arzbench.records import Estimate

#: seconds after which a wait is told of
SLOW_S = 10.0


@contextlib.contextmanager
def told_if_slow(say: Callable[[str], None], what: str) -> Iterator[None]:
    """Around something that may take long: if it does, `say` what is waited for."""
    timer = threading.Timer(SLOW_S, say, [f"  {what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a run at a glance. Times in seconds."""

    training: str
    index: int
    trainings: int
    stage: str  # baseline | train | final | done
    num_timesteps: int
    budget: int
    steps_per_s: float | None  # over the last seconds; None before two looks
    elapsed_s: float  # of the job, over all its sessions
    session_s: float
    left_s: float | None  # to the deadline; None without a quota
    kept_free_s: float  # of that, at its end
    predicted_end: Estimate | None  # what is left of the job
    mean_return: float | None  # of the last evaluation
    checkpoint_age_s: float | None


class Display(Protocol):
    """Shows a run. Called at most about five times a second."""

    def show(self, progress: Progress) -> None:
        """Show `progress` now."""

    def say(self, line: str) -> None:
        """Show `line` once, above what `show` shows; may be called from another thread."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Speed:
    """Steps per second over the last looks."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._step = 0
        self._rate: float | None = None

    def look(self, now: float, step: int) -> float | None:
        """The smoothed rate at `now`."""
        if self._at is not None and now > self._at:
            rate = (step - self._step) / (now - self._at)
            # an evaluation stands between steps: a pause, not a speed
            if step != self._step:
                self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
        if self._at is None or step != self._step:
            self._at, self._step = now, step
        return self._rate

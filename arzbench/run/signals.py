"""Signals as a flag that is polled: the state is saved at a consistent point, never in a handler."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from arzbench.facts import StopReason
from arzbench.workload import StopTraining

HONOURED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
#: seconds until a stop is raised once more: a compiler, or a call back from C, may drop what is raised in it
INSIST_S = 0.1


class Signals:
    """Catches `HONOURED` while it is entered; restores the earlier handlers on exit.

    `first` is the name of the first one that came, `later` counts those after it: they change
    nothing, since the save they would interrupt is what their sender wants.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self._at_once = False
        self._insisting = False
        self.later = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers().items():
                self._before[number] = signal.signal(number, handler)
        return self

    def _handlers(self) -> dict[signal.Signals, Callable[[int, FrameType | None], None]]:
        return {**dict.fromkeys(HONOURED, self._note), signal.SIGALRM: self._expired}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)  # see `starting`: what follows is the end
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _expired(self, number: int, frame: FrameType | None) -> None:
        """The time of `starting` is over, or a stop was dropped: a training that goes is the guard's."""
        if self._at_once:
            self._insisting = True
            if self.first is None:
                _raise_late(number, frame)
            self._raise_again()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises `StopTraining` where it finds the program: nothing is there to be saved."""
        self._at_once, self._insisting = True, False
        try:
            yield
        finally:
            self._at_once = False
            if self._insisting:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.first is None:
            self.first = name
            done = "nothing new to save" if self._at_once else "saving at the next consistent point"
            message = f"{name}: {done}, then stopping\n"
        else:
            self.later += 1
            message = f"{name}: already stopping, a save is never cut short\n"
        with contextlib.suppress(OSError):  # a reader at the end of a pipe got the signal, too
            os.write(2, message.encode())  # print is not safe within a handler
        if self._at_once:
            self._insisting = True
            self._raise_again()

    def _raise_again(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, INSIST_S)
        raise StopTraining(StopReason.SIGNAL, self.description)

    @property
    def description(self) -> str:
        """What came, as a phrase."""
        return f"{self.first}, {self.later} more while stopping" if self.later else str(self.first)


class UnitSignals(Signals):
    """For a loop that only its author can save: the first signal ends it after the unit in progress.

    While `in_unit`, a second one raises `KeyboardInterrupt` where it finds the program.
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_unit = False
        self._process = os.getpid()

    def _handlers(self) -> dict[signal.Signals, Callable[[int, FrameType | None], None]]:
        return dict.fromkeys(HONOURED, self._note)  # SIGALRM and its timer may be the author's

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: ctrl-C reaches it, too, and the unit needs it
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        name = signal.Signals(number).name
        if self.first is None:
            self.first = name
            message = f"{name}: stopping after the unit in progress; a second signal leaves at once\n"
        else:
            self.later += 1
            leaving = "leaving at once" if self.in_unit else "already stopping, a save is never cut short"
            message = f"{name}: {leaving}\n"
        with contextlib.suppress(OSError):  # as above
            os.write(2, message.encode())
        if self.in_unit and self.later:
            raise KeyboardInterrupt


@contextlib.contextmanager
def starting(seconds: float | None) -> Iterator[None]:
    """Within, a start that takes longer raises `StopTraining` where it finds the program.

    Imports and compilation ask no guard, and nothing is there to be saved. `Signals` takes over.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise_late)
    signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 1e-3), 1e8))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise_late(number: int, frame: FrameType | None) -> None:
    signal.setitimer(signal.ITIMER_REAL, INSIST_S)
    raise StopTraining(StopReason.DEADLINE, "starting took all of the quota")

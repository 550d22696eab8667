"""Signals as a flag that is polled: the state is saved at a consistent point, never in a handler."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

HONOURED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Signals:
    """Catches `HONOURED` while it is entered; restores the earlier handlers on exit.

    `first` is the name of the first one that came, `later` counts those after it: they change
    nothing, since the save they would interrupt is what their sender wants.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self.later = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in HONOURED:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.first is None:
            self.first = name
            said = f"{name}: saving at the next consistent point, then stopping\n"
        else:
            self.later += 1
            said = f"{name}: already stopping, a save is never cut short\n"
        os.write(2, said.encode())  # print is not safe within a handler

    @property
    def told(self) -> str:
        """What came, as a phrase."""
        return f"{self.first}, {self.later} more while stopping" if self.later else str(self.first)

"""Signals while a `learn` of the library goes on that arzbench did not call."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import CodeType, FrameType, TracebackType
from typing import Any

from arzbench.run.signals import Signals

HONOURED = (signal.SIGTERM, signal.SIGINT)


class LearnSignals(Signals):
    """SIGTERM and SIGINT as a flag that is polled; other signals are left to the script.

    A second SIGINT goes to the handler that was there before: whoever presses Ctrl-C twice means it. The
    library tells no callback when `learn` ends by an error, so a signal looks for itself whether `learn` is
    among its callers, and else goes to the handler before.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._learn: CodeType | None = None

    def __enter__(self) -> LearnSignals:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not (
            frame.f_code.co_name == "learn" and frame.f_locals.get("self") is self.model
        ):
            frame = frame.f_back
        self._learn = None if frame is None else frame.f_code
        if self._learn is not None and threading.current_thread() is threading.main_thread():
            for number in HONOURED:
                # None: not set by Python, it could not be put back; ignored: so it stays
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            number, handler = self._before.popitem()
            if signal.getsignal(number) == self._note:  # unless the script set another one since
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        learning = frame
        while learning is not None and learning.f_code is not self._learn:
            learning = learning.f_back
        if learning is None or (self.first is not None and number == signal.SIGINT):
            self.__exit__(None, None, None)
            signal.raise_signal(number)
            return
        if self.first is not None:
            self.later += 1
            return
        self.first = signal.Signals(number).name
        with contextlib.suppress(OSError):  # print is not safe within a handler
            os.write(2, f"{self.first}: the training ends as soon as it can\n".encode())

"""Writes checkpoints beside the training, which pays for the copy alone.

A thread writes the first; the others a process, once there is one: a thread takes a turn at the interpreter
for every file it touches, and the training waits for that.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from arzbench.errors import StateError
from arzbench.saves.checkpoints import Pending, Saved
from arzbench.saves.writer import Writer


class Saver:
    """One save at a time. What it raises is raised by `wait`."""

    def __init__(self, folder: Path | None = None, *, beside: bool = True) -> None:
        """A process is used for the checkpoints in `folder`, whose run this process holds; None: a thread.

        `beside` False: `start` writes, and returns when the save is durable.
        """
        self._beside = beside
        self._folder = folder
        self._thread: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._save: Future[Saved] | None = None  # in the thread
        self._sent: tuple[Pending, float] | None = None  # to the process; seconds until then

    @property
    def under_way(self) -> bool:
        """A save was started whose result nobody has asked for."""
        return self._save is not None or self._sent is not None

    @property
    def ended(self) -> bool:
        """The save under way is written, or has failed."""
        if self._sent is not None:
            return self._writer is not None and self._writer.answered
        return self._save is not None and self._save.done()

    def start(self, pending: Pending) -> None:
        """Write `pending`; none may be under way."""
        if not self._beside or pending.large:
            self._save = Future()
            try:
                self._save.set_result(pending.write())
            except Exception as error:
                self._save.set_exception(error)
        elif not self._send(pending):
            self._thread = self._thread or ThreadPoolExecutor(1, "saver")
            self._save = self._thread.submit(pending.held().write)
            if self._folder is not None and not pending.save.header.done:
                self._thread.submit(self._begin_process, self._folder)
                self._folder = None

    def _begin_process(self, folder: Path) -> None:
        """In the thread: the process lives as long as who began it."""
        with contextlib.suppress(OSError, AttributeError):  # no process, or no common memory
            self._writer = Writer(folder)

    def _send(self, pending: Pending) -> bool:
        writer = self._writer
        if writer is None or pending.watched or not writer.ready:
            return False
        try:
            writer.send(pending.save)
        except OSError:  # no memory that both see
            return False
        self._sent = pending, pending.store.clock.ticks() - pending.began
        return True

    def wait(self) -> Saved:
        """The save under way, when it is durable.

        Raises:
            StateError: it could not be written.
        """
        if self._sent is None:
            assert self._save is not None
            save, self._save = self._save, None
            return save.result()
        (pending, before_s), self._sent = self._sent, None
        assert self._writer is not None
        manifest, written, seconds = self._writer.result()
        return pending.written(manifest, written, before_s + seconds)

    def close(self) -> None:
        """Until what is under way is written."""
        with contextlib.suppress(StateError):  # nobody asked what became of it
            if self._sent is not None:
                self.wait()
        if self._thread is not None:
            self._thread.shutdown()
        if self._writer is not None:
            self._writer.close()

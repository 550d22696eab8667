"""Writes checkpoints beside the training, which pays for the copy alone."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from arzbench.run.checkpoint import Pending, Saved


class Saver:
    """One save at a time. What it raises is raised by `wait`."""

    def __init__(self, *, beside: bool = True) -> None:
        """`beside` False: `start` writes, and returns when the save is durable."""
        self._beside = beside
        self._thread: ThreadPoolExecutor | None = None
        self._save: Future[Saved] | None = None

    @property
    def under_way(self) -> bool:
        """A save was started whose result nobody has asked for."""
        return self._save is not None

    @property
    def ended(self) -> bool:
        """The save under way is written, or has failed."""
        return self._save is not None and self._save.done()

    def start(self, pending: Pending) -> None:
        """Write `pending`; none may be under way."""
        if self._beside and not pending.live:
            self._thread = self._thread or ThreadPoolExecutor(1, "saver")
            self._save = self._thread.submit(pending.write)
            return
        self._save = Future()
        try:
            self._save.set_result(pending.write())
        except Exception as error:
            self._save.set_exception(error)

    def wait(self) -> Saved:
        """The save under way, when it is durable.

        Raises:
            StateError: it could not be written.
        """
        assert self._save is not None
        save, self._save = self._save, None
        return save.result()

    def close(self) -> None:
        """Until what is under way is written."""
        if self._thread is not None:
            self._thread.shutdown()

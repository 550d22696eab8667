"""Writes checkpoints in a thread while the training goes on; the training pays for a copy of its state."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from arzbench.saves.checkpoints import CompletedSave, PendingSave


class Saver:
    """One save at a time. What it raises is raised by `wait`."""

    def __init__(self, *, beside: bool = True) -> None:
        """`beside` False: `start` writes, and returns when the save is durable."""
        self._beside = beside
        self._thread: ThreadPoolExecutor | None = None
        self._save: Future[CompletedSave] | None = None

    @property
    def ended(self) -> bool:
        """The save under way is written, or has failed."""
        return self._save is not None and self._save.done()

    def start(self, pending: PendingSave) -> None:
        """Write `pending`; none may be under way."""
        if self._beside and not pending.large:
            self._thread = self._thread or ThreadPoolExecutor(1, "saver")
            self._save = self._thread.submit(pending.copied().write)
            return
        self._save = Future()
        try:
            self._save.set_result(pending.write())
        except Exception as error:
            self._save.set_exception(error)

    def wait(self) -> CompletedSave:
        """The save under way, when it is durable.

        Raises:
            StateError: it could not be written.
        """
        assert self._save is not None
        save, self._save = self._save, None
        return save.result()

    def close(self) -> None:
        """Wait until the save under way is written; its result is dropped."""
        if self._thread is not None:
            self._thread.shutdown()

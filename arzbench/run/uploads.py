"""Checkpoints are uploaded beside the training, and again until they are there.

The local folder stays the primary: no failure here reaches the training.
"""

from __future__ import annotations

import os
import platform
import secrets
import threading
from pathlib import Path

from arzbench.errors import ArzbenchError
from arzbench.run.filesystem import why
from arzbench.run.storage import Remote, RemoteSession, TakenError

#: of the quota, and at most, in seconds: held back at the end for what is not uploaded yet
UPLOAD_SHARE, UPLOAD_MOST_S = 0.05, 10.0
#: seconds a session without a quota waits at its end
UNLIMITED_FLUSH_S = 60.0
#: seconds to the next attempt after a failure: doubled each time
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0


class Uploads:
    """Sends checkpoints in a thread of its own: the newest only, again and again until it is there."""

    def __init__(self, remote: Remote, run_file: Path | None = None) -> None:
        self.remote = remote
        self.failed = ""  # why the last attempt failed; empty after a success
        self.done = ""  # name of the newest that is there
        self.taken = ""  # by which other session; nothing is uploaded then
        self._session: RemoteSession | None = None
        self._held = False
        self._run_file = run_file
        self._pending: Path | None = None
        self._current: Path | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def take(self, run: str, budgets: tuple[int, ...], sessions: int, began: str) -> None:
        """This session uploads, and what is known of it goes with the checkpoints. Before any `offer`.

        Raises:
            TakenError: another run or session has come first.
        """
        self._session = RemoteSession(
            run=run,
            token=secrets.token_hex(8),
            machine=f"process {os.getpid()} on {platform.node()}",
            began=began,
            budgets=budgets,
            sessions=sessions,
        )
        try:
            self._hold()
        except ArzbenchError:
            raise
        except Exception as error:  # it is tried again before the first upload
            self.failed = why(error)

    def _hold(self) -> None:
        if self._session is not None and not self._held:
            self.remote.take(self._session, self._run_file)
            self._held = True

    def offer(self, path: Path) -> None:
        """Upload `path` next, in place of any that waits."""
        with self._changed:
            self._pending = None if self.taken else path
            self._changed.notify_all()

    def pinned(self) -> set[str]:
        """The checkpoints that are needed here still."""
        with self._changed:
            return {path.name for path in (self._pending, self._current) if path is not None}

    def flush(self, limit_s: float) -> list[str]:
        """Wait at most `limit_s` seconds for what is not there yet; what then is missing, in words."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending is None and self._current is None, max(0.0, limit_s))
            left = self._pending or self._current
        if self.taken:
            return [f"not uploaded: {self.taken}"]
        if left is None:
            return []
        reason = self.failed or "there was no time"
        return [f"not uploaded to {self.remote.url}: {left.name} ({reason}); the next session sends it"]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending is not None)
                self._current, self._pending = self._pending, None
            assert self._current is not None
            self._send(self._current)
            with self._changed:
                self._current = None
                self._changed.notify_all()

    def _send(self, path: Path) -> None:
        """Until it is there, gone here, or a newer one waits."""
        delay = FIRST_RETRY_S
        while path.is_dir():
            try:
                self._hold()
                self.remote.upload(path)
            except TakenError as error:
                with self._changed:
                    self.taken, self._pending = f"{error.message}; {error.hint}", None
                return
            except Exception as error:
                self.failed = why(error)
            else:
                self.failed, self.done = "", path.name
                return
            with self._changed:
                if self._changed.wait_for(lambda: self._pending is not None, delay):
                    return
            delay = min(2 * delay, LAST_RETRY_S)

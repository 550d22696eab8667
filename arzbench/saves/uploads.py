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
from arzbench.saves.filesystem import why
from arzbench.saves.remote import Remote, RemoteSession, TakenError

#: seconds a session without a quota waits at its end
UNLIMITED_FLUSH_S = 60.0
#: seconds to the next attempt after a failure: doubled each time
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0

#: a checkpoint, and whether it is its training's best so far
Waiting = tuple[Path, bool] | None


class Uploads:
    """Sends checkpoints in a thread, again and again: the newest, and the best that was overtaken."""

    def __init__(self, remote: Remote, run_file: Path | None = None) -> None:
        self.remote = remote
        self.failed = ""  # why the last attempt failed; empty after a success
        self.done = ""  # name of the newest that is there
        self.taken = ""  # by which other session; nothing is uploaded then
        self._best_waited = False  # while a newest was sent
        self._session: RemoteSession | None = None
        self._held = False
        self._run_file = run_file
        self._newest: Waiting = None
        self._best: Waiting = None  # overtaken while it waited
        self._current: Waiting = None
        self._closed = False
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

    def offer(self, path: Path, *, best: bool = False) -> None:
        """Upload `path` next, in place of any that waits but the best of its training."""
        with self._changed:
            if not self.taken:
                self._best = None if best else _best_of(self._newest, self._best)
                self._newest = path, best
                self._changed.notify_all()

    def _next(self) -> Waiting:
        """The newest; after it, though a newer one waits, the best."""
        if self._best is not None and (self._newest is None or self._best_waited):
            found: Waiting = self._best
            self._best = None
        else:
            found, self._newest, self._best_waited = self._newest, None, self._best is not None
        return found

    def pinned(self) -> set[str]:
        """The checkpoints that are needed here still."""
        with self._changed:
            return {waiting[0].name for waiting in self._left}

    @property
    def _left(self) -> list[tuple[Path, bool]]:
        return [w for w in (self._current, self._newest, self._best) if w is not None]

    def flush(self, limit_s: float) -> list[str]:
        """Wait at most `limit_s` seconds for what is not there yet; what then is missing, in words."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left, max(0.0, limit_s))
            left = sorted(waiting[0].name for waiting in self._left)
        if self.taken:
            return [f"not uploaded: {self.taken}"]
        if not left:
            return []
        reason = self.failed or "there was no time"
        names, it = " and ".join(left), "it" if len(left) == 1 else "the newest"
        return [f"not uploaded to {self.remote.url}: {names} ({reason}); the next session sends {it}"]

    def close(self) -> None:
        """Begin nothing more: what is under way is not waited for."""
        with self._changed:
            self._closed, self._newest, self._best = True, None, None
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._newest or self._best)
                if self._closed:
                    return
                self._current = self._next()
            assert self._current is not None
            overtaken = not self._send(self._current[0])
            with self._changed:
                if overtaken and not _best_of(self._newest, None):
                    self._best = _best_of(self._current, self._best)
                self._current = None
                self._changed.notify_all()

    def _send(self, path: Path) -> bool:
        """Until it is there or gone here; False once a newer one waits."""
        delay = FIRST_RETRY_S
        while path.is_dir():
            try:
                self._hold()
                self.remote.upload(path)
            except TakenError as error:
                with self._changed:
                    self.taken, self._newest, self._best = f"{error.message}; {error.hint}", None, None
                break
            except Exception as error:
                self.failed = why(error)
            else:
                self.failed, self.done = "", path.name
                break
            with self._changed:
                if self._changed.wait_for(lambda: self._closed or self._newest is not None, delay):
                    return False
            delay = min(2 * delay, LAST_RETRY_S)
        return True


def _best_of(first: Waiting, otherwise: Waiting) -> Waiting:
    """The first, if it is a best one."""
    return first if first is not None and first[1] else otherwise

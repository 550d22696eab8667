"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from arzbench.errors import StateError

LOCK, OWNER = ".lock", ".owner"
#: a process that was just forked from a killed run may hold it a moment longer
LINGER_S = 0.25


@contextlib.contextmanager
def only_run(folder: Path, otherwise: str = "begin another run with --fresh") -> Iterator[None]:
    """Hold `folder` until the end of the block; the system lets go of it if the process dies.

    `otherwise`: what else can be done where another run holds it, for the hint.

    Raises:
        StateError: another run holds it (its process is named), or it cannot be locked.
    """
    lock = FileLock(folder / LOCK)
    owner = folder / OWNER
    try:
        lock.acquire(timeout=LINGER_S, poll_interval=0.01)
    except Timeout as error:
        raise StateError(
            f"another run is using {folder}: {_describe(owner)}",
            f"wait for it, stop it (kill -TERM lets it save), or {otherwise}",
        ) from error
    except (OSError, NotImplementedError) as error:
        raise StateError(f"cannot lock {folder}: {error}", "choose another folder") from error
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the name
            owner.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _describe(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8").strip()[:200] or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"

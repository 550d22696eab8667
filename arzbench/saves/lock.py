"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from arzbench.errors import StateError

LOCK, OWNER = ".lock", ".owner"
#: held by a process that writes checkpoints for the run; it ends soon after the run's own was killed
WRITING, WRITING_S = ".writing", 30.0


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold `folder` until the end of the block; the system lets go of it if the process dies.

    Raises:
        StateError: another run holds it (its process is named), or it cannot be locked.
    """
    lock = FileLock(folder / LOCK)
    owner = folder / OWNER
    hint = "wait for it, stop it (kill -TERM lets it save), or begin another run with --fresh"
    _acquire(lock, folder, 0, lambda: StateError(f"another run is using {folder}: {_who(owner)}", hint))
    try:
        await_writer(folder)
        with contextlib.suppress(OSError):  # of a full disk; it holds all the same
            owner.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def await_writer(folder: Path) -> None:
    """Until the process that wrote checkpoints in `folder` for a run that was killed is no more.

    Raises:
        StateError: it is still there after `WRITING_S` seconds, or its lock cannot be asked.
    """
    if not (folder / WRITING).exists():
        return
    lock = FileLock(folder / WRITING)
    said = f"a checkpoint is still being written to {folder}, by a process whose run is no more"
    hint = "wait for it, or begin another run with --fresh"
    _acquire(lock, folder, WRITING_S, lambda: StateError(said, hint))
    lock.release()


def _acquire(lock: FileLock, folder: Path, timeout_s: float, held: Callable[[], StateError]) -> None:
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise held() from error
    except (OSError, NotImplementedError) as error:
        raise StateError(f"cannot lock {folder}: {error}", "choose another folder with --dir") from error


def _who(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8").strip()[:200] or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"

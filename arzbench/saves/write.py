"""Files of a checkpoint on their way to the disk: written aside, made durable together, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from arzbench.errors import StateError
from arzbench.saves.arrays import Data
from arzbench.saves.read import Part

#: files that wait to be made durable together, at most
MOST_OPEN = 64


def aside_of(path: Path) -> Path:
    """Where the checkpoint `path` is written and removed: hidden, and cleared away after a kill."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def writing(path: Path, elsewhere: str = "choose another folder with --dir") -> Iterator[Path]:
    """Yield the folder aside of `path`. An `OSError` within removes it and becomes a `StateError`."""
    aside = aside_of(path)
    try:
        yield aside
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StateError(
            f"cannot write the checkpoint {path}: {error.strerror}",
            f"free space, or {elsewhere}; earlier checkpoints are untouched",
        ) from error


def clear_asides(folder: Path) -> None:
    """Remove what killed saves left aside in `folder`. Only for the one run that holds it."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            remove(path)


def make_empty(folder: Path) -> None:
    """Make `folder`, in place of what a save that was cut off left there."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)


class Files:
    """Writes files into a folder and makes them durable together, which is less work than one by one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[int] = []  # written, not yet durable

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop())

    def write(self, name: str, pieces: Iterable[Data]) -> Part:
        """Write a new file `name`; it is durable after the next `sync`."""
        if len(self._open) == MOST_OPEN:
            self.sync()
        sha256, size = hashlib.sha256(), 0
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._open.append(descriptor)
        for piece in pieces:
            left = np.frombuffer(piece, np.uint8).data
            sha256.update(left)
            size += len(left)
            while left:
                left = left[os.write(descriptor, left) :]
        if hasattr(os, "posix_fadvise"):  # the system begins to write: one commit will do for several files
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return Part(name=name, sha256=sha256.hexdigest(), bytes=size)

    def sync(self) -> None:
        """Make what was written durable."""
        while self._open:
            os.fsync(self._open[-1])
            os.close(self._open.pop())


def link(source: Path, part: Part, folder: Path) -> bool:
    """Link `part` of the checkpoint `source` into `folder`; False if it is gone or cannot be linked."""
    file = source / part.name
    try:
        status = os.lstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size != part.bytes:
            return False
        os.link(file, folder / part.name)
    except OSError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a checkpoint, or whatever stands in its place; never what a link leads to."""
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    try:
        for name in os.listdir(path):  # files alone, as a rule: fewer calls than those of `rmtree`
            os.unlink(path / name)
        path.rmdir()
    except OSError:
        shutil.rmtree(path)

"""How a checkpoint comes to be on the disk: written aside, all files fsynced, then renamed to its name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from arzbench import store
from arzbench.errors import StateError
from arzbench.saves import arrays, segments
from arzbench.saves.read import ARRAYS, MANIFEST, SCHEMA, STATE, Header, Manifest, Part, read_manifest

#: rows of a segment, and the file of an earlier checkpoint that has them already
Planned = tuple[int, int, Part | None]
#: files that wait to be made durable together, at most
MOST_OPEN = 64


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows from `start` to before `stop`: in a file that an earlier checkpoint has too, or to be written."""

    start: int
    stop: int
    shared: Part | None
    rows: Mapping[str, arrays.Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """All that a checkpoint is made of, and what goes when it is there."""

    path: Path
    begun: bool  # the folder aside is there, with the segments that are shared
    header: Header
    serial: int
    tier: str
    values: bytes  # JSON
    arrays: Mapping[str, arrays.Array]
    rows: int | None  # ever written to the ring buffer; None without one
    ring: Sequence[Segment]
    remove: Sequence[Path]  # older checkpoints


def nowhere(point: str) -> None:
    """Nobody wants to be told of the points of a save."""


def begun(
    path: Path, source: Path, planned: Iterable[Planned], at_point: Callable[[str], None]
) -> list[Segment]:
    """The folder aside of the checkpoint `path`, with the segments that it shares with `source`.

    Raises:
        StateError: it cannot be made.
    """
    with _writing(path) as aside:
        _make(aside, at_point)
        return [
            Segment(start, stop, shared if shared is not None and _link(source, shared, aside) else None)
            for start, stop, shared in planned
        ]


def _make(aside: Path, at_point: Callable[[str], None]) -> None:
    try:
        os.mkdir(aside)
    except FileExistsError:
        shutil.rmtree(aside, ignore_errors=True)
        os.mkdir(aside)
    at_point("before-write")


def write(save: Save, at_point: Callable[[str], None] = nowhere) -> tuple[Manifest, int]:
    """Fill the folder aside, make it a checkpoint, and remove older ones; the bytes written, too.

    Raises:
        StateError: it cannot be written; the checkpoints there are as they were.
    """
    published = _publish(save, at_point)
    _remove_older(save, at_point)
    return published


def write_again(save: Save) -> tuple[Manifest, int]:
    """`write` a save that was cut off somewhere in it. A checkpoint that has its name keeps it.

    Raises:
        StateError: it cannot be written; the checkpoints there are as they were.
    """
    shared = {
        segment.shared.name: segment.shared.bytes for segment in save.ring if segment.shared is not None
    }
    if save.path.is_dir():
        manifest = read_manifest(save.path)
        store.fsync_directory(save.path.parent)
        _remove_older(save, nowhere)
        return manifest, manifest.bytes - sum(shared.values())
    if save.begun:
        with _writing(save.path) as aside:
            for name in os.listdir(aside):
                if name not in shared:
                    os.unlink(aside / name)
    return write(save)


def _remove_older(save: Save, at_point: Callable[[str], None]) -> None:
    for path in save.remove:
        gone = _aside(path)  # not half a checkpoint under its own name
        with contextlib.suppress(OSError):
            os.rename(path, gone)
            at_point("mid-rotation")
            remove(gone)


def _publish(save: Save, at_point: Callable[[str], None]) -> tuple[Manifest, int]:
    with _writing(save.path) as aside, _Files(aside) as files:
        if not save.begun:
            _make(aside, at_point)
        parts = [
            files.write(ARRAYS, arrays.encoded(save.arrays)),
            files.write(STATE, [save.values]),
        ]
        written = sum(part.bytes for part in parts)
        for segment in save.ring:
            if segment.shared is not None:
                parts.append(segment.shared)
            else:
                name = segments.name_of(segment.start, segment.stop)
                parts.append(files.write(name, arrays.encoded(segment.rows)))
                written += parts[-1].bytes
            at_point("after-segment")
        at_point("after-write")
        manifest = Manifest(
            **msgspec.structs.asdict(save.header),
            tier=save.tier,
            serial=save.serial,
            rows=save.rows,
            parts=tuple(parts),
        )
        manifest = msgspec.structs.replace(manifest, digest=manifest.expected_digest())
        files.write(MANIFEST, [store.encode(SCHEMA, manifest)])
        files.sync()
        store.fsync_directory(aside)
        at_point("before-rename")
        os.rename(aside, save.path)
        at_point("before-directory-fsync")
        store.fsync_directory(save.path.parent)
    return manifest, written


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


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """A failure of the disk within becomes a `StateError`, and nothing is left aside: the path given."""
    aside = _aside(path)
    try:
        yield aside
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StateError(
            f"cannot write the checkpoint {path}: {error.strerror}",
            "free space, or choose another folder with --dir; earlier checkpoints are untouched",
        ) from error


class _Files:
    """Writes files into a folder and makes them durable together, which is less work than one by one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[int] = []  # written, not yet durable

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop())

    def write(self, name: str, content: Iterable[arrays.Data]) -> Part:
        """A new file `name`, durable from the next `sync` on."""
        if len(self._open) == MOST_OPEN:
            self.sync()
        sha256, size = hashlib.sha256(), 0
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._open.append(descriptor)
        for data in content:
            sha256.update(data)
            left = memoryview(data).cast("B")
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


def _link(source: Path, part: Part, aside: Path) -> bool:
    """Whether the segment could be linked: it may be gone, or the file system may know no links."""
    found = f"{source}/{part.name}"
    try:
        known = os.lstat(found)
        if not stat.S_ISREG(known.st_mode) or known.st_size != part.bytes:
            return False
        os.link(found, f"{aside}/{part.name}")
    except OSError:
        return False
    return True

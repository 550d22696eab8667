"""The checkpoints of a run: a directory each, whole or absent.

Written aside, each file fsynced, renamed to its name, and only then are older ones removed. Full segments
of a replay buffer are hard links to those of an earlier checkpoint, so that a save writes what is new;
the newest two never share a file, so that no single damage takes both. See docs/reference/checkpoints.md.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import msgspec

from arzbench import store
from arzbench.clock import Clock
from arzbench.errors import StateError, UsageError
from arzbench.run import arrays, segments
from arzbench.run.manifest import (
    ARRAYS,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_STATE_BYTES,
    SCHEMA,
    STATE,
    Checkpoint,
    Header,
    Manifest,
    Part,
    UnsoundError,
    read_manifest,
    verify,
)
from arzbench.units import format_bytes
from arzbench.workloads.base import Ring, TrainingState

__all__ = [
    "ARRAYS",
    "MANIFEST",
    "MAX_MANIFEST_BYTES",
    "MAX_STATE_BYTES",
    "POINTS",
    "SCHEMA",
    "STATE",
    "Checkpoint",
    "CheckpointStore",
    "Header",
    "Manifest",
    "Part",
    "Saved",
    "UnsoundError",
    "checkpoint_paths",
    "read_manifest",
    "verify",
]

#: kept free on the disk beyond the checkpoint itself
SPARE_BYTES = 1 << 20
#: the moments of a save at which a test may cut it off
POINTS = (
    "before-write", "after-segment", "after-write", "before-rename", "before-directory-fsync", "mid-rotation",
)  # fmt: skip
_NAME = re.compile(r"step-\d{12,}-(\d{4,})")


@dataclass(frozen=True, slots=True)
class Saved:
    """A durable checkpoint."""

    path: Path
    bytes: int  # of all its parts
    written: int  # of those that were not there yet
    seconds: float


@dataclass(frozen=True, slots=True)
class _Earlier:
    """A checkpoint of this history whose segments may be shared."""

    path: Path
    total: int
    by_stop: dict[int, Part]  # full segments: row after their last -> segment

    @classmethod
    def of(cls, path: Path, manifest: Manifest) -> _Earlier:
        spans = [(segments.span(part.name), part) for part in manifest.segments]
        return cls(path, manifest.rows or 0, {found[1]: part for found, part in spans if found})

    def segment(self, start: int, stop: int) -> Part | None:
        """The segment that ends before row `stop` and has all rows from `start`."""
        part = self.by_stop.get(stop)
        found = segments.span(part.name) if part is not None else None
        return part if found is not None and found[0] <= start else None


#: rows of a segment, and the file that has them already
_Planned = tuple[int, int, Part | None]


class CheckpointStore:
    """The checkpoints of one run.

    `skipped` tells the unsound ones met so far, name -> reason. `at_point` is called with each of
    `POINTS` as a save passes it, for fault injection. `pinned` names checkpoints that are being read
    and must not be removed yet.
    """

    def __init__(
        self,
        folder: Path,
        keep_last: int,
        clock: Clock,
        *,
        at_point: Callable[[str], None] | None = None,
        pinned: Callable[[], Collection[str]] | None = None,
    ) -> None:
        """The last `keep_last` checkpoints of each training are kept, at least one, and the best."""
        self.folder = folder
        self.skipped: dict[str, str] = {}
        self._keep = max(1, keep_last)
        self._clock = clock
        self._at = at_point or (lambda _: None)
        self._pinned = pinned or (lambda: ())
        # the segments of the one before the last: what is shared is then never the newest two's
        self._history: deque[_Earlier] = deque(maxlen=min(2, self._keep))

    def clean(self) -> None:
        """Remove what killed saves left aside. Only for the one run that holds the folder."""
        if not self.folder.is_dir():
            return
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                _remove(path)

    def adopt(self, found: Checkpoint | None) -> None:
        """This session goes on from `found`, which was proved sound: its segments may be shared."""
        if found is not None:
            self._history.append(_Earlier.of(found.path, found.manifest))

    def paths(self) -> list[Path]:
        """The checkpoints by name, oldest first; sound or not."""
        return checkpoint_paths(self.folder)

    def save(self, state: TrainingState, header: Header) -> Saved:
        """Write `state` durably, then remove this training's oldest beyond the last k and the best.

        Raises:
            StateError: not numeric, too little space, or the folder cannot be written; the
                checkpoints there are as they were.
        """
        began = self._clock.ticks()
        arrays.check_numeric(state.arrays)
        arrays.check_numeric(state.ring.arrays if state.ring is not None else {})
        values = json.dumps(dict(state.values), separators=(",", ":")).encode()
        planned = self._plan(state.ring)
        self._check_space(state, values, planned)
        earlier = self.paths()
        serial = _serial(earlier[-1]) + 1 if earlier else 1
        path = self.folder / f"step-{header.job_steps:012d}-{serial:04d}"
        aside = self.folder / f".{path.name}.tmp"
        try:
            manifest, written = self._write(aside, state, values, header, serial, planned)
            self._at("before-rename")
            os.rename(aside, path)
            self._at("before-directory-fsync")
            store.fsync_directory(self.folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise StateError(
                f"cannot write the checkpoint {path}: {error.strerror}",
                "free space, or choose another folder with --dir; earlier checkpoints are untouched",
            ) from error
        self._history.append(_Earlier.of(path, manifest))
        self._rotate(manifest, earlier)
        return Saved(path, manifest.bytes, written, self._clock.ticks() - began)

    def _plan(self, ring: Ring | None) -> list[_Planned]:
        """The segments of `ring`, each with the one it can share."""
        if ring is None:
            return []
        full = len(self._history) == self._history.maxlen
        source = self._history[0] if full and self._history[0].total <= ring.total else None
        return [
            (start, stop, source.segment(start, stop) if source is not None else None)
            for start, stop in segments.cut(ring)
        ]

    def _check_space(self, state: TrainingState, values: bytes, planned: list[_Planned]) -> None:
        needed = sum(a.nbytes for a in state.arrays.values()) + len(values) + SPARE_BYTES
        if state.ring is not None:
            row = sum(a[:1].nbytes for a in state.ring.arrays.values())
            needed += row * sum(stop - start for start, stop, shared in planned if shared is None)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise StateError(
                f"cannot write in {self.folder}: {error.strerror}", "choose another folder with --dir"
            ) from error
        if free < needed:
            raise StateError(
                f"too little space for a checkpoint in {self.folder}: "
                f"{format_bytes(needed)} needed, {format_bytes(free)} free",
                "free space, or choose another folder with --dir; earlier checkpoints are untouched",
            )

    def _write(
        self,
        aside: Path,
        state: TrainingState,
        values: bytes,
        header: Header,
        serial: int,
        planned: list[_Planned],
    ) -> tuple[Manifest, int]:
        """The manifest, and the bytes written now."""
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        self._at("before-write")
        parts = [
            _write_part(aside / ARRAYS, lambda file: arrays.write(file, state.arrays)),
            _write_part(aside / STATE, lambda file: file.write(values)),
        ]
        written = sum(part.bytes for part in parts)
        for start, stop, shared in planned:
            if shared is not None and self._link(shared, aside):
                parts.append(shared)
            else:
                assert state.ring is not None
                write = functools.partial(arrays.write, arrays=state.ring.rows(start, stop))
                parts.append(_write_part(aside / segments.name_of(start, stop), write))
                written += parts[-1].bytes
            self._at("after-segment")
        self._at("after-write")
        manifest = Manifest(
            **msgspec.structs.asdict(header),
            tier=state.tier,
            serial=serial,
            rows=None if state.ring is None else state.ring.total,
            parts=tuple(parts),
        )
        manifest = msgspec.structs.replace(manifest, digest=manifest.expected_digest())
        _write_part(aside / MANIFEST, lambda file: file.write(store.encode(SCHEMA, manifest)))
        store.fsync_directory(aside)
        return manifest, written

    def _link(self, part: Part, aside: Path) -> bool:
        """Whether the segment could be linked: it may be gone, or the file system may know no links."""
        source = self._history[0].path / part.name
        try:
            if source.is_symlink() or source.stat().st_size != part.bytes:
                return False
            os.link(source, aside / part.name)
        except OSError:
            return False
        return True

    def _rotate(self, new: Manifest, earlier: list[Path]) -> None:
        """Unsound ones go first: they must not push out what could still be needed."""
        unsound = [p for p in earlier if p.name in self.skipped]
        sound = [(p, _manifest(p)) for p in earlier if p.name not in self.skipped]
        mine = [(p, m) for p, m in sound if m is not None and m.training == new.training]
        best = None if new.is_best else next((p for p, m in reversed(mine) if m.is_best), None)
        surplus = [p for p, _ in mine[: max(0, len(mine) + 1 - self._keep)] if p != best]
        for path in unsound + surplus:
            if path.name in self._pinned():
                continue  # the next save removes it
            gone = path.with_name(f".{path.name}.tmp")  # not half a checkpoint under its own name
            with contextlib.suppress(OSError):
                os.rename(path, gone)
                self._at("mid-rotation")
                _remove(gone)

    def newest(self, study: str, training: int | None = None) -> Checkpoint | None:
        """The newest sound checkpoint of `study` (of one of its trainings); None without any.

        Raises:
            StateError: the folder holds checkpoints of another study.
            UsageError: written by a newer arzbench.
        """
        for path in reversed(self.paths()):
            if path.name in self.skipped:
                continue
            try:
                manifest = read_manifest(path)
                if manifest.study != study:
                    raise StateError(
                        f"{path} belongs to another study ({manifest.study}, not {study})",
                        "name a run of this study with --run, or start anew with --fresh",
                    )
                if training is not None and manifest.training != training:
                    continue
                verify(path, manifest)
            except UnsoundError as error:
                self.skipped[path.name] = str(error)
                continue
            return Checkpoint(path, manifest)
        return None


def checkpoint_paths(folder: Path) -> list[Path]:
    """What bears the name of a checkpoint in `folder`, oldest first; sound or not.

    Raises:
        StateError: the folder cannot be read.
    """
    try:
        found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(f"cannot read {folder}: {error.strerror}") from error
    return sorted(found, key=_serial)


def _write_part(path: Path, fill: Callable[[IO[bytes]], object]) -> Part:
    with open(path, "xb") as file:
        through = _HashingFile(file)
        fill(cast("IO[bytes]", through))
        file.flush()
        os.fsync(file.fileno())
    return Part(name=path.name, sha256=through.sha256.hexdigest(), bytes=through.size)


class _HashingFile:
    """Hashes what passes through. Cannot seek, so that zipfile never goes back to patch a header."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.flush = file.flush

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)


def _remove(path: Path) -> None:
    """Remove a checkpoint, or whatever stands in its place; never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _serial(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _manifest(path: Path) -> Manifest | None:
    try:
        return read_manifest(path)
    except (UnsoundError, UsageError):
        return None

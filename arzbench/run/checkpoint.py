"""Checkpoints: a directory each, whole or absent, believed only when every byte is proved.

Written aside, each file fsynced, renamed to its name, and only then are older ones removed. Reading
never unpickles, never follows a link, and never leaves the folder. See docs/reference/checkpoints.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from arzbench import store
from arzbench.clock import Clock
from arzbench.errors import StateError, UsageError
from arzbench.records import Record
from arzbench.run import arrays
from arzbench.units import format_bytes
from arzbench.workloads.base import TrainingState

SCHEMA = "arzbench/checkpoint"
MANIFEST, ARRAYS, STATE = "manifest.json", "arrays.npz", "state.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_STATE_BYTES = 1 << 28
#: kept free on the disk beyond the checkpoint itself
SPARE_BYTES = 1 << 20
#: the moments of a save at which a test may cut it off
POINTS = ("before-write", "after-write", "before-rename", "before-directory-fsync", "mid-rotation")
_NAME = re.compile(r"step-\d{12,}-(\d{4,})")
_CHUNK = 1 << 20


class Header(Record, frozen=True, kw_only=True):
    """What a run knows of the moment it saves."""

    study: str  # digest
    training: int  # index into the study's trainings
    num_timesteps: int  # of this training
    job_steps: int  # over all trainings
    done: bool = False  # the training reached its budget, final evaluation included
    elapsed_s: float  # of the job, over all its sessions
    sessions: int
    ledger: int  # lines of the ledger that tell of work in this state
    versions: dict[str, str]
    created: str  # ISO


class Part(Record, frozen=True, kw_only=True):
    """A file of the checkpoint."""

    name: str
    sha256: str
    bytes: int


class Manifest(Header, frozen=True, kw_only=True):
    """manifest.json: the header, the parts, and a digest over all of it."""

    tier: str
    serial: int
    parts: tuple[Part, ...]
    digest: str = ""

    def expected_digest(self) -> str:
        """The digest of all other fields."""
        return store.digest(msgspec.structs.replace(self, digest=""))


@dataclass(frozen=True, slots=True)
class Saved:
    """A durable checkpoint."""

    path: Path
    bytes: int
    seconds: float


class UnsoundError(Exception):
    """Why a checkpoint cannot be believed."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every part was proved sound."""

    path: Path
    manifest: Manifest

    @property
    def bytes(self) -> int:
        """Size of the parts."""
        return sum(part.bytes for part in self.manifest.parts)

    def load(self) -> TrainingState:
        """The state in it.

        Raises:
            StateError: it was damaged after it was proved.
        """
        try:
            with _open_part(self.path / ARRAYS) as file:
                found = arrays.read(file)
            with _open_part(self.path / STATE) as file:
                values = json.load(file)
        except arrays.MALFORMED as error:
            raise StateError(f"cannot read the checkpoint {self.path}: {error}") from error
        return TrainingState(arrays=found, values=values, tier=self.manifest.tier)


class CheckpointStore:
    """The checkpoints of one run.

    `skipped` tells the unsound ones met so far, name -> reason. `at_point` is called with each of
    `POINTS` as a save passes it, for fault injection.
    """

    def __init__(
        self,
        folder: Path,
        keep_last: int,
        clock: Clock,
        *,
        at_point: Callable[[str], None] | None = None,
    ) -> None:
        """`keep_last` checkpoints of each training are kept, at least one."""
        self.folder = folder
        self.skipped: dict[str, str] = {}
        self._keep = max(1, keep_last)
        self._clock = clock
        self._at = at_point or (lambda _: None)

    def clean(self) -> None:
        """Remove what killed saves left aside. Only for the one run that holds the folder."""
        if not self.folder.is_dir():
            return
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                _remove(path)

    def paths(self) -> list[Path]:
        """The checkpoints by name, oldest first; sound or not."""
        try:
            found = [p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateError(f"cannot read {self.folder}: {error.strerror}") from error
        return sorted(found, key=_serial)

    def save(self, state: TrainingState, header: Header) -> Saved:
        """Write `state` durably, then remove this training's oldest beyond the last k.

        Raises:
            StateError: not numeric, too little space, or the folder cannot be written; the
                checkpoints there are as they were.
        """
        began = self._clock.ticks()
        arrays.check_numeric(state.arrays)
        values = json.dumps(dict(state.values), separators=(",", ":")).encode()
        self._check_space(state, values)
        earlier = self.paths()
        serial = _serial(earlier[-1]) + 1 if earlier else 1
        path = self.folder / f"step-{header.job_steps:012d}-{serial:04d}"
        aside = self.folder / f".{path.name}.tmp"
        try:
            manifest = self._write(aside, state, values, header, serial)
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
        self._rotate(manifest, earlier)
        return Saved(path, sum(p.bytes for p in manifest.parts), self._clock.ticks() - began)

    def _check_space(self, state: TrainingState, values: bytes) -> None:
        needed = sum(a.nbytes for a in state.arrays.values()) + len(values) + SPARE_BYTES
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
        self, aside: Path, state: TrainingState, values: bytes, header: Header, serial: int
    ) -> Manifest:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        self._at("before-write")
        parts = (
            _write_part(aside / ARRAYS, lambda file: arrays.write(file, state.arrays)),
            _write_part(aside / STATE, lambda file: file.write(values)),
        )
        self._at("after-write")
        manifest = Manifest(**msgspec.structs.asdict(header), tier=state.tier, serial=serial, parts=parts)
        manifest = msgspec.structs.replace(manifest, digest=manifest.expected_digest())
        _write_part(aside / MANIFEST, lambda file: file.write(store.encode(SCHEMA, manifest)))
        store.fsync_directory(aside)
        return manifest

    def _rotate(self, new: Manifest, earlier: list[Path]) -> None:
        """Unsound ones go first: they must not push out what could still be needed."""
        unsound = [p for p in earlier if p.name in self.skipped]
        of_training = [p for p in earlier if p.name not in self.skipped and _training(p) == new.training]
        surplus = max(0, len(of_training) + 1 - self._keep)
        for path in unsound + of_training[:surplus]:
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


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint directory `path`, not yet its parts.

    Raises:
        UnsoundError: missing, damaged, or naming files that a checkpoint does not have.
        UsageError: written by a newer arzbench.
    """
    if path.is_symlink() or not path.is_dir():
        raise UnsoundError("not a directory")
    try:
        with _open_part(path / MANIFEST) as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            raise UnsoundError(f"{MANIFEST} is too large")
        data: Any = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UnsoundError(f"{MANIFEST}: {_why(error)}") from error
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > store.VERSIONS[SCHEMA]:
        store.check_schema(data, SCHEMA, str(path))
    try:
        body = store.check_schema(data, SCHEMA, MANIFEST)
        manifest: Manifest = store.convert(body, Manifest, MANIFEST)
        proved = manifest.digest == manifest.expected_digest()
    except (UsageError, ValueError, OverflowError) as error:
        raise UnsoundError(f"{MANIFEST}: {_why(error)}") from error
    if not proved:
        raise UnsoundError(f"{MANIFEST}: its digest does not match")
    if [part.name for part in manifest.parts] != [ARRAYS, STATE]:
        raise UnsoundError(f"{MANIFEST}: its parts are not {ARRAYS} and {STATE}")
    return manifest


def verify(path: Path, manifest: Manifest) -> None:
    """Raise `UnsoundError` unless every part is there, has its size and digest, and is harmless."""
    for part in manifest.parts:
        try:
            with _open_part(path / part.name) as file:
                _verify_part(file, part)
        except (*arrays.MALFORMED, RecursionError) as error:
            raise UnsoundError(f"{part.name}: {_why(error)}") from error


def _verify_part(file: IO[bytes], part: Part) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != part.bytes:
        raise ValueError(f"{size} bytes, the manifest says {part.bytes}")
    found = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        found.update(chunk)
    if found.hexdigest() != part.sha256:
        raise ValueError("its sha256 does not match")
    file.seek(0)
    if part.name == ARRAYS:
        arrays.check(file, size)
    elif size > MAX_STATE_BYTES or not isinstance(json.load(file), dict):
        raise ValueError("not a JSON object of a reasonable size")


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


@contextlib.contextmanager
def _open_part(path: Path) -> Iterator[IO[bytes]]:
    """`path` for reading, if it is a plain file: a link or a pipe in its place is an error."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a plain file")
        yield file


def _remove(path: Path) -> None:
    """Remove a checkpoint, or whatever stands in its place; never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _why(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _serial(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _training(path: Path) -> int | None:
    try:
        return read_manifest(path).training
    except (UnsoundError, UsageError):
        return None

"""Checkpoints as they are read: believed only when every byte is proved.

Reading never unpickles, never follows a link, and never leaves the folder. See docs/reference/checkpoints.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from arzbench import store
from arzbench.digest import digest
from arzbench.errors import StateError, UsageError
from arzbench.facts import Record
from arzbench.saves import arrays, npz, segments
from arzbench.training_state import TIERS, Ring, TrainingState

SCHEMA = "arzbench/checkpoint"
MANIFEST, ARRAYS, STATE = "manifest.json", "arrays.safetensors", "state.json"
#: the first version whose arrays are not npz files
_SAFETENSORS_VERSION = 3
MAX_MANIFEST_BYTES = 1 << 20
MAX_STATE_BYTES = 1 << 28
_State = TypeVar("_State", bound="Header")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Header(Record, frozen=True, kw_only=True):
    """What a run knows of the moment it saves."""

    study: str  # digest
    training: int  # index into the study's trainings
    num_timesteps: int  # of this training
    job_steps: int  # over all trainings
    stage: str = ""  # baseline, train, final or done
    done: bool = False  # the training reached its budget, final evaluation included
    elapsed_s: float  # of the job, over all its sessions
    sessions: int
    ledger: int  # lines of the ledger that tell of work in this state
    best: tuple[float, int] | None = None  # largest mean return of an evaluation so far, num_timesteps then
    is_best: bool = False  # the first state saved after it; but see `the_best`
    awaits: int | UnsetType = UNSET  # num_timesteps of an evaluation whose result is not known yet
    versions: dict[str, str]
    created: str  # ISO


def the_best(states: Sequence[_State]) -> _State | None:
    """Of one training's `states`, the oldest first, the first saved since its best evaluation was due.

    It was saved while that was under way, else it is the newest with `is_best`. None: there is none.
    """
    step = next((s.best[1] for s in reversed(states) if s.best is not None), None)
    awaiting = (s for s in states if s.awaits == step)
    return next(awaiting, None) or next((s for s in reversed(states) if s.is_best), None)


def to_keep(states: Sequence[_State]) -> list[_State]:
    """Of one training's `states`, the best, and the one that the evaluation under way may make the best."""
    awaited = states[-1].awaits if states else UNSET
    first = next((s for s in states if s.awaits == awaited), None) if awaited is not UNSET else None
    return [s for s in (the_best(states), first) if s is not None]


class Part(Record, frozen=True, kw_only=True):
    """A file of the checkpoint."""

    name: str
    sha256: str
    bytes: int


class Manifest(Header, frozen=True, kw_only=True):
    """manifest.json: the header, the parts, and a digest over all of it."""

    tier: str
    serial: int
    rows: int | None = None  # ever written to the ring buffer; None without one
    parts: tuple[Part, ...]
    digest: str = ""

    def expected_digest(self) -> str:
        """The digest of all other fields."""
        return digest({**msgspec.to_builtins(self), "digest": ""})

    @property
    def segments(self) -> tuple[Part, ...]:
        """The parts that hold the ring buffer, oldest rows first."""
        return self.parts[2:]

    @property
    def bytes(self) -> int:
        """Size of the parts."""
        return sum(part.bytes for part in self.parts)


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
        return self.manifest.bytes

    def load(self) -> TrainingState:
        """The state in it.

        Raises:
            StateError: it was damaged after it was proved.
        """
        try:
            state_arrays = self._arrays(self.manifest.parts[0])
            with open_part(self.path / STATE) as file:
                values = json.load(file)
            ring = self._ring()
        except npz.MALFORMED as error:
            raise StateError(f"cannot read the checkpoint {self.path}: {error}") from error
        return TrainingState(arrays=state_arrays, values=values, tier=self.manifest.tier, ring=ring)

    def _arrays(self, part: Part) -> dict[str, arrays.Array]:
        with open_part(self.path / part.name) as file:
            return npz.read(file) if part.name.endswith(npz.SUFFIX) else arrays.decode(file.read())

    def _ring(self) -> Ring | None:
        parts, total = self.manifest.segments, self.manifest.rows
        if total is None:
            return None
        origin = segments.span(parts[0].name)[0] if parts else total
        return segments.joined(map(self._arrays, parts), origin, total)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint directory `path`, not yet its parts.

    Raises:
        UnsoundError: missing, damaged, or naming files that a checkpoint does not have.
        UsageError: written by a newer arzbench.
    """
    if path.is_symlink() or not path.is_dir():
        raise UnsoundError("not a directory")
    try:
        with open_part(path / MANIFEST) as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            raise UnsoundError(f"{MANIFEST} is too large")
    except (OSError, ValueError) as error:
        raise UnsoundError(f"{MANIFEST}: {why(error)}") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, source: str) -> Manifest:
    """The manifest in `text`, which `source` holds.

    Raises:
        UnsoundError: damaged, or naming files that a checkpoint does not have.
        UsageError: written by a newer arzbench.
    """
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnsoundError(f"{MANIFEST}: {why(error)}") from error
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > store.VERSIONS[SCHEMA]:
        store.check_schema(data, SCHEMA, source)
    try:
        body = store.check_schema(data, SCHEMA, MANIFEST)
        manifest: Manifest = store.convert(body, Manifest, MANIFEST)
        written = {k: v for k, v in data.items() if k not in ("schema", "version")}
        proved = manifest.digest == digest({**written, "digest": ""})
    except (UsageError, ValueError, OverflowError) as error:
        raise UnsoundError(f"{MANIFEST}: {why(error)}") from error
    if not proved:
        raise UnsoundError(f"{MANIFEST}: its digest does not match")
    names = [part.name for part in manifest.parts]
    suffix = arrays.SUFFIX if data["version"] >= _SAFETENSORS_VERSION else npz.SUFFIX
    first = [f"arrays{suffix}", STATE]
    if names[:2] != first or not segments.consecutive(names[2:], manifest.rows, suffix):
        raise UnsoundError(f"{MANIFEST}: its parts are not {first[0]}, {STATE} and segments of rows in order")
    if not all(_SHA256.fullmatch(part.sha256) for part in manifest.parts):
        raise UnsoundError(f"{MANIFEST}: a digest that is none")
    if manifest.tier not in TIERS:
        raise UnsoundError(f"{MANIFEST}: unknown tier {manifest.tier[:40]!r}")
    return manifest


def verify(path: Path, manifest: Manifest) -> None:
    """Raise `UnsoundError` unless every part is there, has its size and digest, and is harmless."""
    outlines = {}
    for part in manifest.parts:
        try:
            with open_part(path / part.name) as file:
                outlines[part.name] = _verify_part(file, part)
        except npz.MALFORMED as error:
            raise UnsoundError(f"{part.name}: {why(error)}") from error
    try:
        segments.check({part.name: outlines[part.name] for part in manifest.segments})
    except ValueError as error:
        raise UnsoundError(str(error)) from error


def prove(file: IO[bytes], part: Part) -> int:
    """The size of `file`; raise a `ValueError` unless it is what `part` says, byte for byte."""
    size = os.fstat(file.fileno()).st_size
    if size != part.bytes:
        raise ValueError(f"{size} bytes, the manifest says {part.bytes}")
    if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:  # type: ignore[arg-type]
        raise ValueError("its sha256 does not match")
    return size


def _verify_part(file: IO[bytes], part: Part) -> dict[str, arrays.Outline]:
    size = prove(file, part)
    file.seek(0)
    if part.name.endswith(npz.SUFFIX):
        return npz.outlines(file, size)
    if part.name != STATE:
        return {name: (array.shape, array.dtype) for name, array in arrays.decode(file.read()).items()}
    if size > MAX_STATE_BYTES or not isinstance(json.load(file), dict):
        raise ValueError("not a JSON object of a reasonable size")
    return {}


@contextlib.contextmanager
def open_part(path: Path) -> Iterator[IO[bytes]]:
    """`path` for reading, if it is a plain file: a link or a pipe in its place is an error."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a plain file")
        yield file


def why(error: BaseException) -> str:
    """`error` in a few words."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__

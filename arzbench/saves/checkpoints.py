"""The checkpoints of a run: a directory each, whole or absent.

Written aside, each file fsynced, renamed to its name, and only then are older ones removed. Full segments
of a replay buffer are hard links to those of an earlier checkpoint, so that a save writes what is new;
the newest two never share a file, so that no single damage takes both. See docs/reference/checkpoints.md.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from arzbench.clock import Clock
from arzbench.errors import StateError, UsageError
from arzbench.saves import arrays, segments
from arzbench.saves.read import (
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
from arzbench.saves.write import Planned, Save, Segment, begun, nowhere, remove, write
from arzbench.units import format_bytes
from arzbench.workload import Ring, TrainingState

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
    "Pending",
    "Saved",
    "UnsoundError",
    "checkpoint_paths",
    "read_manifest",
    "verify",
]

#: a save that writes more is not copied: the training waits until it is written
COPY_MOST_BYTES = 64 << 20
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
    seconds: float  # from `begin` on


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A save that was begun; nothing else of its store may be used until it is written."""

    store: CheckpointStore
    save: Save
    large: bool  # too much to be copied: it should be written before the training goes on
    began: float

    @property
    def watched(self) -> bool:
        """Someone wants to be told of its `POINTS`."""
        return self.store.watched

    def held(self) -> Pending:
        """With copies of what is the training's own memory: it may go on."""
        ring = [replace(segment, rows=_copied(segment.rows)) for segment in self.save.ring]
        return replace(self, save=replace(self.save, arrays=_copied(self.save.arrays), ring=ring))

    def write(self) -> Saved:
        """Write it durably, then remove this training's oldest beyond the last k and the best.

        Raises:
            StateError: the folder cannot be written; the checkpoints there are as they were.
        """
        manifest, written = write(self.save, self.store.at_point)
        return self.written(manifest, written, self.store.clock.ticks() - self.began)

    def written(self, manifest: Manifest, written: int, seconds: float) -> Saved:
        """It was: the bytes that were not there yet, the seconds from `begin` on."""
        self.store.note(self.save, manifest)
        return Saved(self.save.path, manifest.bytes, written, seconds)


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
        self.clock = clock
        self.watched = at_point is not None
        self.at_point = at_point or nowhere
        self._pinned = pinned or (lambda: ())
        self._there: list[Path] | None = None  # oldest first, as long as nobody else writes here
        self._manifests: dict[str, Manifest] = {}  # by name, of those read or written
        # the segments of the one before the last: what is shared is then never the newest two's
        self._history: deque[_Earlier] = deque(maxlen=min(2, self._keep))

    def clean(self) -> None:
        """Remove what killed saves left aside. Only for the one run that holds the folder."""
        if not self.folder.is_dir():
            return
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                remove(path)

    def adopt(self, found: Checkpoint | None) -> None:
        """This session goes on from `found`, which was proved sound: its segments may be shared."""
        if found is not None:
            self._history.append(_Earlier.of(found.path, found.manifest))

    def paths(self) -> list[Path]:
        """The checkpoints by name, oldest first; sound or not."""
        return checkpoint_paths(self.folder)

    def save(self, state: TrainingState, header: Header) -> Saved:
        """`begin` and `Pending.write` in one."""
        return self.begin(state, header).write()

    def begin(self, state: TrainingState, header: Header) -> Pending:
        """A save of `state`, to be written before the next one begins.

        Its arrays and the rows of its ring are taken as they are, see `Pending.held`.

        Raises:
            StateError: not numeric, too little space, or the folder cannot be written; the
                checkpoints there are as they were.
        """
        began = self.clock.ticks()
        arrays.check_numeric(state.arrays)
        arrays.check_numeric(state.ring.arrays if state.ring is not None else {})
        source, planned = self._plan(state.ring)
        needed = sum(a.nbytes for a in state.arrays.values())
        if state.ring is not None:
            row = sum(a[:1].nbytes for a in state.ring.arrays.values())
            needed += row * sum(stop - start for start, stop, shared in planned if shared is None)
        require_space(self.folder, needed, "a checkpoint", "; earlier checkpoints are untouched")
        if self._there is None:
            self._there = self.paths()
        earlier = self._there
        serial = _serial(earlier[-1]) + 1 if earlier else 1
        path = self.folder / f"step-{header.job_steps:012d}-{serial:04d}"
        shares = any(shared is not None for _, _, shared in planned)
        if shares:
            parts = begun(path, source, planned, self.at_point)
        else:
            parts = [Segment(start, stop, None) for start, stop, _ in planned]
        if state.ring is not None:
            parts = [p if p.shared else replace(p, rows=state.ring.rows(p.start, p.stop)) for p in parts]
        save = Save(
            path=path,
            begun=shares,
            header=header,
            serial=serial,
            tier=state.tier,
            values=msgspec.json.encode(state.values),
            arrays=state.arrays,
            rows=None if state.ring is None else state.ring.total,
            ring=parts,
            remove=self._surplus(header, earlier),
        )
        return Pending(store=self, save=save, large=needed > COPY_MOST_BYTES, began=began)

    def _plan(self, ring: Ring | None) -> tuple[Path, list[Planned]]:
        """The segments of `ring`, each with the one it can share, and where that is."""
        if ring is None:
            return self.folder, []
        full = len(self._history) == self._history.maxlen
        source = self._history[0] if full and self._history[0].total <= ring.total else None
        found = [
            (start, stop, source.segment(start, stop) if source is not None else None)
            for start, stop in segments.cut(ring)
        ]
        return self.folder if source is None else source.path, found

    def note(self, save: Save, manifest: Manifest) -> None:
        """`save` was written."""
        self._history.append(_Earlier.of(save.path, manifest))
        self._there = [path for path in self._there or () if path not in save.remove] + [save.path]
        self._manifests[save.path.name] = manifest
        for gone in save.remove:
            self._manifests.pop(gone.name, None)

    def _surplus(self, new: Header, earlier: list[Path]) -> list[Path]:
        """What goes when `new` is there. Unsound ones first: they must not push out what may be needed."""
        unsound = [p for p in earlier if p.name in self.skipped]
        sound = [(p, self._manifest(p)) for p in earlier if p.name not in self.skipped]
        mine = [(p, m) for p, m in sound if m is not None and m.training == new.training]
        best = None if new.is_best else next((p for p, m in reversed(mine) if m.is_best), None)
        surplus = [p for p, _ in mine[: max(0, len(mine) + 1 - self._keep)] if p != best]
        pinned = self._pinned()  # the next save removes them
        return [path for path in unsound + surplus if path.name not in pinned]

    def _manifest(self, path: Path) -> Manifest | None:
        """Of a checkpoint that is there already; read once."""
        if path.name not in self._manifests:
            try:
                self._manifests[path.name] = read_manifest(path)
            except (UnsoundError, UsageError):
                return None
        return self._manifests[path.name]

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


def believed(folder: Path) -> list[Path]:
    """The checkpoints in `folder` up to the newest sound one, oldest first; those before it are not read."""
    found = checkpoint_paths(folder)
    while found:
        with contextlib.suppress(UnsoundError):
            verify(found[-1], read_manifest(found[-1]))
            break
        found.pop()
    return found


def _copied(found: Mapping[str, arrays.Array]) -> dict[str, arrays.Array]:
    return {name: array.copy() for name, array in found.items()}


def require_space(folder: Path, needed: int, what: str, comfort: str = "") -> None:
    """Raise a `StateError` unless `needed` bytes and some more can be written in `folder`, made if absent."""
    needed += SPARE_BYTES
    try:
        try:
            free = shutil.disk_usage(folder).free
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StateError(
            f"cannot write in {folder}: {error.strerror}", "choose another folder with --dir"
        ) from error
    if free < needed:
        raise StateError(
            f"too little space for {what} in {folder}: "
            f"{format_bytes(needed)} needed, {format_bytes(free)} free",
            f"free space, or choose another folder with --dir{comfort}",
        )


def _serial(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0

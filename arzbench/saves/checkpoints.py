"""The checkpoints of a run: a directory each, whole or absent.

Written aside, each file fsynced, renamed to its name, and only then are older ones removed. Full segments
of a replay buffer are hard links to those of an earlier checkpoint, so that a save writes what is new;
the newest two never share a file, so that no single damage takes both. See docs/reference/checkpoints.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from arzbench import store
from arzbench.clock import Clock
from arzbench.errors import StateError, UsageError
from arzbench.saves import arrays, segments
from arzbench.saves.read import (
    ARRAYS,
    MANIFEST,
    SCHEMA,
    STATE,
    Checkpoint,
    Header,
    Manifest,
    Part,
    UnsoundError,
    read_manifest,
    to_keep,
    verify,
)
from arzbench.saves.write import Files, aside_of, clear_asides, link, make_empty, remove, writing
from arzbench.training_state import Ring, TrainingState
from arzbench.units import format_bytes

__all__ = ["POINTS", "Checkpoint", "CheckpointStore", "CompletedSave", "Header", "Manifest", "PendingSave"]

#: a save that writes more is not copied: the training waits until it is written
COPY_MOST_BYTES = 64 << 20
#: kept free on the disk beyond the checkpoint itself
SPARE_BYTES = 1 << 20
#: the moments of a save at which a test may cut it off
POINTS = (
    "before-write", "after-segment", "after-write", "before-rename", "before-directory-fsync", "mid-rotation",
)  # fmt: skip
_NAME = re.compile(r"step-\d{12,}-(\d{4,})")
#: a part to write, by name and in pieces, or one that is linked already
_Content = Part | tuple[str, list[arrays.Data]]


@dataclass(frozen=True, slots=True)
class CompletedSave:
    """A durable checkpoint."""

    path: Path
    bytes: int  # of all its parts
    written: int  # of those that were not there yet
    seconds: float  # from `begin` on


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSave:
    """A save that was begun; its store may not be used for anything else until it is written.

    Its pieces share the memory of the training until they are `copied`.
    """

    store: CheckpointStore
    path: Path
    manifest: Manifest  # without parts and digest
    contents: Sequence[_Content]
    surplus: Sequence[Path]  # older checkpoints, removed once this one is there
    large: bool  # too much to be copied: it should be written before the training goes on
    began: float

    def copied(self) -> PendingSave:
        """The same save with memory of its own: the training may go on."""
        contents: list[_Content] = [
            content if isinstance(content, Part) else (content[0], [b"".join(content[1])])
            for content in self.contents
        ]
        return replace(self, contents=contents)

    def write(self) -> CompletedSave:
        """Write it durably, then remove this training's oldest beyond the last k and the best.

        Raises:
            StateError: the folder cannot be written; the checkpoints there are as they were.
        """
        at_point, parts, written = self.store.at_point, [], 0
        with writing(self.path) as aside, Files(aside) as files:
            for content in self.contents:
                part = content if isinstance(content, Part) else files.write(*content)
                written += 0 if part is content else part.bytes
                parts.append(part)
                if len(parts) > 2:
                    at_point("after-segment")
            at_point("after-write")
            manifest = msgspec.structs.replace(self.manifest, parts=tuple(parts))
            manifest = msgspec.structs.replace(manifest, digest=manifest.expected_digest())
            files.write(MANIFEST, [store.encode(SCHEMA, manifest)])
            files.sync()
            store.fsync_directory(aside)
            at_point("before-rename")
            os.rename(aside, self.path)
            at_point("before-directory-fsync")
            store.fsync_directory(self.path.parent)
        self.store.completed(Checkpoint(self.path, manifest), self.surplus)
        return CompletedSave(self.path, manifest.bytes, written, self.store.clock.ticks() - self.began)


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
        at_point: Callable[[str], None] = lambda point: None,
        pinned: Callable[[], Collection[str]] | None = None,
    ) -> None:
        """The last `keep_last` checkpoints of each training are kept, at least one, and the best."""
        self.folder = folder
        self.clock = clock
        self.at_point = at_point
        self.skipped: dict[str, str] = {}
        self._keep = max(1, keep_last)
        self._pinned = pinned or (lambda: ())
        self._there: list[Path] | None = None  # oldest first, as long as nobody else writes here
        self._manifests: dict[str, Manifest] = {}  # by name, of those read or written
        # of this history: only the one before the last shares its segments, so the newest two share none
        self._history: deque[Checkpoint] = deque(maxlen=min(2, self._keep))

    def clean(self) -> None:
        """Remove what killed saves left aside. Only for the one run that holds the folder."""
        if self.folder.is_dir():
            clear_asides(self.folder)

    def adopt(self, checkpoint: Checkpoint | None) -> None:
        """This session goes on from `checkpoint`, which was proved sound: its segments may be shared."""
        if checkpoint is not None:
            self._history.append(checkpoint)

    def paths(self) -> list[Path]:
        """The checkpoints by name, oldest first; sound or not."""
        return checkpoint_paths(self.folder)

    def save(self, state: TrainingState, header: Header) -> CompletedSave:
        """`begin` and `PendingSave.write` in one."""
        return self.begin(state, header).write()

    def begin(self, state: TrainingState, header: Header) -> PendingSave:
        """Make the folder aside and link the segments that can be shared; `PendingSave.write` does the rest.

        Raises:
            StateError: not numeric, too little space, or the folder cannot be written; the
                checkpoints there are as they were.
        """
        began = self.clock.ticks()
        ring = state.ring or Ring(arrays={}, total=0)
        arrays.check_numeric(state.arrays)
        arrays.check_numeric(ring.arrays)
        source, spans = self._plan(ring)
        row_bytes = sum(array[:1].nbytes for array in ring.arrays.values())
        needed = sum(array.nbytes for array in state.arrays.values())
        needed += row_bytes * sum(stop - start for start, stop, shared in spans if shared is None)
        require_space(self.folder, needed, "a checkpoint", "; earlier checkpoints are untouched")
        if self._there is None:
            self._there = self.paths()
        serial = _serial(self._there[-1]) + 1 if self._there else 1
        path = self.folder / f"step-{header.job_steps:012d}-{serial:04d}"
        contents: list[_Content] = [
            (ARRAYS, arrays.encode(state.arrays)),
            (STATE, [msgspec.json.encode(state.values)]),
        ]
        with writing(path) as aside:
            make_empty(aside)
            self.at_point("before-write")
            for start, stop, shared in spans:
                if shared is not None and link(source, shared, aside):
                    contents.append(shared)
                else:
                    rows = ring.rows(start, stop)
                    contents.append((segments.name_of(start, stop), arrays.encode(rows)))
        manifest = Manifest(
            **msgspec.structs.asdict(header),
            tier=state.tier,
            serial=serial,
            rows=None if state.ring is None else ring.total,
            parts=(),
        )
        return PendingSave(
            store=self,
            path=path,
            manifest=manifest,
            contents=contents,
            surplus=self._surplus(header, self._there),
            large=needed > COPY_MOST_BYTES,
            began=began,
        )

    def _plan(self, ring: Ring) -> tuple[Path, list[tuple[int, int, Part | None]]]:
        """Where segments can be shared from; the rows of each segment of `ring`, and that one of it."""
        source = self._history[0] if len(self._history) == self._history.maxlen else None
        if source is None or (source.manifest.rows or 0) > ring.total:
            return self.folder, [(start, stop, None) for start, stop in segments.cut(ring)]
        parts = [part for part in source.manifest.segments if part.name.endswith(arrays.SUFFIX)]
        by_stop = {segments.span(part.name)[1]: part for part in parts}
        plan: list[tuple[int, int, Part | None]] = []
        for start, stop in segments.cut(ring):
            part = by_stop.get(stop)
            if part is not None and segments.span(part.name)[0] > start:
                part = None  # it lacks rows
            plan.append((start, stop, part))
        return source.path, plan

    def completed(self, checkpoint: Checkpoint, surplus: Sequence[Path]) -> None:
        """`checkpoint` was written: remove `surplus`, then count it among those that are there."""
        for path in surplus:
            gone = aside_of(path)  # not half a checkpoint under its own name
            with contextlib.suppress(OSError):
                os.rename(path, gone)
                self.at_point("mid-rotation")
                remove(gone)
            self._manifests.pop(path.name, None)
        self._history.append(checkpoint)
        self._there = [path for path in self._there or () if path not in surplus] + [checkpoint.path]
        self._manifests[checkpoint.path.name] = checkpoint.manifest

    def _surplus(self, new: Header, earlier: list[Path]) -> list[Path]:
        """What goes when `new` is there. Unsound ones first: they must not push out what may be needed."""
        unsound = [p for p in earlier if p.name in self.skipped]
        sound = [(p, self._manifest(p)) for p in earlier if p.name not in self.skipped]
        mine = [(p, m) for p, m in sound if m is not None and m.training == new.training]
        precious = to_keep([*(m for _, m in mine), new])
        surplus = [p for p, m in mine[: max(0, len(mine) + 1 - self._keep)] if m not in precious]
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

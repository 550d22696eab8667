"""States that a user's function writes and reads: a folder each, whole or absent, believed when proved."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from arzbench import store
from arzbench.digest import digest
from arzbench.errors import StateError, UsageError
from arzbench.facts import Record
from arzbench.saves.read import Part, UnsoundError, open_part, prove, why
from arzbench.saves.write import Files, aside_of, clear_asides, make_empty, remove, writing

SCHEMA, MANIFEST = "arzbench/state", "session.json"
#: states that are kept
KEEP = 2
#: of a manifest that is read: some hundred thousand files
MAX_BYTES = 1 << 26
_NAME = re.compile(r"state-(\d{6,})")


class LoopState(Record, frozen=True, kw_only=True):
    """One loop of units: how far it is, and what its units took, the newest of them."""

    name: str
    total: int
    done: int
    ended: bool = False  # before `total`: it was told to
    first_s: tuple[float, ...] = ()  # the first unit of a session
    later_s: tuple[float, ...] = ()


class SessionState(Record, frozen=True, kw_only=True):
    """What a session knows where it saves."""

    loops: tuple[LoopState, ...]
    save_s: tuple[float, ...]  # what earlier saves took
    sessions: int
    elapsed_s: float  # over all sessions
    created: str  # ISO


class StateManifest(SessionState, frozen=True, kw_only=True):
    """session.json: the state, its files, and a digest over all of it."""

    parts: tuple[Part, ...]
    digest: str = ""

    def expected_digest(self) -> str:
        """The digest of all other fields."""
        return digest({**msgspec.to_builtins(self), "digest": ""})


class StateFolders:
    """The states in a folder. `skipped` tells the unsound ones met so far, name -> reason."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.skipped: dict[str, str] = {}
        self._sound: list[Path] = []  # found or saved, oldest first
        self._serial = 0

    @property
    def last(self) -> Path | None:
        """The newest that was found or saved."""
        return self._sound[-1] if self._sound else None

    def newest(self) -> tuple[Path, StateManifest] | None:
        """The newest sound state, what killed saves left cleared away; None where there is no state at all.

        Raises:
            StateError: only unsound ones are there.
            UsageError: written by a newer arzbench.
        """
        clear_asides(self.folder)
        found = sorted((p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)), key=_serial)
        self._serial = _serial(found[-1]) if found else 0
        for path in reversed(found):
            try:
                manifest = _proved(path)
            except UnsoundError as error:
                self.skipped[path.name] = str(error)
                continue
            self._sound = [path]
            return path, manifest
        if found:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())
            raise StateError(
                f"no sound state in {self.folder}: {reasons}", "restore one, or begin anew in another folder"
            )
        return None

    def save(self, fill: Callable[[Path], object], state: SessionState) -> Path:
        """Have `fill` write files into an empty folder; make them durable; then give the folder its name.

        Raises:
            StateError: `fill` failed, or the disk did; the states there are as they were.
            UsageError: it wrote no file, or something that is not a plain file.
        """
        path = self.folder / f"state-{self._serial + 1:06d}"
        elsewhere = "choose another folder"
        with writing(path, elsewhere) as aside:
            make_empty(aside)
        try:
            fill(aside)
        except Exception as error:
            shutil.rmtree(aside, ignore_errors=True)
            kept = f"{self.last} is untouched" if self.last else "nothing was saved before"
            raise StateError(f"save() failed: {type(error).__name__}: {why(error)}", kept) from error
        with writing(path, elsewhere), Files(aside) as files:
            manifest = StateManifest(**msgspec.structs.asdict(state), parts=_durable(aside))
            manifest = msgspec.structs.replace(manifest, digest=manifest.expected_digest())
            files.write(MANIFEST, [store.encode(SCHEMA, manifest)])
            files.sync()
            store.fsync_directory(aside)
            os.rename(aside, path)
            store.fsync_directory(self.folder)
        self._serial += 1
        self._sound.append(path)
        self._remove_surplus()
        return path

    def _remove_surplus(self) -> None:
        self._sound = self._sound[-KEEP:]
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.name) and path not in self._sound:
                gone = aside_of(path)  # not half a state under its own name
                with contextlib.suppress(OSError):
                    os.rename(path, gone)
                    remove(gone)


def _serial(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _durable(aside: Path) -> tuple[Part, ...]:
    """Sync all that was written into `aside` to disk; its files by their paths in it.

    Raises:
        UsageError: there is none, or something else than plain files and folders.
    """
    parts = []
    for folder, folders, names in os.walk(aside, topdown=False):
        for name in sorted(names + folders):
            path = Path(folder) / name
            inside = path.relative_to(aside).as_posix()
            mode = path.lstat().st_mode
            if inside == MANIFEST or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                shutil.rmtree(aside, ignore_errors=True)
                what = "a name that is taken" if inside == MANIFEST else "not a plain file"
                raise UsageError(f"save() wrote {inside!r}: {what}", "write plain files of other names")
            if stat.S_ISREG(mode):
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    os.fsync(file.fileno())
                    parts.append(Part(name=inside, sha256=sha256, bytes=os.fstat(file.fileno()).st_size))
        store.fsync_directory(Path(folder))
    if not parts:
        shutil.rmtree(aside, ignore_errors=True)
        raise UsageError(
            "save(folder) wrote no file into the folder it was given",
            'for example: torch.save(model.state_dict(), folder / "model.pt")',
        )
    return tuple(sorted(parts, key=lambda part: part.name))


def _proved(path: Path) -> StateManifest:
    """The manifest of the state `path`, every file of which was read and compared.

    Raises:
        UnsoundError: something is missing or differs.
        UsageError: written by a newer arzbench.
    """
    try:
        with open_part(path / MANIFEST) as file:
            data = json.loads(file.read(MAX_BYTES))
        version = data.get("version") if isinstance(data, dict) else None
        newer = isinstance(version, int) and version > store.VERSIONS[SCHEMA]
    except (OSError, ValueError, RecursionError) as error:
        raise UnsoundError(f"{MANIFEST}: {why(error)}") from error
    if newer:
        store.check_schema(data, SCHEMA, str(path / MANIFEST))
    try:
        body = store.check_schema(data, SCHEMA, MANIFEST)
        manifest: StateManifest = store.convert(body, StateManifest, MANIFEST)
        if manifest.digest != manifest.expected_digest():
            raise ValueError("its digest does not match")
    except (UsageError, ValueError, OverflowError) as error:
        raise UnsoundError(f"{MANIFEST}: {why(error)}") from error
    for part in manifest.parts:
        name = PurePosixPath(part.name)
        if name.is_absolute() or ".." in name.parts:
            raise UnsoundError(f"{MANIFEST}: {part.name!r} is not within the state")
        try:
            with open_part(path / name) as file:
                prove(file, part)
        except (OSError, ValueError) as error:
            raise UnsoundError(f"{part.name}: {why(error)}") from error
    return manifest

"""Checkpoints at a URL, as copies of the local ones, verified.

    URL/run.json                 what the run set out to do
    URL/session.json             its newest session: who uploads, and what another machine is to know
    URL/parts/<sha256>           a part, under its content's name: what is there is never sent again
    URL/<checkpoint>.json        its manifest, byte for byte; written last, so a checkpoint is whole or absent

Any URL that fsspec knows. One session uploads: the one that began last. See docs/reference/checkpoints.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from arzbench import store
from arzbench.errors import ArzbenchError, StateError, UsageError
from arzbench.facts import Record
from arzbench.records import RunRecord
from arzbench.saves.checkpoints import believed, require_space
from arzbench.saves.filesystem import EXTRAS, hint, open_url, why
from arzbench.saves.read import (
    MANIFEST,
    Manifest,
    UnsoundError,
    parse_manifest,
    read_manifest,
    to_keep,
    verify,
)

RUN, SESSION, PARTS = "run.json", "session.json", "parts"
#: of each training
KEEP_LAST = 2
_MANIFEST_NAME = re.compile(r"(step-\d{12,}-\d{4,})\.json")


class RemoteSession(Record, frozen=True, kw_only=True):
    """session.json: the session that uploads, and what the next one is to know, wherever it is."""

    run: str
    token: str  # of this session alone
    machine: str
    began: str  # ISO
    budgets: tuple[int, ...]  # of this session, training env steps per training
    sessions: int  # that have begun, this one included


class TakenError(StateError):
    """Another session uploads to the URL."""


class Remote:
    """The checkpoints of one run at a URL."""

    def __init__(self, url: str) -> None:
        """Open `url`; nothing is written.

        Raises:
            UsageError: not a URL, nothing here can speak its protocol, or it cannot be read.
        """
        self.url = url.rstrip("/")
        self._fs, self._root, self._protocol = open_url(self.url)
        self._verified: set[str] = set()
        self._session: RemoteSession | None = None
        self._known: set[str] | None = None  # names and parts that were there before, or are of this session
        self._unsound: set[str] = set()  # checkpoints there that cannot be believed

    def check(self) -> None:
        """Raise a `UsageError` unless files can be written, read and removed below the URL."""
        probe = self._path(f".arzbench-{os.getpid()}")
        try:
            if self._protocol in EXTRAS:
                self._fs.info(self._root.partition("/")[0])  # a bucket is never made here
            else:
                self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"arzbench")
            same = self._fs.cat_file(probe) == b"arzbench"
            self._fs.rm_file(probe)
        except Exception as error:
            raise UsageError(f"cannot use {self.url}: {why(error)}", hint(self._protocol)) from error
        if not same:
            raise UsageError(f"cannot use {self.url}: what is written there is not read back")

    def _path(self, *names: str) -> str:
        return "/".join((self._root.rstrip("/"), *names))

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Any failure of the storage within becomes a `StateError`."""
        try:
            yield
        except (ArzbenchError, UnsoundError):
            raise
        except Exception as error:
            raise StateError(f"cannot read {self.url}: {why(error)}", hint(self._protocol)) from error

    def run_record(self) -> RunRecord | None:
        """The run whose checkpoints are here, None before the first.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            text = self._fs.cat_file(self._path(RUN))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise UsageError(f"cannot read {self.url}: {why(error)}", hint(self._protocol)) from error
        record: RunRecord = store.decode(text, "arzbench/run", RunRecord, f"{self.url}/{RUN}")
        if record.id in ("", ".", "..") or {"/", "\0"} & set(record.id):  # it becomes a folder here
            raise UsageError(f"{self.url}/{RUN}: {record.id!r} cannot name a run", "name another URL")
        return record

    def session(self) -> RemoteSession | None:
        """The newest session that took the URL; None before the first, or where a kill tore what it wrote.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            text = self._fs.cat_file(self._path(SESSION))
            json.loads(text)
        except (FileNotFoundError, ValueError):
            return None
        except Exception as error:
            raise UsageError(f"cannot read {self.url}: {why(error)}", hint(self._protocol)) from error
        session: RemoteSession = store.decode(
            text, "arzbench/session", RemoteSession, f"{self.url}/{SESSION}"
        )
        return session

    def names(self) -> list[str]:
        """Its checkpoints by name, oldest first, sound or not."""
        try:
            paths = self._fs.ls(self._root, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        matches = [_MANIFEST_NAME.fullmatch(str(path).rpartition("/")[2]) for path in paths]
        return sorted((m[1] for m in matches if m), key=lambda name: int(name.rpartition("-")[2]))

    def manifest(self, name: str) -> Manifest:
        """The manifest of a checkpoint.

        Raises:
            UnsoundError: torn, damaged or gone.
        """
        try:
            text = self._fs.cat_file(self._path(f"{name}.json"))
        except FileNotFoundError as error:
            raise UnsoundError("it was removed meanwhile") from error
        return parse_manifest(text, f"{self.url}/{name}.json")

    def complete(self, manifest: Manifest) -> bool:
        """Whether every part is there with its size; its bytes are not read."""
        sizes = self._sizes()
        return all(sizes.get(part.sha256) == part.bytes for part in manifest.parts)

    def _sizes(self) -> dict[str, int]:
        try:
            entries = self._fs.ls(self._path(PARTS), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        return {str(entry["name"]).rpartition("/")[2]: int(entry["size"]) for entry in entries}

    # -- up ---------------------------------------------------------------------------------------

    def take(self, session: RemoteSession, run_file: Path | None = None) -> None:
        """From now on `session` uploads here, and none that began before.

        Raises:
            TakenError: another run has come first, or another session at the same moment.
        """
        self._fs.makedirs(self._path(PARTS), exist_ok=True)
        record = self.run_record()
        if record is not None and record.id != session.run:
            raise TakenError(f"{self.url} holds the checkpoints of run {record.id}", "name another URL")
        if record is None and run_file is not None:
            self._pipe(RUN, run_file.read_bytes())
        self._pipe(SESSION, store.encode("arzbench/session", session))
        self._session = session
        self._require_ours()

    def _require_ours(self) -> None:
        newest = self.session() if self._session is not None else None
        if self._session is not None and newest is not None and newest.token != self._session.token:
            raise TakenError(
                f"{self.url} was taken by {newest.machine} at {newest.began} for run {newest.run}",
                "stop one of the two; the states here are kept",
            )

    def upload(self, path: Path) -> None:
        """Copy the local checkpoint `path`, then remove what it supersedes there.

        Raises:
            TakenError: another session uploads here now; nothing of it was touched.
            Exception: any other, try again.
        """
        manifest = read_manifest(path)
        self._require_ours()
        self._fs.makedirs(self._path(PARTS), exist_ok=True)
        sizes = self._sizes()
        if self._known is None:
            self._known = {*self.names(), *sizes}
        for part in manifest.parts:
            if part.sha256 in self._verified and sizes.get(part.sha256) == part.bytes:
                continue
            target = self._path(PARTS, part.sha256)
            if sizes.get(part.sha256) != part.bytes or self._sha256(target) != part.sha256:
                self._fs.put_file(str(path / part.name), target)
                sha256 = self._sha256(target)
                if sha256 != part.sha256:
                    raise OSError(f"{part.name} came back with sha256 {sha256[:12]}, not {part.sha256[:12]}")
            self._verified.add(part.sha256)
        self._require_ours()
        self._pipe(f"{path.name}.json", (path / MANIFEST).read_bytes())
        self._known.update((path.name, *(part.sha256 for part in manifest.parts)))
        self._unsound.discard(path.name)
        self._prune(path.name, manifest)

    def _pipe(self, name: str, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # what is whole is not put at risk: a write may be torn
            if self._fs.cat_file(self._path(name)) == content:
                return
        self._fs.pipe_file(self._path(name), content)
        if self._fs.cat_file(self._path(name)) != content:
            raise OSError(f"{name} did not come back as it was sent")

    def _sha256(self, target: str) -> str:
        with self._fs.open(target, "rb") as file:
            return str(hashlib.file_digest(file, "sha256").hexdigest())

    def _prune(self, new: str, uploaded: Manifest) -> None:
        """Remove what `new` supersedes: of each training all but the last, and the best, and what is unsound.

        Only what was there when this session began to upload, or is its own, and is not newer than `new`:
        another session may be at work. A part goes with the last manifest that names it.
        """
        sizes, known = self._sizes(), self._known or set()
        if any(sizes.get(part.sha256) != part.bytes for part in uploaded.parts):
            raise OSError(f"parts of {new} have been removed")
        names = self.names()
        older = names[: names.index(new)] if new in names else []
        named, surplus = {part.sha256 for part in uploaded.parts}, []
        there = self._readable(n for n in names if n != new)
        whole = {
            name for name, manifest in there.items()
            if all(sizes.get(part.sha256) == part.bytes for part in manifest.parts)
        }  # fmt: skip
        broken = known & self._unsound
        counted = [there[name] for name in older if name in whole - broken] + [uploaded]
        for name, manifest in there.items():
            of_training = [m for m in counted if m.training == manifest.training]
            wanted = name in whole and manifest in [*of_training[-KEEP_LAST:], *to_keep(of_training)]
            if name in broken or (name in known and name in older and not wanted):
                surplus.append(name)
            else:
                named.update(part.sha256 for part in manifest.parts)
        self._require_ours()
        for name in surplus:
            self._fs.rm_file(self._path(f"{name}.json"))
        for sha256 in known & sizes.keys() - named:
            self._fs.rm_file(self._path(PARTS, sha256))
            self._verified.discard(sha256)

    def _readable(self, names: Iterable[str]) -> dict[str, Manifest]:
        """Those whose manifests can be read."""
        found = {}
        for name in names:
            with contextlib.suppress(UnsoundError):
                found[name] = self.manifest(name)
        return found

    # -- down -------------------------------------------------------------------------------------

    def download(self, name: str, folder: Path) -> Path:
        """Copy a checkpoint into `folder`, where it appears whole and proved or not at all.

        What bears its name there, being damaged, gives way to it.

        Raises:
            UnsoundError: torn or damaged there.
            StateError: too little space.
        """
        manifest = self.manifest(name)
        aside, path = folder / f".{name}.tmp", folder / name
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, manifest.bytes, f"{self.url}/{name}")
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, aside, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            for part in manifest.parts:
                try:
                    size = int(self._fs.info(self._path(PARTS, part.sha256))["size"])
                    if size != part.bytes:
                        raise UnsoundError(f"{part.name}: {size} bytes, the manifest says {part.bytes}")
                    self._fs.get_file(self._path(PARTS, part.sha256), str(aside / part.name))
                except FileNotFoundError as error:
                    raise UnsoundError(f"{part.name}: it is not there") from error
            (aside / MANIFEST).write_bytes(self._fs.cat_file(self._path(f"{name}.json")))
            verify(aside, read_manifest(aside))
            for file in aside.iterdir():
                _fsync(file)
            store.fsync_directory(aside)
            damaged = folder / f".{name}.damaged.tmp"
            stack.callback(shutil.rmtree, damaged, ignore_errors=True)
            if path.exists():
                os.rename(path, damaged)
            os.rename(aside, path)
            store.fsync_directory(folder)
        self._verified.update(part.sha256 for part in manifest.parts)  # not to be read once more
        return path

    def fetch(self, study: str, folder: Path) -> list[str]:
        """Copy the newest sound state of each training, and its best, where newer than what `folder` has.

        Returns a message for each that was fetched or passed over.

        Raises:
            StateError: it cannot be read, or holds states and none is sound.
        """
        messages: list[str] = []
        newest: set[int] = set()
        have = {path.name for path in believed(folder)}
        last = max((int(name.rpartition("-")[2]) for name in have), default=0)
        try:
            names = self.names()
            new = [n for n in names if n not in have and int(n.rpartition("-")[2]) > last]
            there = {n: m for n, m in self._readable(new).items() if m.study == study}
            for name in reversed(new):
                try:
                    manifest = self.manifest(name) if name not in there else there[name]
                    of_training = [m for m in there.values() if m.training == manifest.training]
                    wanted = manifest.training not in newest or manifest in to_keep(of_training)
                    if name not in there or not wanted:
                        continue
                    self.download(name, folder)
                except UnsoundError as error:
                    self._unsound.add(name)
                    there.pop(name, None)
                    messages.append(f"passed over {self.url}/{name}: {error}")
                    continue
                newest.add(manifest.training)
                messages.append(f"fetched {name} from {self.url}")
        except ArzbenchError:
            raise
        except Exception as error:
            raise StateError(f"cannot read {self.url}: {why(error)}", hint(self._protocol)) from error
        if names and not newest and not have:
            with self.reading():
                moved = self.names() != names
            if moved:  # by a session that still uploads
                return messages + self.fetch(study, folder)
            raise StateError(
                f"no sound checkpoint at {self.url}: {'; '.join(messages)}",
                "restore one, or name another URL",
            )
        return messages


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def all_manifests(remote: Remote) -> Iterator[tuple[str, Manifest | None, str]]:
    """Each checkpoint at a URL: name, manifest, and why it cannot be believed (empty: complete)."""
    for name in remote.names():
        try:
            manifest = remote.manifest(name)
        except UnsoundError as error:
            yield name, None, str(error)
            continue
        yield name, manifest, "" if remote.complete(manifest) else "parts are missing or of another size"

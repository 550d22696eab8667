"""Checkpoints at a URL, as copies of the local ones: uploaded beside the training, verified, retried.

    URL/run.json                 what the run set out to do
    URL/parts/<sha256>           a part, under its content's name: what is there is never sent again
    URL/<checkpoint>.json        its manifest, byte for byte; written last, so a checkpoint is whole or absent

Any URL that fsspec knows. The local folder stays the primary: no failure here reaches the training.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arzbench import store
from arzbench.errors import ArzbenchError, StateError, UsageError
from arzbench.records import RunRecord
from arzbench.run.checkpoint import believed, require_space
from arzbench.run.manifest import MANIFEST, Manifest, UnsoundError, parse_manifest, read_manifest, verify

#: of the quota, and at most, in seconds: held back at the end for what is not uploaded yet
UPLOAD_SHARE, UPLOAD_MOST_S = 0.05, 10.0
#: seconds a session without a quota waits at its end
UNLIMITED_FLUSH_S = 60.0
#: seconds to the next attempt after a failure: doubled each time
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
RUN, PARTS = "run.json", "parts"
#: of each training
KEEP_LAST = 2
_MANIFEST_NAME = re.compile(r"(step-\d{12,}-\d{4,})\.json")
_CHUNK = 1 << 20
#: what to try where a file system is missing
_EXTRAS = {"s3": 'pip install "arzbench[s3]"', "s3a": 'pip install "arzbench[s3]"'}
#: given to file systems: no attempt may hang for long, and retrying is done here
_OPTIONS: dict[str, dict[str, Any]] = {
    protocol: {
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 1}},
        "use_listings_cache": False,
    }
    for protocol in ("s3", "s3a")
}


class Remote:
    """The checkpoints of one run at a URL."""

    def __init__(self, url: str) -> None:
        """Open `url`; nothing is written.

        Raises:
            UsageError: not a URL, nothing here can speak its protocol, or it cannot be read.
        """
        self.url = url.rstrip("/")
        protocol, separator, rest = url.partition("://")
        if not separator or not rest.strip("/"):
            raise UsageError(
                f"--checkpoints {url!r} is not a URL", "for example s3://bucket/run-1 or file:///mnt/run-1"
            )
        fsspec: Any = _import_fsspec(url)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url, **_OPTIONS.get(protocol, {}))
        except ImportError as error:
            hint = _EXTRAS.get(protocol, f"install what fsspec needs for {protocol}://")
            raise UsageError(f"{url}: {error}", hint) from error
        except ValueError as error:
            raise UsageError(f"{url}: {error}", "a URL that fsspec knows: s3://, file://, ...") from error
        self._protocol = protocol
        self._verified: set[str] = set()

    def check(self) -> None:
        """Raise a `UsageError` unless files can be written, read and removed below the URL."""
        probe = self._path(f".arzbench-{os.getpid()}")
        try:
            if self._protocol in _EXTRAS:
                self._fs.info(self._root.partition("/")[0])  # a bucket is never made here
            else:
                self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"arzbench")
            same = self._fs.cat_file(probe) == b"arzbench"
            self._fs.rm_file(probe)
        except Exception as error:
            raise UsageError(f"cannot use {self.url}: {_why(error)}", _hint(self._protocol)) from error
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
            raise StateError(f"cannot read {self.url}: {_why(error)}", _hint(self._protocol)) from error

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
            raise UsageError(f"cannot read {self.url}: {_why(error)}", _hint(self._protocol)) from error
        record: RunRecord = store.decode(text, "arzbench/run", RunRecord, f"{self.url}/{RUN}")
        if record.id in ("", ".", "..") or {"/", "\0"} & set(record.id):  # it becomes a folder here
            raise UsageError(f"{self.url}/{RUN}: {record.id!r} cannot name a run", "name another URL")
        return record

    def names(self) -> list[str]:
        """Its checkpoints by name, oldest first, sound or not."""
        try:
            found = self._fs.ls(self._root, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        matches = [_MANIFEST_NAME.fullmatch(str(path).rpartition("/")[2]) for path in found]
        return sorted((m[1] for m in matches if m), key=lambda name: int(name.rpartition("-")[2]))

    def manifest(self, name: str) -> Manifest:
        """The manifest of a checkpoint.

        Raises:
            UnsoundError: torn or damaged.
        """
        return parse_manifest(self._fs.cat_file(self._path(f"{name}.json")), f"{self.url}/{name}.json")

    def complete(self, manifest: Manifest) -> bool:
        """Whether every part is there with its size; its bytes are not read."""
        sizes = self._sizes()
        return all(sizes.get(part.sha256) == part.bytes for part in manifest.parts)

    def _sizes(self) -> dict[str, int]:
        try:
            found = self._fs.ls(self._path(PARTS), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        return {str(entry["name"]).rpartition("/")[2]: int(entry["size"]) for entry in found}

    # -- up ---------------------------------------------------------------------------------------

    def upload(self, path: Path, run_file: Path | None = None) -> None:
        """Copy the local checkpoint `path`, then remove the oldest there. Any exception: try again."""
        manifest = read_manifest(path)
        self._fs.makedirs(self._path(PARTS), exist_ok=True)
        if run_file is not None and RUN not in self._verified:
            self._pipe(RUN, run_file.read_bytes())
            self._verified.add(RUN)
        sizes = self._sizes()
        for part in manifest.parts:
            if part.sha256 in self._verified and part.sha256 in sizes:
                continue
            target = self._path(PARTS, part.sha256)
            if sizes.get(part.sha256) != part.bytes or self._sha256(target) != part.sha256:
                self._fs.put_file(str(path / part.name), target)
                found = self._sha256(target)
                if found != part.sha256:
                    raise OSError(f"{part.name} came back with sha256 {found[:12]}, not {part.sha256[:12]}")
            self._verified.add(part.sha256)
        self._pipe(f"{path.name}.json", (path / MANIFEST).read_bytes())
        self._prune()

    def _pipe(self, name: str, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # what is whole is not put at risk: a write may be torn
            if self._fs.cat_file(self._path(name)) == content:
                return
        self._fs.pipe_file(self._path(name), content)
        if self._fs.cat_file(self._path(name)) != content:
            raise OSError(f"{name} did not come back as it was sent")

    def _sha256(self, target: str) -> str:
        found = hashlib.sha256()
        with self._fs.open(target, "rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
        return found.hexdigest()

    def _prune(self) -> None:
        """Keep the last of each training and its best; then the parts that those name."""
        kept: list[Manifest] = []
        for name in reversed(self.names()):
            try:
                manifest = self.manifest(name)
            except UnsoundError:
                continue
            of_training = [m for m in kept if m.training == manifest.training]
            best_known = any(m.is_best for m in of_training)
            if len(of_training) < KEEP_LAST or (manifest.is_best and not best_known):
                kept.append(manifest)
            else:
                self._fs.rm_file(self._path(f"{name}.json"))
        named = {part.sha256 for manifest in kept for part in manifest.parts}
        for sha256 in self._sizes():
            if sha256 not in named:
                self._fs.rm_file(self._path(PARTS, sha256))
                self._verified.discard(sha256)

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

        Returns what was done and what was passed over, in words.

        Raises:
            StateError: it cannot be read, or holds states and none is sound.
        """
        said: list[str] = []
        newest: set[int] = set()
        best: set[int] = set()
        have = {path.name for path in believed(folder)}
        last = max((int(name.rpartition("-")[2]) for name in have), default=0)
        try:
            names = self.names()
            for name in reversed(names):
                if name in have or int(name.rpartition("-")[2]) <= last:
                    continue
                try:
                    manifest = self.manifest(name)
                    wanted = manifest.training not in newest
                    if manifest.study != study or not (
                        wanted or (manifest.is_best and manifest.training not in best)
                    ):
                        continue
                    self.download(name, folder)
                except UnsoundError as error:
                    said.append(f"passed over {self.url}/{name}: {error}")
                    continue
                newest.add(manifest.training)
                best.update([manifest.training] if manifest.is_best else [])
                said.append(f"fetched {name} from {self.url}")
        except ArzbenchError:
            raise
        except Exception as error:
            raise StateError(f"cannot read {self.url}: {_why(error)}", _hint(self._protocol)) from error
        if names and not newest and not have:
            raise StateError(
                f"no sound checkpoint at {self.url}: {'; '.join(said)}", "restore one, or name another URL"
            )
        return said


class Uploads:
    """Sends checkpoints in a thread of its own: the newest only, again and again until it is there."""

    def __init__(self, remote: Remote, run_file: Path | None = None) -> None:
        self.remote = remote
        self.failed = ""  # why the last attempt failed; empty after a success
        self.done = ""  # name of the newest that is there
        self._run_file = run_file
        self._pending: Path | None = None
        self._current: Path | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def offer(self, path: Path) -> None:
        """Upload `path` next, in place of any that waits."""
        with self._changed:
            self._pending = path
            self._changed.notify_all()

    def pinned(self) -> set[str]:
        """The checkpoints that are needed here still."""
        with self._changed:
            return {path.name for path in (self._pending, self._current) if path is not None}

    def flush(self, limit_s: float) -> list[str]:
        """Wait at most `limit_s` seconds for what is not there yet; what then is missing, in words."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending is None and self._current is None, max(0.0, limit_s))
            left = self._pending or self._current
        if left is None:
            return []
        why = self.failed or "there was no time"
        return [f"not uploaded to {self.remote.url}: {left.name} ({why}); the next session sends it"]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending is not None)
                self._current, self._pending = self._pending, None
            assert self._current is not None
            self._send(self._current)
            with self._changed:
                self._current = None
                self._changed.notify_all()

    def _send(self, path: Path) -> None:
        """Until it is there, gone here, or a newer one waits."""
        delay = FIRST_RETRY_S
        while path.is_dir():
            try:
                self.remote.upload(path, self._run_file)
            except Exception as error:
                self.failed = _why(error)
            else:
                self.failed, self.done = "", path.name
                return
            with self._changed:
                if self._changed.wait_for(lambda: self._pending is not None, delay):
                    return
            delay = min(2 * delay, LAST_RETRY_S)


def _import_fsspec(url: str) -> Any:
    try:
        fsspec = importlib.import_module("fsspec")
        importlib.import_module("fsspec.core")
    except ImportError as error:
        raise UsageError(f"--checkpoints {url} needs fsspec", 'pip install "arzbench[train]"') from error
    return fsspec


def _hint(protocol: str) -> str:
    if protocol in _EXTRAS:
        return (
            "the bucket must exist, credentials come from the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY),\nanother server than Amazon's is named by AWS_ENDPOINT_URL"
        )
    return "name another URL, or leave out --checkpoints"


def _why(error: BaseException) -> str:
    """The error in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:300]


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

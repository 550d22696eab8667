"""Reads and writes versioned JSON: atomic writes; older versions are migrated, newer ones refused."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import statistics
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from arzbench.errors import StateError, UsageError

T = TypeVar("T")
Migration = Callable[[dict[str, Any]], dict[str, Any]]

#: schema -> the version that this arzbench writes
VERSIONS = {
    "arzbench/study": 1,
    "arzbench/platform": 1,
    "arzbench/calibration": 1,
    "arzbench/plan": 4,
    "arzbench/checkpoint": 3,
    "arzbench/ledger": 1,
    "arzbench/report": 1,
    "arzbench/run": 1,
    "arzbench/session": 1,
    "arzbench/state": 1,
    "arzbench/logs": 1,
    "arzbench/validation": 1,
    "arzbench/design": 1,
    "arzbench/bench": 1,
    "arzbench/comparison": 1,
    "arzbench/tuning": 1,
}


def _plan_2(body: dict[str, Any]) -> dict[str, Any]:
    """Add the centre of past ratios, which was their median."""
    spread = body.get("spread")
    if not isinstance(spread, dict):
        return body  # the record's own check says what is wrong
    ratios = [r for r in spread.get("ratios") or () if isinstance(r, float) and r > 0]
    return {**body, "spread": {**spread, "log_centre": math.log(statistics.median(ratios or [1.0]))}}


#: (schema, version) -> converts a body to the next version
MIGRATIONS: dict[tuple[str, int], Migration] = {
    ("arzbench/checkpoint", 1): lambda body: body,  # what is new is optional
    ("arzbench/checkpoint", 2): lambda body: body,  # its parts are other files
    ("arzbench/plan", 1): _plan_2,
    ("arzbench/plan", 2): lambda body: {k: v for k, v in body.items() if k != "calibration_digest"},
    ("arzbench/plan", 3): lambda body: body,  # what is new is optional
}


def encode(schema: str, record: Any) -> bytes:
    """Return `record` as indented JSON, with its schema and version."""
    body = {"schema": schema, "version": VERSIONS[schema], **msgspec.to_builtins(record)}
    return msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n"


def check_schema(data: Any, schema: str, source: str) -> dict[str, Any]:
    """Return the body of `data`, without schema and version, migrated to the newest version.

    Raises:
        UsageError: not this schema, no version, or written by a newer arzbench.
    """
    if not isinstance(data, dict) or data.get("schema") != schema:
        actual = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise UsageError(f"{source}: not a {schema!r} file (its schema is {actual!r})")
    version = data.get("version")
    newest = VERSIONS[schema]
    if not isinstance(version, int) or version < 1:
        raise UsageError(f"{source}: version {version!r} is not a number from 1 to {newest}")
    if version > newest:
        raise UsageError(
            f"{source}: written as {schema} version {version}, this arzbench reads up to {newest}",
            "upgrade it: pip install --upgrade arzbench",
        )
    body = {k: v for k, v in data.items() if k not in ("schema", "version")}
    for step in range(version, newest):
        body = MIGRATIONS[schema, step](body)
    return body


def decode(text: bytes, schema: str, kind: Any, source: str) -> Any:
    """Parse the record in `text`; errors name `source`.

    Raises:
        UsageError: broken JSON, another schema, or a field that does not fit.
    """
    try:
        data = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source}: not valid JSON: {error}", "restore it, or make it anew") from error
    return convert(check_schema(data, schema, source), kind, source)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def convert(data: Any, kind: Any, source: str) -> Any:
    """Convert `data` to a checked record of type `kind` (a class or a union of them)."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {error}") from error


def read_bytes(path: Path, what: str, hint: str = "") -> bytes:
    """Read the bytes of `path`; raise a `UsageError` if that fails."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"no {what} at {path}", hint) from error
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror}", hint) from error


def load_toml(path: Path, what: str) -> dict[str, Any]:
    """Read the table in the TOML file `path`; raise a `UsageError` if that fails."""
    try:
        return tomllib.loads(read_bytes(path, what).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "see docs/reference/formats.md") from error


def load(path: Path, schema: str, kind: type[T], what: str, hint: str = "") -> T:
    """Read the record in the file `path`."""
    record: T = decode(read_bytes(path, what, hint), schema, kind, str(path))
    return record


def fsync_directory(path: Path) -> None:
    """Sync the names in `path` to disk (a no-op where directories cannot be opened)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either the old bytes or all of the new ones at any time.

    Raises:
        StateError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StateError(f"cannot write {path}: {error.strerror}", "free space, or choose --dir") from error
    fsync_directory(path.parent)


def save(path: Path, schema: str, record: Any) -> None:
    """Write `record` to `path` as versioned JSON, atomically."""
    write_atomic(path, encode(schema, record))


class Lines:
    """A file of JSON lines to append to; the first append opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def append(self, record: Any) -> None:
        """Append `record` as one line in a single write; a last line cut off by a kill goes first.

        Raises:
            StateError: the disk is full, or the file cannot be written.
        """
        line = msgspec.json.encode(record) + b"\n"
        try:
            if self._descriptor is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(
                    self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
                )
                line = _mend(self._descriptor) + line
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.close()  # the next append reopens the file and mends what this one left
            raise StateError(f"cannot append to {self.path}: {error.strerror}", "free space") from error

    def sync(self) -> None:
        """Sync all lines to disk.

        Raises:
            StateError: the file cannot be written.
        """
        try:
            if self._descriptor is not None:
                os.fsync(self._descriptor)
        except OSError as error:
            raise StateError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; the next append reopens it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def append_line(path: Path, record: Any) -> None:
    """Append `record` to the JSON lines at `path` (see `Lines`)."""
    with contextlib.closing(Lines(path)) as lines:
        lines.append(record)


def _mend(descriptor: int) -> bytes:
    """Cut off half a last line; return the line end that must come before the next line, if it is missing."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return b""
    last, start = b"", size
    while start and b"\n" not in last:
        start = max(0, start - 65536)
        last = os.pread(descriptor, size - start, start)
    last = last.rpartition(b"\n")[2]
    try:
        json.loads(last)
    except ValueError:
        os.ftruncate(descriptor, size - len(last))
        return b""
    return b"\n"


def read_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """Read the records of a JSONL file; a last line cut off by a kill is skipped."""
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(io.BytesIO(read_bytes(path, "ledger")), 1):
        if line == b"\n":
            continue
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError as error:
            if not line.endswith(b"\n"):
                return
            raise UsageError(f"{path}, line {number}: {error}") from error


def ensure_writable(folder: Path, flag: str = "--dir") -> None:
    """Raise a `UsageError` unless files can be created in `folder`, which is created if absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".arzbench-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write in {folder}: {error.strerror}", f"choose another folder with {flag}"
        ) from error

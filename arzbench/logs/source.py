"""Bytes of a log, whatever holds them: a file, standard input, gzip, Zstandard, UTF-16; in bounded memory."""

from __future__ import annotations

import codecs
import gzip
import importlib
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from arzbench.errors import StateError, UsageError
from arzbench.logs.formats import is_stream

#: bytes read at a time
BLOCK = 1 << 19
#: what is kept of one line; the rest of it is counted and dropped
MAX_LINE = 1 << 16
#: share of control characters above which a file is no log
_BINARY = 0.05
_TEXT = bytes(range(32, 256)) + b"\t\n\r\x1b\x08\x0c\x00"
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
PACKED = (_GZIP, _ZSTD)


class Source:
    """A log as blocks of whole lines.

    `size` counts the (decompressed) bytes seen, `notes` says what was wrong with them.
    """

    def __init__(self, name: str, raw: BinaryIO, *, block: int = BLOCK) -> None:
        """Read from `raw`; `name` is what errors call it."""
        self.name = name
        self.size = 0
        self.notes: list[str] = []
        self.unfinished = False  # the last line has no end
        self._raw = raw
        self._block = block

    def blocks(self) -> Iterator[bytes]:
        """Blocks that end with a line end, the last one perhaps not; of Kaggle's JSON, any pieces.

        Raises:
            UsageError: no text, or compressed in a way that cannot be undone here.
        """
        lines = Lines()
        as_it_comes: bool | None = None
        for data in self._decoded():
            if as_it_comes is None:
                self._refuse_binary(data)
                as_it_comes = is_stream(data)
            self.size += len(data)
            whole = data if as_it_comes else lines.feed(data)
            if whole:
                yield whole
        rest = lines.rest()
        self.unfinished = bool(rest)
        if lines.shortened:
            self.notes.append(f"{lines.shortened:,} lines were longer than {MAX_LINE:,} bytes: shortened")
        if rest:
            yield rest

    def _refuse_binary(self, data: bytes) -> None:
        sample = data[:65536]
        odd = len(sample.translate(None, _TEXT)) + max(0.0, sample.count(0) - 0.3 * len(sample))
        if odd > _BINARY * len(sample):
            raise UsageError(f"{self.name}: this is no text, {odd / len(sample):.0%} of it are control codes")

    def _decoded(self) -> Iterator[bytes]:
        """Text as UTF-8 or in whatever one-byte code it is."""
        chunks = self._unpacked()
        start = next(chunks, b"")
        code = _utf16(start)
        if code is None:
            yield from (c for c in (start.removeprefix(codecs.BOM_UTF8),) if c)
            yield from chunks
            return
        decoder = codecs.getincrementaldecoder(code)(errors="replace")
        yield decoder.decode(start).encode(errors="replace")
        for chunk in chunks:
            yield decoder.decode(chunk).encode(errors="replace")

    def _unpacked(self) -> Iterator[bytes]:
        read1 = getattr(self._raw, "read1", self._raw.read)
        start = read1(self._block)
        stream = _Prefixed(start, read1)
        opened: Callable[[int], bytes] = stream.read
        if start.startswith(_GZIP):
            opened = gzip.GzipFile(fileobj=cast(BinaryIO, io.BufferedReader(stream))).read1
        elif start.startswith(_ZSTD):
            opened = _zstd(io.BufferedReader(stream))
        some = False
        while True:
            try:
                data = opened(self._block)
            except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
                problem = f"the compressed data is damaged or cut off ({error})"
                if not some:
                    raise StateError(
                        f"{self.name}: {problem}", "compress it again, or fetch it anew"
                    ) from error
                self.notes.append(f"{problem}: what came before it was read")
                return
            if not data:
                return
            some = True
            yield data


class Lines:
    """Cuts a stream of bytes at line ends; a line is kept up to MAX_LINE bytes."""

    def __init__(self) -> None:
        self.shortened = 0
        self._rest = bytearray()
        self._dropping = False

    def feed(self, data: bytes) -> bytes:
        """The whole lines there are with `data`."""
        if self._dropping:
            end = data.find(b"\n")
            if end < 0:
                return b""
            data = data[end:]
            self._dropping = False
        end = data.rfind(b"\n") + 1
        whole = bytes(self._rest) + data[:end] if end else b""
        if end:
            self._rest.clear()
        self._rest += data[end:]
        if len(self._rest) > MAX_LINE:
            del self._rest[MAX_LINE:]
            self._dropping = True
            self.shortened += 1
        return whole

    def rest(self) -> bytes:
        """What came after the last line end."""
        return bytes(self._rest)


class _Prefixed(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, start: bytes, read: Callable[[int], bytes]) -> None:
        self._start = start
        self._next = read

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data, self._start = self._start[:size], self._start[size:]
        return data or self._next(size)

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _utf16(start: bytes) -> str | None:
    """The name of the code where it is UTF-16."""
    for mark, code in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if start.startswith(mark):
            return code
    return None


def _zstd(raw: BinaryIO | io.BufferedReader) -> Callable[[int], bytes]:
    try:
        module = importlib.import_module("zstandard")
    except ImportError:
        raise UsageError(
            "reading .zst needs the package zstandard",
            'pip install "arzbench[zstd]", or: zstd -dc FILE | arzbench logs -',
        ) from None
    reader = module.ZstdDecompressor().stream_reader(raw, read_across_frames=True)

    def read(size: int) -> bytes:
        try:
            return bytes(reader.read(size))
        except module.ZstdError as error:
            raise ValueError(str(error)) from error

    return read


def open_source(name: str) -> Source:
    """The log in the file `name`, "-": standard input.

    Raises:
        UsageError: it cannot be opened.
    """
    if name == "-":
        return Source("standard input", sys.stdin.buffer)
    try:
        if os.path.isdir(name):
            raise IsADirectoryError(0, "it is a folder")
        return Source(name, open(name, "rb", buffering=0))
    except OSError as error:
        raise UsageError(
            f"cannot read the log {name}: {error.strerror}", "name a log file, or - for standard input"
        ) from error

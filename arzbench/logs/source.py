"""Reads the bytes of a log (plain, gzip, Zstandard, UTF-16) in bounded memory."""

from __future__ import annotations

import codecs
import gzip
import importlib
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator

from arzbench.errors import StateError, UsageError
from arzbench.logs.formats import is_stream

#: bytes read at a time
BLOCK = 1 << 19
#: a longer line is cut here
MAX_LINE = 1 << 16
#: a file with a larger share of control characters is refused
_BINARY = 0.05
_TEXT = bytes(range(32, 256)) + b"\t\n\r\x1b\x08\x0c\x00"
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
PACKED = (_GZIP, _ZSTD)
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}  # by byte-order mark


class Source:
    """A log as blocks of whole lines.

    `size` counts the decompressed bytes read, `notes` lists what was wrong with them.
    """

    def __init__(self, name: str, raw: io.FileIO | io.BytesIO, *, block: int = BLOCK) -> None:
        """Read from the unbuffered stream `raw`; errors name it `name`."""
        self.name = name
        self.size = 0
        self.notes: list[str] = []
        self._raw = io.BufferedReader(raw, block)
        self._block = block

    def blocks(self) -> Iterator[bytes]:
        """Yield blocks that end with a line end (the last may not); Kaggle's JSON comes in any pieces.

        Raises:
            UsageError: not text, or Zstandard without the package that reads it.
            StateError: the compressed data is damaged from the start.
        """
        lines = LineSplitter()
        is_json_stream: bool | None = None
        for data in self._decoded():
            if is_json_stream is None:
                self._refuse_binary(data)
                is_json_stream = is_stream(data)
            self.size += len(data)
            whole = data if is_json_stream else lines.feed(data)
            if whole:
                yield whole
        if lines.shortened:
            self.notes.append(f"{lines.shortened:,} lines were longer than {MAX_LINE:,} bytes: shortened")
        if rest := lines.rest():
            yield rest

    def _refuse_binary(self, data: bytes) -> None:
        sample = data[:65536]
        odd = len(sample.translate(None, _TEXT)) + max(0.0, sample.count(0) - 0.3 * len(sample))
        if odd > _BINARY * len(sample):
            raise UsageError(f"{self.name}: this is no text, {odd / len(sample):.0%} of it are control codes")

    def _decoded(self) -> Iterator[bytes]:
        """Yield UTF-16 as UTF-8, anything else as it is, without a byte-order mark."""
        chunks = self._unpacked()
        start = next(chunks, b"")
        code = next((code for mark, code in _UTF16.items() if start.startswith(mark)), None)
        if code is None:
            yield from (c for c in (start.removeprefix(codecs.BOM_UTF8),) if c)
            yield from chunks
            return
        decoder = codecs.getincrementaldecoder(code)(errors="replace")
        yield decoder.decode(start).encode(errors="replace")
        for chunk in chunks:
            yield decoder.decode(chunk).encode(errors="replace")

    def _unpacked(self) -> Iterator[bytes]:
        """Yield the bytes, decompressed; data that breaks off ends with a note."""
        start = self._raw.peek(4)
        read: Callable[[int], bytes] = self._raw.read1
        if start.startswith(_GZIP):
            read = gzip.GzipFile(fileobj=self._raw).read1
        elif start.startswith(_ZSTD):
            read = _zstd(self._raw)
        any_read = False
        while True:
            try:
                data = read(self._block)
            except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
                problem = f"the compressed data is damaged or cut off ({error})"
                if not any_read:
                    raise StateError(
                        f"{self.name}: {problem}", "compress it again, or fetch it anew"
                    ) from error
                self.notes.append(f"{problem}: what came before it was read")
                return
            if not data:
                return
            any_read = True
            yield data


class LineSplitter:
    """Splits a stream of bytes into whole lines; cuts each at `MAX_LINE` bytes."""

    def __init__(self) -> None:
        self.shortened = 0
        self._rest = bytearray()
        self._dropping = False

    def feed(self, data: bytes) -> bytes:
        """Return the whole lines that `data` completes."""
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
        """Return what came after the last line end."""
        return bytes(self._rest)


def _zstd(raw: io.BufferedReader[io.FileIO | io.BytesIO]) -> Callable[[int], bytes]:
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
    """Open the log file `name`, or standard input for "-".

    Raises:
        UsageError: it cannot be opened.
    """
    if name == "-":
        return Source("standard input", open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    try:
        if os.path.isdir(name):
            raise IsADirectoryError(0, "it is a folder")
        return Source(name, open(name, "rb", buffering=0))
    except OSError as error:
        raise UsageError(
            f"cannot read the log {name}: {error.strerror}", "name a log file, or - for standard input"
        ) from error

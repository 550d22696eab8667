"""Numeric arrays in an npz archive: written in one go, checked in full before a byte is believed."""

from __future__ import annotations

import functools
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from arzbench.errors import StateError

Array = np.ndarray[Any, Any]
#: shape and dtype
Outline = tuple[tuple[int, ...], np.dtype[Any]]
#: bool, signed, unsigned, float, complex: nothing that could hold an object
NUMERIC = "biufc"
MAX_MEMBERS = 100_000
Data = bytes | bytearray | memoryview
#: smaller arrays are gathered into one piece
AT_ONCE_BYTES = 1 << 16
#: of an entry in a zip archive, what its two headers share, and what the one in the directory has more
_ENTRY, _MORE = struct.Struct("<HHHHHIIIH"), struct.Struct("<HHHHII")
#: names are UTF-8; the first of January 1980; sizes are told elsewhere
_UTF8, _DATE, _BELOW = 0x800, 0x21, (0xFFFFFFFF, 0xFFFFFFFF)
#: what reading a malformed archive may raise
MALFORMED = (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError,
             OverflowError, TypeError, SyntaxError, MemoryError, KeyError)  # fmt: skip


def check_numeric(arrays: Mapping[str, Array]) -> None:
    """Raise a `StateError` naming the first array that is not numeric."""
    for name, array in arrays.items():
        if array.dtype.kind not in NUMERIC:
            raise StateError(f"the array {name!r} has dtype {array.dtype}: only numbers can be saved")


def encoded(arrays: Mapping[str, Array]) -> Iterator[Data]:
    """`arrays` as an uncompressed npz, in pieces; the same arrays give the same bytes.

    The archive that `zipfile` would write, in a fraction of its time: a save has dozens of small arrays.
    Sizes and places are told in 64 bits throughout.
    """
    directory, piece, done = bytearray(), bytearray(), 0  # `piece` is not given yet, `done` bytes are
    for name, array in arrays.items():
        array = np.asarray(array, order="C")
        path, header = f"{name}.npy".encode(), _header(array.dtype.str, array.shape)
        few = array.nbytes < AT_ONCE_BYTES
        data: Data = array.tobytes() if few else array.reshape(-1).view(np.uint8).data
        size = len(header) + array.nbytes
        entry = _ENTRY.pack(45, _UTF8, 0, 0, _DATE, zlib.crc32(data, zlib.crc32(header)), *_BELOW, len(path))
        at = done + len(piece)
        directory += b"PK\1\2\x2d\0" + entry + _MORE.pack(28, 0, 0, 0, 0, _BELOW[0]) + path
        directory += struct.pack("<HHQQQ", 1, 24, size, size, at)
        piece += b"PK\3\4" + entry + b"\x14\0" + path + struct.pack("<HHQQ", 1, 16, size, size) + header
        if few:
            piece += data
        else:
            yield piece
            yield data
            done += len(piece) + array.nbytes
            piece = bytearray()
    at, size, count = done + len(piece), len(directory), len(arrays)
    if not count:
        yield b"PK\5\6" + bytes(18)
        return
    piece += directory
    piece += struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)
    piece += struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
    yield piece + b"PK\5\6\0\0\0\0" + 12 * b"\xff" + b"\0\0"


@functools.lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What comes before the numbers of an array in C order; the same at every save."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def check(file: IO[bytes], size: int) -> dict[str, Outline]:
    """What `file`, of `size` bytes, holds: a `ValueError` unless plain numeric arrays and no more.

    Only headers are read: compressed members (a small file that grows without bound), members that
    share bytes, objects, and shapes that their bytes do not fill are refused before any array is made.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS or len({m.filename for m in members}) != len(members):
            raise ValueError("too many arrays, or two of one name")
        if sum(m.file_size for m in members) > size:
            raise ValueError("arrays larger than their file")
        return {m.filename.removesuffix(".npy"): _check_member(archive, m) for m in members}


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Outline:
    name = member.filename
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(f"{name}: compressed")
    if not name.endswith(".npy"):
        raise ValueError(f"{name}: not an array")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = npy.read_array_header_2_0(file)
        else:
            raise ValueError(f"{name}: npy version {version}")
        header = file.tell()
    if dtype.kind not in NUMERIC:
        raise ValueError(f"{name}: dtype {dtype} is not numeric")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != member.file_size - header:
        raise ValueError(f"{name}: shape {shape} does not fit its {member.file_size - header} bytes")
    return tuple(shape), dtype


def read(file: IO[bytes]) -> dict[str, Array]:
    """The arrays in `file`, which `check` has passed."""
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

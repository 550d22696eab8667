"""Numeric arrays in an npz archive: written in one pass, checked in full before a byte is believed."""

from __future__ import annotations

import functools
import io
import math
import zipfile
from collections.abc import Mapping
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
#: smaller arrays are written in one piece: most are small, and a save has dozens
AT_ONCE_BYTES = 1 << 20
#: what reading a malformed archive may raise
MALFORMED = (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError,
             OverflowError, TypeError, SyntaxError, MemoryError, KeyError)  # fmt: skip


def check_numeric(arrays: Mapping[str, Array]) -> None:
    """Raise a `StateError` naming the first array that is not numeric."""
    for name, array in arrays.items():
        if array.dtype.kind not in NUMERIC:
            raise StateError(f"the array {name!r} has dtype {array.dtype}: only numbers can be saved")


def write(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write `arrays` as an uncompressed npz; `file` need not be seekable."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: the same arrays give the same bytes
            array = np.asarray(array, order="C")
            if array.nbytes <= AT_ONCE_BYTES:
                archive.writestr(info, _header(array.dtype.str, array.shape) + array.tobytes())
                continue
            with archive.open(info, "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


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

"""Reads the arrays of checkpoints of formats 1 and 2: uncompressed npz files.

Everything is checked before an array is made: compressed members (a small file that grows without bound),
members that share bytes, objects, and shapes that their bytes do not fill are refused.
"""

from __future__ import annotations

import math
import zipfile
from typing import IO

import numpy as np
from numpy.lib import format as npy

from arzbench.saves import arrays
from arzbench.saves.arrays import NUMERIC, Array, Outline

SUFFIX = ".npz"
MAX_MEMBERS = 100_000
#: what reading a malformed archive may raise
MALFORMED = (*arrays.MALFORMED, zipfile.BadZipFile, EOFError, RuntimeError, SyntaxError)


def outlines(file: IO[bytes], size: int) -> dict[str, Outline]:
    """Shapes and dtypes of the arrays in `file`, of `size` bytes; raises one of `MALFORMED` at any doubt."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS or len({m.filename for m in members}) != len(members):
            raise ValueError("too many arrays, or two of one name")
        if sum(m.file_size for m in members) > size:
            raise ValueError("arrays larger than their file")
        return {m.filename.removesuffix(".npy"): _outline(archive, m) for m in members}


def _outline(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Outline:
    name = member.filename
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(f"{name}: compressed")
    if not name.endswith(".npy"):
        raise ValueError(f"{name}: not an array")
    with archive.open(member) as file:
        if npy.read_magic(file) != (1, 0):
            raise ValueError(f"{name}: another npy version than 1.0")
        shape, _, dtype = npy.read_array_header_1_0(file)
        size = member.file_size - file.tell()
    if dtype.kind not in NUMERIC:
        raise ValueError(f"{name}: dtype {dtype} is not numeric")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name}: shape {shape} does not fit its {size} bytes")
    return tuple(shape), dtype


def read(file: IO[bytes]) -> dict[str, Array]:
    """The arrays in `file`, which `outlines` has passed."""
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

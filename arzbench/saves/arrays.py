"""Numeric arrays as safetensors: the length of a JSON header, the header, the bytes of each array.

Writing is done here, without a copy; the library's `serialize` takes 20 times as long (decision 0012).
Reading is the library's: it refuses gaps, overlaps, and shapes that their bytes do not fill.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError, deserialize

from arzbench.errors import StateError

Array = np.ndarray[Any, Any]
#: shape and dtype
Outline = tuple[tuple[int, ...], np.dtype[Any]]
Data = bytes | memoryview
SUFFIX = ".safetensors"
#: bool, signed, unsigned, float, complex: nothing that could hold an object
NUMERIC = "biufc"
_DTYPES = {
    "BOOL": "?", "I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4",
    "I64": "<i8", "U64": "<u8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_CODES = {np.dtype(text): code for code, text in _DTYPES.items()}
#: where the header names the dtypes that the format has no code for; those arrays are stored as bytes
_METADATA = "__metadata__"
_OTHER_DTYPE = re.compile(r"[<>][iufc]\d{1,2}")
#: what reading malformed data may raise
MALFORMED = (SafetensorError, ValueError, OSError, OverflowError, TypeError, MemoryError, KeyError)


def check_numeric(arrays: Mapping[str, Array]) -> None:
    """Raise a `StateError` naming the first array that cannot be saved."""
    for name, array in arrays.items():
        if array.dtype.kind not in NUMERIC:
            raise StateError(f"the array {name!r} has dtype {array.dtype}: only numbers can be saved")
        if name == _METADATA:
            raise StateError(f"an array cannot be named {name!r}", "the file format uses that name itself")


def encode(arrays: Mapping[str, Array]) -> list[Data]:
    """`arrays` as the pieces of a file, in order; pieces share the memory of the arrays.

    The same arrays give the same bytes.
    """
    header: dict[str, Any] = {}
    others: dict[str, str] = {}
    coded = []
    for name, array in arrays.items():
        code = _CODES.get(array.dtype)
        if code is None:
            code, others[name] = "U8", array.dtype.str
            array = np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint8)
        coded.append((name, code, array))
    if others:
        header[_METADATA] = others
    pieces: list[Data] = []
    end = 0
    for name, code, array in sorted(coded, key=lambda one: -one[2].itemsize):  # each is aligned
        start, end = end, end + array.nbytes
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": (start, end)}
        if array.nbytes:
            pieces.append(np.ascontiguousarray(array).data)
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *pieces]


def decode(data: bytes) -> dict[str, Array]:
    """The arrays in the file content `data`, by name; one of `MALFORMED` unless it is what `encode` makes."""
    arrays: dict[str, Array] = {}
    for name, tensor in sorted(deserialize(data)):  # type: ignore[no-untyped-call]
        dtype = _DTYPES.get(tensor["dtype"])
        if dtype is None:
            raise ValueError(f"{name}: dtype {tensor['dtype']} is not read here")
        arrays[name] = np.ndarray(tensor["shape"], dtype, tensor["data"])
    header = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")])
    for name, dtype in header.get(_METADATA, {}).items():
        if not _OTHER_DTYPE.fullmatch(dtype):
            raise ValueError(f"{name}: dtype {dtype[:20]!r} is not read here")
        arrays[name] = arrays[name].view(dtype)[..., 0]
    return arrays

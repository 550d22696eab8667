"""Nested Python values as numeric arrays and plain JSON, and back with the same types.

What JSON has no word for is a dict of one key that begins with "$": {"$array": name} and
{"$scalar": name} stand for an entry of the arrays, {"$tuple": [...]} and {"$float": "nan"} for
themselves. Nothing read back can be anything but numbers, text, lists, tuples and dicts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from arzbench.errors import StateError

Array = np.ndarray[Any, Any]
#: dtype kinds that hold numbers: bool, signed, unsigned, float, complex
NUMERIC = "biufc"
_PLAIN = frozenset({type(None), bool, int, str})


def pack(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """`value` as JSON; its arrays are put into `arrays`, as they are, under `name` and the path to them.

    Raises:
        StateError: something that is neither a number, text, None, list, tuple, dict nor array.
    """
    if type(value) in _PLAIN:  # most values are: a state is packed again and again
        return value
    if isinstance(value, np.ndarray):
        return _store("$array", value, name, arrays)
    if isinstance(value, np.generic):
        return _store("$scalar", np.asarray(value), name, arrays)
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, tuple):
        return {"$tuple": [pack(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [pack(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or key.startswith("$"):
                raise StateError(f"cannot save {name}: the key {key!r} is not plain text")
        return {key: pack(item, f"{name}/{key}", arrays) for key, item in value.items()}
    raise StateError(f"cannot save {name}: a {type(value).__name__} is neither number, text nor array")


def _store(mark: str, value: Array, name: str, arrays: dict[str, Array]) -> dict[str, str]:
    if value.dtype.kind not in NUMERIC:
        raise StateError(f"cannot save {name}: dtype {value.dtype} is not numeric")
    arrays[name] = value
    return {mark: name}


def unpack(packed: Any, arrays: Mapping[str, Array]) -> Any:
    """The value that `pack` made `packed` and `arrays` of.

    Raises:
        StateError: an array is missing or not numeric, or a mark is not one of ours.
    """
    if isinstance(packed, list):
        return [unpack(item, arrays) for item in packed]
    if not isinstance(packed, dict):
        return packed
    marks = [key for key in packed if key.startswith("$")]
    if not marks:
        return {key: unpack(item, arrays) for key, item in packed.items()}
    if len(packed) == 1:
        mark, what = marks[0], packed[marks[0]]
        if mark == "$array":
            return _find(what, arrays)
        if mark == "$scalar" and (array := _find(what, arrays)).shape == ():
            return array[()]
        if mark == "$tuple" and isinstance(what, list):
            return tuple(unpack(item, arrays) for item in what)
        if mark == "$float" and what in ("nan", "inf", "-inf"):
            return float(what)
    raise StateError(f"the saved state holds something unknown: {str(packed)[:80]}")


def _find(name: Any, arrays: Mapping[str, Array]) -> Array:
    array = arrays.get(name) if isinstance(name, str) else None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMERIC:
        raise StateError(f"the saved state lacks the numeric array {str(name)[:80]!r}")
    return array


def digest(value: Any) -> str:
    """The SHA-256 of `value`: equal exactly when every bit, shape and type is."""
    arrays: dict[str, Array] = {}
    text = json.dumps(pack(value, "", arrays), sort_keys=True)
    whole = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        whole.update(f"{name}{array.dtype.str}{array.shape}".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def generator_state(generator: np.random.Generator | None) -> dict[str, Any] | None:
    """The state of a random generator, None for one that was never made."""
    return None if generator is None else dict(generator.bit_generator.state)


def make_generator(state: Any) -> np.random.Generator | None:
    """A generator in the state that `generator_state` gave.

    Raises:
        StateError: of a kind that Gymnasium does not use.
    """
    if state is None:
        return None
    if state["bit_generator"] != "PCG64":
        raise StateError(f"the saved random generator is a {str(state['bit_generator'])[:40]}, not a PCG64")
    bits = np.random.PCG64()
    bits.state = state
    return np.random.Generator(bits)

"""Values go through arrays and JSON and come back with the same types and bits."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from arzbench.errors import StateError
from arzbench.sb3 import codec

ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=3),
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.text(max_size=5).filter(lambda key: not key.startswith("$"))
VALUES = st.recursive(
    PLAIN | ARRAYS | st.floats(width=32).map(np.float32) | st.booleans().map(np.bool_),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


def there_and_back(value: Any) -> Any:
    arrays: dict[str, Any] = {}
    text = json.dumps(codec.pack(value, "v", arrays), allow_nan=False)
    return codec.unpack(json.loads(text), arrays)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (a != a and b != b)


@given(VALUES)
def test_values_come_back(value: Any) -> None:
    back = there_and_back(value)
    assert same(value, back)
    assert codec.digest(value) == codec.digest(back)


def test_arrays_are_not_copied() -> None:
    array = np.zeros(2)
    arrays: dict[str, Any] = {}
    codec.pack({"a": array}, "v", arrays)
    assert arrays["v/a"] is array


@pytest.mark.parametrize("value", [object(), {1: 2}, {"$array": "x"}, np.array([object()]), b"x", {1, 2}, 1j])
def test_what_is_not_plain_cannot_be_saved(value: Any) -> None:
    with pytest.raises(StateError, match="cannot save v"):
        codec.pack(value, "v", {})


HOSTILE = [
    {"$array": "absent"},
    {"$array": ["a"]},
    {"$array": "objects"},
    {"$array": "a", "$scalar": "a"},
    {"$scalar": "a"},
    {"$tuple": "a"},
    {"$float": "1e5"},
    {"$float": []},
    {"$code": "print(1)"},
    [{"nested": {"$array": "absent"}}],
]


@pytest.mark.parametrize("packed", HOSTILE)
def test_what_was_never_packed_is_refused(packed: Any) -> None:
    with pytest.raises(StateError):
        codec.unpack(packed, {"a": np.zeros(2), "objects": np.array([None])})


def test_the_digest_sees_types_shapes_and_signs() -> None:
    values = [0, 0.0, -0.0, "0", [0], (0,), np.zeros(1), np.zeros(1, np.float32), np.zeros((1, 1)), False]
    assert len({codec.digest(value) for value in values}) == len(values)

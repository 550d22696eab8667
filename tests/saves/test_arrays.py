"""Arrays as safetensors: whatever NumPy can hold is read back, by us and, if it can be, by the library."""

import itertools

import numpy as np
import pytest
import safetensors.numpy

from arzbench.errors import StateError
from arzbench.saves import arrays

SHAPES = [(), (0,), (3,), (0, 5), (2, 3, 4), (200, 200)]
NUMBERS = np.arange(60_000.0).reshape(300, 200)


def of_every_kind(codes: str, orders: str) -> dict[str, arrays.Array]:
    return {
        f"{code}{order}{shape}": np.arange(np.prod(shape, dtype=int))
        .reshape(shape)
        .astype(np.dtype(code).newbyteorder(order))
        for code, order, shape in itertools.product(codes, orders, SHAPES)
    }


def of_every_layout() -> dict[str, arrays.Array]:
    constant = NUMBERS.copy()
    constant.flags.writeable = False
    return {
        "transposed": NUMBERS.T,
        "steps": NUMBERS[::3, ::-2],
        "columns": np.asfortranarray(NUMBERS),
        "repeated": np.broadcast_to(np.float32(3), (100, 100, 10)),
        "constant": constant,
        "many dimensions": np.zeros((1,) * 32),
        'ünï/cödé "日本語"\n': np.arange(3),
        "": np.arange(2),
        "x" * 5000: np.arange(2),
    }


def content(given: dict[str, arrays.Array]) -> bytes:
    return b"".join(arrays.encode(given))


def check(found: dict[str, arrays.Array], given: dict[str, arrays.Array]) -> None:
    assert found.keys() == given.keys()
    for name, array in given.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "given", [of_every_kind("?bBhHiIlLqQefd", "<"), of_every_layout(), {}], ids=["kinds", "layouts", "none"]
)
def test_what_is_written_is_read_back_here_and_by_the_library(given: dict[str, arrays.Array]) -> None:
    check(arrays.decode(content(given)), given)
    check(safetensors.numpy.load(content(given)), given)
    assert content(dict(given)) == content(given)


def test_dtypes_that_the_format_has_no_code_for_are_read_back() -> None:
    given = of_every_kind("hIqefdgFDG", ">") | of_every_kind("gFDG", "<")
    given["big-endian and transposed"] = NUMBERS.astype(">f4").T
    check(arrays.decode(content(given)), given)


def test_the_name_of_the_metadata_is_refused() -> None:
    with pytest.raises(StateError, match="cannot be named '__metadata__'"):
        arrays.check_numeric({"__metadata__": np.arange(2)})

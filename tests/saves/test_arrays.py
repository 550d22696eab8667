"""The npz that a checkpoint is written as: whatever numpy can hold is what numpy, and we, read back."""

import io
import itertools
import zipfile

import numpy as np
import pytest

from arzbench.saves import arrays

SHAPES = [(), (0,), (3,), (0, 5), (2, 3, 4), (200, 200)]
NUMBERS = np.arange(60_000.0).reshape(300, 200)


def of_every_kind() -> dict[str, arrays.Array]:
    found: dict[str, arrays.Array] = {}
    for code, order, shape in itertools.product("?bBhHiIlLqQefdgFDG", "<>", SHAPES):
        kind = np.dtype(code).newbyteorder(order)
        found[f"{code}{order}{shape}"] = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind)
    return found


def of_every_layout() -> dict[str, arrays.Array]:
    constant = NUMBERS.copy()
    constant.flags.writeable = False
    return {
        "transposed": NUMBERS.T,
        "steps": NUMBERS[::3, ::-2],
        "backwards": NUMBERS[::-1],
        "columns": np.asfortranarray(NUMBERS),
        "big-endian and transposed": NUMBERS.astype(">f4").T,
        "repeated": np.broadcast_to(np.float32(3), (100, 100, 10)),
        "constant": constant,
        "many dimensions": np.zeros((1,) * 32),
        "ünï/cödé 日本語": np.arange(3),
        "": np.arange(2),
        "x" * 5000: np.arange(2),
    }


def archive(given: dict[str, arrays.Array]) -> bytes:
    return b"".join(bytes(piece) for piece in arrays.encoded(given))


@pytest.mark.parametrize("given", [of_every_kind(), of_every_layout(), {}], ids=["kinds", "layouts", "none"])
def test_what_is_written_is_read_back_by_numpy_and_here(given: dict[str, arrays.Array]) -> None:
    content = archive(given)
    outlines = arrays.check(io.BytesIO(content), len(content))
    assert outlines == {name: (array.shape, array.dtype) for name, array in given.items()}
    with np.load(io.BytesIO(content), allow_pickle=False) as by_numpy:
        for found in (by_numpy, arrays.read(io.BytesIO(content))):
            assert list(found) == list(given)
            for name, array in given.items():
                assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
                assert found[name].tobytes() == array.tobytes()
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.testzip() is None
    assert archive(given) == content

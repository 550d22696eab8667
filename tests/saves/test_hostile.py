"""Checkpoints made by an enemy, manifests made to match: refused, and nothing is executed."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from arzbench.saves.read import ARRAYS, MANIFEST, STATE, read_manifest
from tests.saves.states import filled, header, names, newest, opened, part_of, reseal, state

NPZ = "arrays.npz"


def refused(folder: Path, attack: Callable[[Path], None], arrays: str, version: int) -> str:
    """Why the second of two checkpoints is skipped after the attack, its manifest vouching for it."""
    filled(folder, 2)
    path = folder / "step-000000000002-0002"
    (path / ARRAYS).rename(path / arrays)
    parts = [part_of(path / arrays), part_of(path / STATE)]
    attack(path)
    for index, part in enumerate(parts):
        if (file := path / part.name).is_file() and not file.is_symlink():
            parts[index] = part_of(file)
    reseal(path, version=version, parts=tuple(parts))
    checkpoints = opened(folder)
    found = checkpoints.newest("study-1")
    assert found is not None
    assert found.load().values == {"step": 1}
    return checkpoints.skipped[path.name]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trap,)


# safetensors


def tensors(header: Any, size: int = 0, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(size)


def tensor(shape: list[Any], start: int, end: int, dtype: str = "I8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def other(dtype: Any, name: str = "a") -> dict[str, Any]:
    """An array of bytes that the metadata calls something else."""
    return {"__metadata__": {name: dtype}, "a": tensor([1, 8], 0, 8, "U8")}


SAFETENSORS = {
    "nothing": b"",
    "a pickle": pickle.dumps(Payload(Path("/nowhere"))),
    "a header beyond the file": tensors({}, length=1000),
    "an absurd header": tensors({}, length=2**63),
    "not an object": tensors([1]),
    "deep JSON": tensors(b'{"a":' + b"[" * 100_000),
    "not UTF-8": tensors(b'{"\xff":' + json.dumps(tensor([4], 0, 4)).encode() + b"}", 4),
    "a gap": tensors({"a": tensor([4], 0, 4), "b": tensor([4], 8, 12)}, 12),
    "an overlap": tensors({"a": tensor([4], 0, 4), "b": tensor([4], 2, 6)}, 6),
    "the same bytes twice": tensors({"a": tensor([4], 0, 4), "b": tensor([4], 0, 4)}, 4),
    "bytes left over": tensors({"a": tensor([4], 0, 4)}, 5),
    "too few bytes": tensors({"a": tensor([4], 0, 4)}, 3),
    "another shape": tensors({"a": tensor([5], 0, 4)}, 4),
    "an absurd shape": tensors({"a": tensor([10**15], 0, 4)}, 4),
    "a negative shape": tensors({"a": tensor([-2, -2], 0, 4)}, 4),
    "an overflowing shape": tensors({"a": tensor([2**32, 2**32], 0, 0)}),
    "no rows, but endless ones": tensors({"a": tensor([0, 2**63], 0, 0)}),
    "too many dimensions": tensors({"a": tensor([1] * 100, 0, 1)}, 1),
    "objects": tensors({"a": tensor([1], 0, 8, "O")}, 8),
    "a dtype that NumPy lacks": tensors({"a": tensor([4], 0, 8, "BF16")}, 8),
    "objects by the metadata": tensors(other("|O8"), 8),
    "objects by another name": tensors(other("O"), 8),
    "records by the metadata": tensors(other("<i4,<i4"), 8),
    "text by the metadata": tensors(other("<U2"), 8),
    "a size that does not fit": tensors(other("<c16"), 8),
    "a dtype of an absent array": tensors(other(">f8", "b"), 8),
}


@pytest.mark.parametrize("attack", SAFETENSORS)
def test_hostile_arrays_are_refused(tmp_path: Path, attack: str) -> None:
    why = refused(tmp_path, lambda path: put(path / ARRAYS, SAFETENSORS[attack]), ARRAYS, 3)
    assert why.startswith(f"{ARRAYS}: ")


def put(file: Path, content: bytes) -> None:
    file.write_bytes(content)


# npz, in checkpoints of formats 1 and 2


def npy(shape: str, body: bytes, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def archive(file: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, content in members.items():
            written.writestr(name, content)


def a_little_compression(file: Path) -> None:
    """No larger than the archive as a whole, and still not stored as it is."""
    archive(file, {"a.npy": npy("(1000,)", os.urandom(8000)), "b.npy": npy("(1,)", bytes(8))})
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as written:
        written.writestr("c.npy", npy("(9,)", bytes(72)))
    with zipfile.ZipFile(file) as written:
        assert sum(m.file_size for m in written.infolist()) <= file.stat().st_size


def two_of_one_name(file: Path) -> None:
    archive(file, {"a.npy": npy("(1,)", b"12345678"), "b.npy": npy("(1,)", b"87654321")})
    file.write_bytes(file.read_bytes().replace(b"b.npy", b"a.npy"))


def lying_directory(file: Path) -> None:
    """The archive's directory claims a member of 4 GB, and the array's header agrees."""
    rows = 500_000_000
    content = npy(f"({rows},)", b"")
    archive(file, {"a.npy": content})
    whole = bytearray(file.read_bytes())
    at = whole.index(b"PK\x01\x02") + 20
    whole[at : at + 8] = (len(content) + 8 * rows).to_bytes(4, "little") * 2
    file.write_bytes(whole)


def member(content: bytes) -> Callable[[Path, Path], None]:
    return lambda file, trap: archive(file, {"a.npy": content})


ARCHIVES: dict[str, Callable[[Path, Path], None]] = {
    "objects": lambda file, trap: np.savez(file, weights=np.array([Payload(trap)], dtype=object)),
    "a pickle": lambda file, trap: put(file, pickle.dumps(Payload(trap))),
    "a pickle within": lambda file, trap: archive(file, {"a.npy": pickle.dumps(Payload(trap))}),
    "code in a header": lambda file, trap: archive(
        file, {"a.npy": npy(f"__import__('pathlib').Path({str(trap)!r}).touch()", b"")}
    ),
    "a bomb": lambda file, trap: archive(
        file, {"a.npy": npy("(10000000,)", bytes(80_000_000))}, zipfile.ZIP_DEFLATED
    ),
    "a little compression": lambda file, trap: a_little_compression(file),
    "objects that fit": member(npy("(1,)", b"12345678", "'|O'")),
    "text that fits": member(npy("(2,)", b"12345678", "'<U1'")),
    "an absurd shape": member(npy(f"({10**15},)", b"12345678")),
    "a negative shape": member(npy("(-1, -1)", b"12345678")),
    "an overflowing shape": member(npy(f"({2**32}, {2**32})", b"")),
    "two of one name": lambda file, trap: two_of_one_name(file),
    "a lying directory": lambda file, trap: lying_directory(file),
}


@pytest.mark.parametrize("attack", ARCHIVES)
def test_hostile_archives_of_older_formats_are_refused_and_execute_nothing(
    tmp_path: Path, attack: str
) -> None:
    trap = tmp_path / "executed"
    why = refused(tmp_path / "store", lambda path: ARCHIVES[attack](path / NPZ, trap), NPZ, 2)
    assert why.startswith(f"{NPZ}: ")
    assert not trap.exists()


@pytest.mark.parametrize(("arrays", "version"), [(NPZ, 3), (ARRAYS, 2)])
def test_a_format_does_not_take_the_files_of_another(tmp_path: Path, arrays: str, version: int) -> None:
    why = refused(tmp_path, lambda path: None, arrays, version)
    assert "its parts are not" in why


# the other files


def link_to_elsewhere(file: Path) -> None:
    (secret := file.parent.parent / "secret.json").write_text("{}")
    file.unlink()
    file.symlink_to(secret)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "attack",
    [link_to_elsewhere, pipe, lambda file: put(file, b"[" * 200_000), lambda file: put(file, b"[1]")],
    ids=["link", "pipe", "deep", "array"],
)
def test_a_hostile_state_is_refused(tmp_path: Path, attack: Callable[[Path], None]) -> None:
    why = refused(tmp_path, lambda path: attack(path / STATE), ARRAYS, 3)
    assert why.startswith(f"{STATE}: ")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "arrays.safetensors/../state.json", ""])
def test_a_part_outside_is_never_opened(tmp_path: Path, name: str) -> None:
    filled(tmp_path, 2)
    path = tmp_path / "step-000000000002-0002"
    arrays, values = read_manifest(path).parts
    reseal(path, parts=(arrays, msgspec.structs.replace(values, name=name)))
    checkpoints = opened(tmp_path)
    found = checkpoints.newest("study-1")
    assert found is not None
    assert found.manifest.num_timesteps == 1
    assert "its parts are not" in checkpoints.skipped[path.name]


def test_a_linked_directory_is_not_a_checkpoint(tmp_path: Path) -> None:
    filled(tmp_path / "elsewhere", 1)
    filled(tmp_path / "store", 1)
    (tmp_path / "store" / "step-000000000009-0009").symlink_to(
        tmp_path / "elsewhere" / "step-000000000001-0001"
    )
    checkpoints = opened(tmp_path / "store")
    found = checkpoints.newest("study-1")
    assert found is not None
    assert found.path.name == "step-000000000001-0001"
    assert checkpoints.skipped == {"step-000000000009-0009": "not a directory"}
    checkpoints.save(state(2), header(2))
    assert [name[-4:] for name in names(tmp_path / "store")] == ["0001", "0010"]
    assert len(names(tmp_path / "elsewhere")) == 1
    assert not list((tmp_path / "store").glob(".*"))


NONSENSE = b'{"schema": "arzbench/checkpoint", "version": 3, "elapsed_s": NaN}'


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"[1]", b"null", b"{}", b" " * (2 << 20), b"\xff\xfe", NONSENSE]
)
def test_a_manifest_of_nonsense_is_skipped(tmp_path: Path, text: bytes) -> None:
    filled(tmp_path, 2)
    (tmp_path / "step-000000000002-0002" / MANIFEST).write_bytes(text)
    assert newest(tmp_path).manifest.num_timesteps == 1


@pytest.mark.parametrize("value", [b"NaN", b"1e999", b"1" + b"0" * 400, b'"3"', b"null", b"-Infinity"])
def test_a_manifest_with_a_strange_number_is_skipped(tmp_path: Path, value: bytes) -> None:
    filled(tmp_path, 2)
    path = tmp_path / "step-000000000002-0002" / MANIFEST
    content = path.read_bytes()
    assert content.count(b'"elapsed_s": 2.0') == 1
    path.write_bytes(content.replace(b'"elapsed_s": 2.0', b'"elapsed_s": ' + value))
    assert newest(tmp_path).manifest.num_timesteps == 1

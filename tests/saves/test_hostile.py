"""Checkpoints made by an enemy, manifests made to match: refused, and nothing is executed."""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from arzbench import store
from arzbench.saves.checkpoints import ARRAYS, MANIFEST, STATE, Part, read_manifest
from tests.saves.states import filled, header, names, newest, opened, state


def reseal(path: Path, **changes: Any) -> None:
    """A manifest that vouches for whatever is in `path` now."""
    parts = tuple(
        Part(name=name, sha256=_sha256(path / name), bytes=(path / name).stat().st_size)
        for name in (ARRAYS, STATE)
        if (path / name).is_file()
    )
    manifest = msgspec.structs.replace(read_manifest(path), **{"parts": parts, **changes})
    manifest = msgspec.structs.replace(manifest, digest=manifest.expected_digest())
    (path / MANIFEST).write_bytes(store.encode("arzbench/checkpoint", manifest))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trap,)


def npy(shape: str, body: bytes, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)


def pickled(path: Path, trap: Path) -> None:
    np.savez(path / ARRAYS, weights=np.array([Payload(trap)], dtype=object))


def pure_pickle(path: Path, trap: Path) -> None:
    (path / ARRAYS).write_bytes(pickle.dumps(Payload(trap)))


def pickled_member(path: Path, trap: Path) -> None:
    archive(path / ARRAYS, {"weights.npy": pickle.dumps(Payload(trap))})


def code_in_a_header(path: Path, trap: Path) -> None:
    archive(path / ARRAYS, {"a.npy": npy(f"__import__('pathlib').Path({str(trap)!r}).touch()", b"")})


def zip_bomb(path: Path, trap: Path) -> None:
    members = {"a.npy": npy("(10000000,)", bytes(80_000_000))}
    archive(path / ARRAYS, members, zipfile.ZIP_DEFLATED)


def a_little_compression(path: Path, trap: Path) -> None:
    """No larger than the archive as a whole, and still not stored as it is."""
    archive(path / ARRAYS, {"a.npy": npy("(1000,)", os.urandom(8000)), "b.npy": npy("(1,)", bytes(8))})
    with zipfile.ZipFile(path / ARRAYS, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("c.npy", npy("(9,)", bytes(72)))
    with zipfile.ZipFile(path / ARRAYS) as file:
        assert sum(m.file_size for m in file.infolist()) <= (path / ARRAYS).stat().st_size


def objects_that_fit(path: Path, trap: Path) -> None:
    archive(path / ARRAYS, {"a.npy": npy("(1,)", b"12345678", "'|O'")})


def text_that_fits(path: Path, trap: Path) -> None:
    archive(path / ARRAYS, {"a.npy": npy("(2,)", b"12345678", "'<U1'")})


def absurd_shape(path: Path, trap: Path) -> None:
    archive(path / ARRAYS, {"a.npy": npy(f"({10**15},)", b"12345678")})


def negative_shape(path: Path, trap: Path) -> None:
    archive(path / ARRAYS, {"a.npy": npy("(-1, -1)", b"12345678")})


def overflowing_shape(path: Path, trap: Path) -> None:
    archive(path / ARRAYS, {"a.npy": npy(f"({2**32}, {2**32})", b"")})


def two_of_one_name(path: Path, trap: Path) -> None:
    archive(path / ARRAYS, {"a.npy": npy("(1,)", b"12345678"), "b.npy": npy("(1,)", b"87654321")})
    content = (path / ARRAYS).read_bytes()
    (path / ARRAYS).write_bytes(content.replace(b"b.npy", b"a.npy"))


def lying_directory(path: Path, trap: Path) -> None:
    """The archive's directory claims a member of 4 GB, and the array's header agrees."""
    rows = 500_000_000
    content = npy(f"({rows},)", b"")
    archive(path / ARRAYS, {"a.npy": content})
    whole = bytearray((path / ARRAYS).read_bytes())
    at = whole.index(b"PK\x01\x02") + 20
    whole[at : at + 8] = (len(content) + 8 * rows).to_bytes(4, "little") * 2
    (path / ARRAYS).write_bytes(whole)


def link_to_elsewhere(path: Path, trap: Path) -> None:
    secret = path.parent / "secret.json"
    secret.write_text("{}")
    (path / STATE).unlink()
    (path / STATE).symlink_to(secret)


def pipe(path: Path, trap: Path) -> None:
    (path / STATE).unlink()
    os.mkfifo(path / STATE)


def deep_json(path: Path, trap: Path) -> None:
    (path / STATE).write_bytes(b"[" * 200_000)


def not_an_object(path: Path, trap: Path) -> None:
    (path / STATE).write_bytes(b"[1]")


HOSTILE = [
    pickled, pure_pickle, pickled_member, code_in_a_header, zip_bomb, a_little_compression, absurd_shape,
    negative_shape, overflowing_shape, objects_that_fit, text_that_fits, two_of_one_name, lying_directory,
    link_to_elsewhere, pipe, deep_json, not_an_object,
]  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_checkpoint_is_refused_and_executes_nothing(
    tmp_path: Path, attack: Callable[[Path, Path], None]
) -> None:
    folder, trap = tmp_path / "store", tmp_path / "executed"
    filled(folder, 2)
    path = folder / "step-000000000002-0002"
    parts = read_manifest(path).parts
    attack(path, trap)
    regular = all((path / p.name).is_file() for p in parts)
    reseal(path, **({} if regular else {"parts": parts}))
    checkpoints = opened(folder)
    found = checkpoints.newest("study-1")
    assert found is not None
    assert found.load().values == {"step": 1}
    assert path.name in checkpoints.skipped
    assert not trap.exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "arrays.npz/../state.json", ""])
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


NONSENSE = b'{"schema": "arzbench/checkpoint", "version": 1, "elapsed_s": NaN}'


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

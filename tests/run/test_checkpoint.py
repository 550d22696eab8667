"""Checkpoints: what is saved comes back; what cannot be believed is refused and executes nothing."""

import hashlib
import json
import math
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from arzbench import store
from arzbench.clock import VirtualClock
from arzbench.errors import StateError, UsageError
from arzbench.run.checkpoint import (
    ARRAYS,
    MANIFEST,
    STATE,
    Checkpoint,
    CheckpointStore,
    Header,
    Part,
    read_manifest,
)
from arzbench.workloads.base import TrainingState

ROOT = Path(__file__).resolve().parent.parent.parent

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.dictionaries(
    st.text(), st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
NUMBERS = st.sampled_from(["?", "i1", "<i8", ">u4", "f2", "<f4", "f8", "c16"])
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
ARRAY = NUMBERS.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))


def header(step: int = 0, **changes: Any) -> Header:
    given: dict[str, Any] = {
        "study": "study-1",
        "training": 0,
        "num_timesteps": step,
        "job_steps": step,
        "elapsed_s": float(step),
        "sessions": 1,
        "ledger": step,
        "versions": {"numpy": np.__version__},
        "created": "2026-01-01T00:00:00",
    }
    return Header(**{**given, **changes})


def state(step: int = 0, rows: int = 50) -> TrainingState:
    arrays = {"weights": np.arange(rows) + step, "policy/layer.0": np.full((3, 2), step, np.float32)}
    return TrainingState(arrays=arrays, values={"step": step}, tier="exact")


def opened(folder: Path, keep_last: int = 2) -> CheckpointStore:
    return CheckpointStore(folder, keep_last, VirtualClock())


def newest(folder: Path) -> Checkpoint:
    found = opened(folder).newest("study-1")
    assert found is not None
    return found


def filled(folder: Path, steps: int = 3, keep_last: int = 5) -> CheckpointStore:
    checkpoints = opened(folder, keep_last)
    for step in range(1, steps + 1):
        checkpoints.save(state(step), header(step))
    return checkpoints


def names(folder: Path) -> list[str]:
    return [path.name for path in opened(folder).paths()]


@settings(max_examples=40)
@given(arrays=st.dictionaries(NAMES, ARRAY, max_size=4), values=VALUES)
def test_every_state_comes_back_as_it_was(
    arrays: dict[str, np.ndarray[Any, Any]], values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    opened(folder).save(TrainingState(arrays=arrays, values=values, tier="reset"), header())
    found = newest(folder).load()
    assert found.values == values
    assert found.tier == "reset"
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        back = found.arrays[name]
        assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_values_that_other_json_would_lose_survive(tmp_path: Path) -> None:
    values = {"best": -math.inf, "random": 2**127 + 1, "nothing": None, "not": math.nan}
    opened(tmp_path).save(TrainingState(arrays={}, values=values, tier="exact"), header())
    back = newest(tmp_path).load().values
    assert math.isnan(back.pop("not"))
    assert back == {"best": -math.inf, "random": 2**127 + 1, "nothing": None}


def test_views_and_orders_of_memory_come_back(tmp_path: Path) -> None:
    arrays = {"f": np.asfortranarray(np.arange(6).reshape(2, 3)), "view": np.arange(10)[::3]}
    opened(tmp_path).save(TrainingState(arrays=arrays, values={}, tier="exact"), header())
    back = newest(tmp_path).load().arrays
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


def test_the_manifest_tells_all(tmp_path: Path) -> None:
    saved = opened(tmp_path).save(state(7), header(7, training=2, done=True))
    data = json.loads((saved.path / MANIFEST).read_bytes())
    assert (data["schema"], data["version"], data["study"]) == ("arzbench/checkpoint", 1, "study-1")
    assert (data["num_timesteps"], data["training"], data["done"], data["tier"]) == (7, 2, True, "exact")
    assert [p["name"] for p in data["parts"]] == [ARRAYS, STATE]
    assert saved.bytes == sum((saved.path / p["name"]).stat().st_size for p in data["parts"])
    assert saved.path.name == "step-000000000007-0001"


def test_the_newest_is_by_order_of_saving_not_by_step(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, 2)
    checkpoints.save(state(1), header(1))
    assert newest(tmp_path).path.name == "step-000000000001-0003"


def test_the_last_k_of_each_training_are_kept(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path, keep_last=2)
    for training in (0, 1):
        for step in (1, 2, 3):
            checkpoints.save(state(step), header(step, training=training))
    assert [name[-4:] for name in names(tmp_path)] == ["0002", "0003", "0005", "0006"]
    first = opened(tmp_path).newest("study-1", training=0)
    assert first is not None
    assert first.path.name.endswith("0003")
    assert opened(tmp_path).newest("study-1", training=2) is None


def test_keeping_none_still_keeps_one(tmp_path: Path) -> None:
    filled(tmp_path, 3, keep_last=0)
    assert names(tmp_path) == ["step-000000000003-0003"]


def test_an_empty_or_absent_folder_has_none(tmp_path: Path) -> None:
    assert opened(tmp_path).newest("study-1") is None
    assert opened(tmp_path / "absent").newest("study-1") is None


# Damage.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # a digit of the manifest, so that it stays JSON; the middle of the others
    at = content.index(b'"elapsed_s": 3') + 13 if path.name == MANIFEST else len(content) // 2
    content[at] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


DAMAGES = [
    (part, damage)
    for part in (ARRAYS, STATE, MANIFEST)
    for damage in (truncate, flip, empty, lengthen, Path.unlink)
    if (part, damage) != (MANIFEST, truncate)  # its last byte is a line end: nothing is lost
]


@pytest.mark.parametrize(("part", "damage"), DAMAGES)
def test_a_damaged_newest_gives_the_one_before_and_the_reason(
    tmp_path: Path, part: str, damage: Callable[[Path], None]
) -> None:
    filled(tmp_path)
    last = tmp_path / "step-000000000003-0003"
    damage(last / part)
    checkpoints = opened(tmp_path)
    found = checkpoints.newest("study-1")
    assert found is not None
    assert found.load().values == {"step": 2}
    assert list(checkpoints.skipped) == [last.name]
    assert checkpoints.skipped[last.name].startswith(part)


@settings(max_examples=60)
@given(data=st.data())
def test_any_flipped_bit_is_noticed_or_harmless(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    filled(folder, 2)
    part = folder / "step-000000000002-0002" / data.draw(st.sampled_from([ARRAYS, STATE, MANIFEST]))
    content = bytearray(part.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    part.write_bytes(content)
    try:
        found = newest(folder)
    except UsageError:  # a flip of the version itself makes it newer
        assert part.name == MANIFEST
        return
    expected = found.manifest.num_timesteps
    assert found.load().values == {"step": expected}
    assert expected == 1 or part.name == MANIFEST


def test_damaged_ones_never_push_out_sound_ones(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    truncate(tmp_path / "step-000000000003-0003" / ARRAYS)
    checkpoints = opened(tmp_path, keep_last=2)
    assert checkpoints.newest("study-1") is not None
    checkpoints.save(state(4), header(4))
    assert [name[-4:] for name in names(tmp_path)] == ["0002", "0004"]


def test_all_damaged_gives_none_and_every_reason(tmp_path: Path) -> None:
    filled(tmp_path)
    for path in opened(tmp_path).paths():
        truncate(path / STATE)
    checkpoints = opened(tmp_path)
    assert checkpoints.newest("study-1") is None
    assert len(checkpoints.skipped) == 3


def test_a_newer_version_is_one_clear_error(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "step-000000000003-0003" / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(UsageError, match="written as arzbench/checkpoint version 2") as caught:
        newest(tmp_path)
    assert "upgrade" in caught.value.hint


def test_another_study_is_one_clear_error(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(StateError, match="belongs to another study") as caught:
        opened(tmp_path).newest("study-2")
    assert "--run-id" in caught.value.hint
    assert len(names(tmp_path)) == 3


# What cannot be written.


def test_too_little_space_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = filled(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    class Full:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Full)
    with pytest.raises(StateError, match=r"1.05 MB needed, 1 kB free") as caught:
        checkpoints.save(state(4), header(4))
    assert "untouched" in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_a_write_that_fails_halfway_leaves_the_earlier_ones_and_no_litter(tmp_path: Path) -> None:
    """A real failing write: the system refuses files beyond a size."""
    checkpoints = filled(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StateError, match="cannot write the checkpoint"):
            checkpoints.save(state(4, rows=100_000), header(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.rglob("*")) == before
    assert newest(tmp_path).load().values == {"step": 3}


def test_a_file_in_place_of_the_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(StateError, match=r"cannot (read|write in) .*store"):
        opened(tmp_path / "store").save(state(), header())


@pytest.mark.parametrize("bad", [np.array([object()]), np.array(["text"]), np.array([(1, 2)], "i4,i4")])
def test_what_is_not_a_number_is_not_saved(tmp_path: Path, bad: np.ndarray[Any, Any]) -> None:
    with pytest.raises(StateError, match=r"'bad' has dtype .*only numbers"):
        opened(tmp_path).save(TrainingState(arrays={"bad": bad}, values={}, tier="exact"), header())
    assert names(tmp_path) == []


# Hostile checkpoints, their manifests made to match.


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
    """The archive's directory claims a member of 4 GB."""
    archive(path / ARRAYS, {"a.npy": npy("(1,)", b"12345678")})
    content = bytearray((path / ARRAYS).read_bytes())
    at = content.index(b"PK\x01\x02") + 20
    content[at : at + 8] = b"\xfe\xff\xff\xff" * 2
    (path / ARRAYS).write_bytes(content)


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
    pickled, pure_pickle, pickled_member, code_in_a_header, zip_bomb, absurd_shape, negative_shape,
    overflowing_shape, two_of_one_name, lying_directory, link_to_elsewhere, pipe, deep_json, not_an_object,
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


def test_damage_after_the_proof_is_an_error_of_state(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    found = newest(tmp_path)
    truncate(found.path / ARRAYS)
    empty(found.path / ARRAYS)
    with pytest.raises(StateError, match="cannot read the checkpoint"):
        found.load()

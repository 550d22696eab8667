"""Checkpoints: what is saved comes back; what cannot be believed is refused and executes nothing."""

import json
import math
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from arzbench.errors import StateError, UsageError
from arzbench.saves.read import ARRAYS, MANIFEST, STATE, read_manifest, verify
from arzbench.sb3 import codec
from arzbench.training_state import TrainingState
from tests.saves.states import filled, flip, header, names, newest, opened, state, truncate

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | FINITE | st.text()
VALUES = st.dictionaries(
    st.text(), st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
NUMBERS = st.sampled_from(["?", "i1", "<i8", ">u4", "f2", "<f4", "f8", "c16"])
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
ARRAY = NUMBERS.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))


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
    packed = codec.pack(values, "values", {})
    opened(tmp_path).save(TrainingState(arrays={}, values=packed, tier="exact"), header())
    back = codec.unpack(newest(tmp_path).load().values, {})
    assert math.isnan(back.pop("not"))
    assert back == {"best": -math.inf, "random": 2**127 + 1, "nothing": None}


def test_the_manifest_tells_all(tmp_path: Path) -> None:
    saved = opened(tmp_path).save(state(7), header(7, training=2, done=True))
    data = json.loads((saved.path / MANIFEST).read_bytes())
    assert (data["schema"], data["version"], data["study"]) == ("arzbench/checkpoint", 3, "study-1")
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


@pytest.mark.parametrize("bad", [np.array([object()]), np.array(["text"]), np.array([(1, 2)], "i4,i4")])
def test_what_is_not_a_number_is_not_saved(tmp_path: Path, bad: np.ndarray[Any, Any]) -> None:
    with pytest.raises(StateError, match=r"'bad' has dtype .*only numbers"):
        opened(tmp_path).save(TrainingState(arrays={"bad": bad}, values={}, tier="exact"), header())
    assert names(tmp_path) == []


def test_a_checkpoint_appears_whole_and_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appeared = []
    rename = os.rename

    def watched(source: Path, target: Path) -> None:
        if target.name.startswith("step-"):
            assert not target.exists()
            verify(source, read_manifest(source))
            appeared.append(target.name)
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    filled(tmp_path)
    assert appeared == names(tmp_path)


def test_damage_after_the_proof_is_an_error_of_state(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    found = newest(tmp_path)
    truncate(found.path / ARRAYS)
    empty(found.path / ARRAYS)
    with pytest.raises(StateError, match="cannot read the checkpoint"):
        found.load()

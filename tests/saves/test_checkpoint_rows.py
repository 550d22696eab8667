"""The replay buffer in checkpoints: only what is new is written, and nothing of it is believed unproved."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from arzbench.errors import StateError
from arzbench.saves import segments
from arzbench.saves.read import MANIFEST, Part, read_manifest
from arzbench.training_state import Ring, TrainingState
from tests.saves.states import flip, header, names, newest, opened, reseal, save_rows, truncate
from tests.sb3.controls import StopAt, config, start, tidy  # noqa: F401

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of ten rows."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 10 * 20)


def check(found: Ring | None, total: int, capacity: int = 35) -> None:
    assert found is not None
    assert found.total == total
    first = max(0, total - capacity)
    assert found.first <= first
    rows = found.rows(first, total)
    if total:
        np.testing.assert_array_equal(rows["y"], np.arange(first, total))
        np.testing.assert_array_equal(rows["x"], np.repeat(np.arange(first, total), 4).reshape(-1, 4))


def inodes(path: Path) -> dict[str, int]:
    return {p.name: p.stat().st_ino for p in path.glob("rows-*")}


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("every", [1, 7, 10, 33, 50])
def test_saved_again_and_again_the_rows_are_those_of_one_save(tmp_path: Path, keep: int, every: int) -> None:
    checkpoints = opened(tmp_path, keep_last=keep)
    for total in range(0, 160, every):
        save_rows(checkpoints, total)
        check(newest(tmp_path).load().ring, total)
    assert len(names(tmp_path)) == keep


def test_a_save_writes_what_is_new_and_not_what_is_there(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    sizes = [save_rows(checkpoints, total, capacity=10_000) for total in range(500, 5000, 50)]
    assert sizes[-1].bytes > 7 * sizes[0].bytes
    later = [saved.written for saved in sizes[3:]]
    assert max(later) < 1.3 * min(later), "the pause must not grow with the buffer"
    assert max(later) < 0.2 * sizes[-1].bytes


def test_the_newest_two_share_no_file(tmp_path: Path) -> None:
    """So one damaged file never takes both."""
    checkpoints = opened(tmp_path, keep_last=3)
    for total in (30, 60, 90, 120):
        save_rows(checkpoints, total, capacity=1000)
    first, second, third = (inodes(path) for path in opened(tmp_path).paths())
    assert not set(second.values()) & set(third.values())
    assert not set(first.values()) & set(second.values())
    assert set(first.values()) & set(third.values())


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "link"])
def test_a_damaged_segment_of_the_newest_gives_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoints = opened(tmp_path)
    for total in (30, 60, 90, 120):
        save_rows(checkpoints, total, capacity=1000)
    segment = sorted(opened(tmp_path).paths()[-1].glob("rows-*"))[3]
    if damage == "truncate":
        truncate(segment)
    elif damage == "flip":
        flip(segment)
    else:
        segment.rename(tmp_path / "elsewhere")
        if damage == "link":
            segment.symlink_to(tmp_path / "elsewhere")
    again = opened(tmp_path)
    found = again.newest("study-1")
    assert found is not None
    check(found.load().ring, 90, capacity=1000)
    (why,) = again.skipped.values()
    assert why.startswith(segment.name)


def test_without_hard_links_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    checkpoints = opened(tmp_path)
    for total in (30, 60, 90, 120):
        saved = save_rows(checkpoints, total)
    assert saved.written == saved.bytes
    check(newest(tmp_path).load().ring, 120)


def test_a_segment_that_vanished_is_written_anew(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for total in (30, 60, 90):
        save_rows(checkpoints, total, capacity=1000)
    for path in opened(tmp_path).paths()[-2].glob("rows-*"):
        path.unlink()
    save_rows(checkpoints, 120, capacity=1000)
    check(newest(tmp_path).load().ring, 120, capacity=1000)


def test_a_session_that_goes_on_shares_only_with_the_state_it_goes_on_from(tmp_path: Path) -> None:
    """Rows of a history that was left (its checkpoints are damaged) never appear in the one taken up."""
    before = opened(tmp_path, keep_last=5)
    for total in (30, 60):
        save_rows(before, total, capacity=1000)
    for path in [save_rows(before, total, capacity=1000, history=1).path for total in (90, 120)][1:]:
        (path / MANIFEST).write_bytes(b"damaged")
    after = opened(tmp_path, keep_last=5)
    found = after.newest("study-1")
    assert found is not None
    assert found.manifest.rows == 90
    shutil.rmtree(found.path)
    found = after.newest("study-1")
    after.adopt(found)
    assert found is not None
    assert found.manifest.rows == 60
    for total in (90, 120, 150):
        save_rows(after, total, capacity=1000)
        check(newest(tmp_path).load().ring, total, capacity=1000)


def test_objects_are_refused_in_rows_as_elsewhere(tmp_path: Path) -> None:
    objects = Ring(arrays={"x": np.array([None] * 3, object)}, total=3)
    with pytest.raises(StateError, match="only numbers"):
        opened(tmp_path).save(TrainingState(arrays={}, values={}, tier="exact", ring=objects), header())
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


# Hostile: manifests that vouch for what they name.


def named(part: Part, name: str) -> Part:
    return msgspec.structs.replace(part, name=name)


ATTACKS: dict[str, tuple[Callable[[list[Part]], list[Part]], int | None]] = {
    "a path": (lambda p: [named(p[0], "../" + p[0].name), *p[1:]], 25),
    "an absolute path": (lambda p: [named(p[0], "/etc/passwd"), *p[1:]], 25),
    "a gap": (lambda p: [p[0], p[2]], 25),
    "no beginning": (lambda p: [], 25),
    "twice": (lambda p: [p[0], p[0], *p[1:]], 25),
    "another order": (lambda p: p[::-1], 25),
    "more rows than there are": (lambda p: p, 10**15),
    "fewer rows": (lambda p: p, 20),
    "rows that nobody counts": (lambda p: p, None),
    "a negative count": (lambda p: [], -1),
    "a file that says it has more": (lambda p: [*p[:2], named(p[2], segments.name_of(20, 10**15))], 10**15),
    "a digit that is not ASCII": (lambda p: [named(p[0], p[0].name.replace("1", "١")), *p[1:]], 25),
    "a line end": (lambda p: [named(p[0], p[0].name + "\n"), *p[1:]], 25),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_segments_that_do_not_fit_are_refused(tmp_path: Path, attack: str) -> None:
    checkpoints = opened(tmp_path)
    save_rows(checkpoints, 12)
    last = save_rows(checkpoints, 25).path
    for part in read_manifest(last).segments:  # the claimed file is there, too
        shutil.copyfile(last / part.name, last / segments.name_of(20, 10**15))
    change, rows = ATTACKS[attack]
    parts = read_manifest(last).parts
    reseal(last, parts=(*parts[:2], *change(list(parts[2:]))), rows=rows)
    again = opened(tmp_path)
    found = again.newest("study-1")
    assert found is not None
    check(found.load().ring, 12)
    assert list(again.skipped) == [last.name]


# Versions.


@pytest.mark.parametrize(
    ("version", "best", "rows", "first_row"), [(1, None, None, None), (2, (9.5, 50), 83, 19)]
)
def test_a_checkpoint_of_an_older_version_loads_and_goes_on(
    tmp_path: Path, version: int, best: tuple[float, int] | None, rows: int | None, first_row: int | None
) -> None:
    """The state of a DQN at step 83 of 120, its buffer of 60 rows full, as that version wrote it."""
    shutil.copytree(GOLDEN / f"checkpoint-{version}", tmp_path, dirs_exist_ok=True)
    found = newest(tmp_path)
    assert (found.manifest.num_timesteps, found.manifest.best, found.manifest.rows) == (83, best, rows)
    state = found.load()
    study = config("dqn", env="CartPole-v1", total_timesteps=120, learning_starts=20, batch_size=8,
                   buffer_size=60, seed=3, policy_kwargs={"net_arch": [4]})  # fmt: skip
    training, _ = start(study, state)
    buffer = training.model.replay_buffer
    if state.ring is None:
        saved = state.arrays["buffers/replay/rows/observations"]
    else:
        assert state.ring.first == first_row
        saved = np.roll(state.ring.rows(23, 83)["observations"], 23, axis=0)
    np.testing.assert_array_equal(buffer.observations, saved)
    assert (buffer.pos, buffer.full, training.num_timesteps) == (23, True, 83)
    training.run(StopAt(10**9))
    assert (training.stage, training.num_timesteps) == ("done", 120)
    checkpoints = opened(tmp_path, keep_last=1)
    checkpoints.adopt(found)
    saved_now = checkpoints.save(training.capture(), header(120))
    assert saved_now.written == saved_now.bytes  # files of another format are not shared
    again = newest(tmp_path)
    assert (again.manifest.rows, again.load().tier) == (120, "exact")
    assert again.load().values != state.values

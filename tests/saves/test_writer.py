"""The process that writes checkpoints: the same files, and nothing lost when it is killed."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from arzbench.clock import SystemClock
from arzbench.errors import StateError
from arzbench.saves.checkpoints import MANIFEST, POINTS, CheckpointStore, Pending
from arzbench.saves.lock import WRITING, only_run
from arzbench.saves.read import read_manifest, verify
from arzbench.saves.saver import Saver
from arzbench.saves.write import write, write_again
from arzbench.saves.writer import Writer
from arzbench.workload import Ring, TrainingState
from tests.saves.states import header, newest, opened, state

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no common memory here")
ROWS = 40_000


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    found = Writer(tmp_path)
    await_ready(found)
    yield found
    found.close()


def await_ready(writer: Writer) -> None:
    select.select([writer._from], [], [], 60)
    assert writer.ready


def full(step: int) -> TrainingState:
    """Arrays of every shape and a ring of several segments, all told by `step`."""
    return TrainingState(
        arrays={
            "weights": np.full((30, 40), step, np.float32),
            "turned": np.arange(12.0).reshape(3, 4).T,
            "one": np.array(step),
            "none": np.zeros((0, 3), np.int8),
            "flags": np.array([True, False]),
        },
        values={"step": step, "random": {"state": 1 << 100}},
        tier="exact",
        ring=Ring(arrays={"rows": np.arange(ROWS) + step, "rest": np.ones((ROWS, 9))}, total=ROWS),
    )


def files(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != MANIFEST}


def begun(folder: Path, step: int, keep: int = 2) -> tuple[CheckpointStore, Pending]:
    store = CheckpointStore(folder, keep, SystemClock())
    return store, store.begin(full(step), header(step))


def test_it_writes_what_this_process_would(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    there, here = begun(tmp_path, 3)[1], begun(tmp_path / "here", 3)[1]
    writer.send(there.save)
    manifest, written, seconds = writer.result()
    expected = here.write()
    assert files(there.save.path) == files(expected.path)
    assert len(files(there.save.path)) > 4
    assert read_manifest(there.save.path) == manifest
    verify(there.save.path, manifest)
    assert (written, manifest.bytes) == (expected.written, expected.bytes)
    assert seconds > 0


def test_it_shares_segments_and_removes_older_ones(writer: Writer, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 2, SystemClock())
    all_bytes = []
    for step in range(1, 6):
        pending = store.begin(full(1), header(step))
        writer.send(pending.save)
        saved = pending.written(*writer.result())
        all_bytes.append((saved.written, saved.bytes))
    assert len(store.paths()) == 2
    assert all_bytes[0][0] == all_bytes[0][1]
    assert all_bytes[4][0] < all_bytes[4][1] / 2
    assert newest(tmp_path).manifest.num_timesteps == 5
    assert not list(tmp_path.glob(".*.tmp"))


#: how far a save has come, by what is on the disk
MOMENTS = {
    "told": "*",
    "begun": ".step-*.tmp",
    "arrays": ".step-*.tmp/arrays.npz",
    "state": ".step-*.tmp/state.json",
    "segment": ".step-*.tmp/rows-*.npz",
    "manifest": ".step-*.tmp/manifest.json",
    "named": "step-*",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_it_was_killed_in_is_written_here(writer: Writer, tmp_path: Path, moment: str) -> None:
    """Killed as soon as it has come so far."""
    pending = begun(tmp_path, 7)[1]
    assert pending.save.ring
    writer.send(pending.save)
    for segment in pending.save.ring:
        for rows in segment.rows.values():
            rows[:] = 0  # the training goes on
    while not any(tmp_path.glob(MOMENTS[moment])) and not writer.answered:
        pass
    writer._process.kill()
    saved = pending.written(*writer.result())
    found = newest(tmp_path)
    assert found.path == saved.path
    back = found.load()
    assert back.ring is not None
    np.testing.assert_array_equal(back.ring.rows(0, ROWS)["rows"], np.arange(ROWS) + 7)
    assert back.values == full(7).values
    writer._process.wait(60)
    assert not writer.ready


class CutError(Exception):
    """Where a save was cut off."""


@pytest.mark.parametrize(
    ("point", "shares"),
    [(point, shares) for point in POINTS for shares in (True, False) if shares or point != "after-segment"],
)  # without segments to share it has none
def test_what_was_cut_off_at_any_point_is_written_again(tmp_path: Path, point: str, shares: bool) -> None:
    make = full if shares else state
    store = CheckpointStore(tmp_path, 1, SystemClock())
    kept = store.save(make(1), header(1)).path
    pending = store.begin(make(2), header(2))
    assert pending.save.begun is shares

    def at_point(here: str) -> None:
        if here == point:
            raise CutError

    if not shares or point != "before-write":  # that one is `begin`'s where segments are shared
        with pytest.raises(CutError):
            write(pending.save, at_point)
    there = pending.save.path.stat().st_ino if pending.save.path.exists() else None
    assert there is not None or kept.exists()  # one of the two always is
    saved = pending.written(*write_again(pending.save), 0.0)
    assert there in (None, saved.path.stat().st_ino)  # what had its name was not taken away
    assert newest(tmp_path).path == saved.path
    assert store.paths() == [saved.path]
    assert 0 < saved.written < saved.bytes / 100 if shares else saved.written == saved.bytes


def test_a_save_that_it_cannot_write_is_told(writer: Writer, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 1, SystemClock())
    store.save(full(1), header(1))
    pending = store.begin(full(1), header(2))
    shutil.rmtree(next(tmp_path.glob(".step-*")))
    writer.send(pending.save)
    with pytest.raises(StateError, match=r"cannot write the checkpoint .*: No such file") as told:
        writer.result()
    assert "earlier checkpoints are untouched" in told.value.hint


def test_signals_for_the_run_do_not_reach_it(writer: Writer, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        os.kill(writer._process.pid, number)
    pending = begun(tmp_path, 2)[1]
    writer.send(pending.save)
    pending.written(*writer.result())
    assert newest(tmp_path).manifest.num_timesteps == 2
    assert writer.ready
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()  # this process hears them as before


def test_the_saver_goes_over_to_it_and_back(tmp_path: Path) -> None:
    saver, store = Saver(tmp_path), CheckpointStore(tmp_path, 2, SystemClock())

    def save(step: int) -> None:
        saver.start(store.begin(full(step), header(step)))
        assert saver.under_way
        saver.wait()
        assert not saver.under_way
        assert newest(tmp_path).manifest.num_timesteps == step

    save(1)
    saver._thread.submit(int).result()  # type: ignore[union-attr]
    assert saver._writer is not None
    await_ready(saver._writer)
    written = []
    inner = saver._writer.send
    saver._writer.send = lambda save: written.append(save.serial) or inner(save)  # type: ignore[method-assign,func-returns-value]
    save(2)
    save(3)
    assert written == [2, 3]
    saver._writer._process.kill()
    saver._writer._process.wait()
    save(4)
    assert written == [2, 3]
    saver.close()


def test_a_training_without_periodic_saves_needs_none(tmp_path: Path) -> None:
    saver, store = Saver(tmp_path), CheckpointStore(tmp_path, 2, SystemClock())
    saver.start(store.begin(state(1), header(1, done=True)))
    saver.wait()
    saver.close()
    assert saver._writer is None


PARENT = """
import select, signal, sys
from pathlib import Path
from arzbench.saves.lock import only_run
from arzbench.saves.writer import Writer
folder = Path(sys.argv[1])
with only_run(folder):
    writer = Writer(folder)
    select.select([writer._from], [], [])
    print(writer._process.pid, flush=True)
    signal.pause()
"""


def test_it_ends_with_the_run_and_the_next_one_waits_for_that(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        ended = os.pidfd_open(int(run.stdout.readline()))
        run.kill()
    with only_run(tmp_path):  # held by a process that is about to die: waited for, not refused
        assert (tmp_path / WRITING).exists()
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)


def test_who_still_writes_is_waited_for_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arzbench.saves.lock.WRITING_S", 0.1)
    writer = Writer(tmp_path)
    await_ready(writer)
    with pytest.raises(StateError, match="still being written"), only_run(tmp_path):
        pass
    writer.close()
    with only_run(tmp_path):
        assert opened(tmp_path).newest("study-1") is None

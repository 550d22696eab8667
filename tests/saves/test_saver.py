"""Saves beside the training: what was begun is what is written, and what fails is told."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from arzbench.clock import SystemClock
from arzbench.errors import StateError
from arzbench.facts import Phase
from arzbench.run import ledger
from arzbench.run.simulated import SyntheticWorkload
from arzbench.saves import checkpoints
from arzbench.saves.checkpoints import CheckpointStore
from arzbench.saves.saver import Saver
from arzbench.training_state import Ring, TrainingState
from tests.run.jobs import dqn, run, study
from tests.saves.states import header, newest, opened, state


class Gate:
    """Holds a save at a point until it is opened."""

    def __init__(self, point: str) -> None:
        self._point = point
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, point: str) -> None:
        if point == self._point:
            self.reached.set()
            assert self.opened.wait(60)


def test_the_training_goes_on_while_its_state_is_written(tmp_path: Path) -> None:
    gate = Gate("after-write")
    checkpoints = CheckpointStore(tmp_path, 2, SystemClock(), at_point=gate)
    rows = np.arange(1000)
    ring = Ring(arrays={"rows": rows}, total=1000)
    weights = np.arange(8)
    live = TrainingState(arrays={"weights": weights}, values={}, tier="exact", ring=ring)
    saver = Saver()
    saver.start(checkpoints.begin(live, header(1)))
    rows[:] = weights[:] = -1  # written over while the save is under way
    assert gate.reached.wait(60)
    assert not saver.ended
    assert opened(tmp_path).newest("study-1") is None
    gate.opened.set()
    saved = saver.wait()
    found = newest(tmp_path)
    assert found.path == saved.path
    back = found.load().ring
    assert back is not None
    np.testing.assert_array_equal(back.rows(0, 1000)["rows"], np.arange(1000))
    np.testing.assert_array_equal(found.load().arrays["weights"], np.arange(8))
    saver.close()


def test_what_is_too_much_to_copy_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "COPY_MOST_BYTES", 100)
    saver = Saver()
    pending = opened(tmp_path).begin(state(1), header(1))
    assert pending.large
    saver.start(pending)
    assert saver.ended
    assert newest(tmp_path).path == saver.wait().path


@pytest.mark.parametrize("beside", [True, False])
def test_a_save_that_fails_is_told_to_who_waits(tmp_path: Path, beside: bool) -> None:
    def fails(point: str) -> None:
        if point == "before-rename":
            raise OSError(28, os.strerror(28))

    saver = Saver(beside=beside)
    checkpoints = CheckpointStore(tmp_path, 2, SystemClock(), at_point=fails)
    saver.start(checkpoints.begin(state(1), header(1)))
    with pytest.raises(StateError, match=r"cannot write the checkpoint .*: No space left"):
        saver.wait()
    assert list(tmp_path.iterdir()) == []
    saver.close()


def test_a_run_that_saves_beside_itself_ends_like_one_that_waits(tmp_path: Path) -> None:
    job = study(dqn())
    for name, beside in (("beside", True), ("waits", False)):
        clock = SystemClock()
        outcome = run(tmp_path / name, job, clock, SyntheticWorkload(clock, {}), save_beside=beside)
        assert outcome.exit_code == 0
    told = {n: ledger.read(tmp_path / n / "reports" / "r1" / ledger.FILE) for n in ("beside", "waits")}
    saves = {n: [e.data["name"] for e in t.of_kind("checkpoint")] for n, t in told.items()}
    assert saves["beside"] == saves["waits"]
    assert len(saves["beside"]) == 6
    for entry in told["beside"].of_kind("checkpoint"):
        assert set(entry.phases) == {Phase.CHECKPOINT}
        assert entry.phases[Phase.CHECKPOINT] == (pytest.approx(entry.data["held_up_s"], abs=1e-8), 1)
    for phase in (Phase.ENV_STEP, Phase.UPDATE, Phase.CHECKPOINT):
        assert told["beside"].phases[phase].units == told["waits"].phases[phase].units

"""Killed: the newest sound state is never older than the last save that returned, and leads to the same end.

Here a few kills of each kind; `make torture` does hundreds.
"""

import contextlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arzbench.clock import VirtualClock
from arzbench.saves.checkpoints import POINTS, CheckpointStore
from tests.saves.saving import expected
from tests.saves.states import ROOT

PROGRAM = ROOT / "tests" / "saves" / "saving.py"


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)})


def check(folder: Path, returned: int) -> int:
    """The step of the newest state, which must be whole; nothing else may lie about after a start."""
    checkpoints = CheckpointStore(folder, 2, VirtualClock())
    checkpoints.clean()
    found = checkpoints.newest("study-1")
    assert not checkpoints.skipped
    assert not list(folder.glob(".*"))
    if found is None:
        assert returned == 0
        return 0
    state = found.load()
    step = state.values["step"]
    assert found.manifest.num_timesteps == step
    whole = expected(step)
    np.testing.assert_array_equal(state.arrays["weights"], whole.arrays["weights"])
    assert state.ring is not None
    assert whole.ring is not None
    assert state.ring.total == whole.ring.total
    span = (whole.ring.first, whole.ring.total)
    np.testing.assert_array_equal(state.ring.rows(*span)["rows"], whole.ring.rows(*span)["rows"])
    assert step in (returned, returned + 1)
    return int(step)


@pytest.mark.parametrize(
    ("point", "number"), [(p, n) for p in POINTS for n in (1, 4) if (p, n) != ("mid-rotation", 1)]
)
def test_every_point_of_a_save(tmp_path: Path, point: str, number: int) -> None:
    process = start(str(tmp_path), point, str(number))
    said = process.communicate()[0].split()
    assert process.returncode == 9
    assert len(said) == number - 1
    step = check(tmp_path, number - 1)
    assert step == (number if point in ("before-directory-fsync", "mid-rotation") else number - 1)


def test_kills_at_any_moment(tmp_path: Path) -> None:
    dice = random.Random(20260101)
    reached = 0
    for _ in range(12):
        process = start(str(tmp_path))
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(dice.randint(1, 6))]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].splitlines()
        assert process.returncode == -signal.SIGKILL
        assert int(said[0]) == reached + 1
        reached = check(tmp_path, int(said[-1]))


@pytest.mark.timeout(900)  # it trains, on a machine that may be busy
def test_killed_trainings_end_bit_identical(tmp_path: Path) -> None:
    """Real ones, one of them the command, killed at random moments, at every point, and within saves."""
    program = [sys.executable, str(ROOT / "scripts" / "torture.py")]
    few = ["--trainings", "4", "--commands", "1", "--points", "1", "--saves", "10"]
    done = subprocess.run([*program, *few, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["killed trainings that ended bit-identical"] == "4 of 4"
    assert told["kills within a save, saving at every step"] >= 10
    assert told["unreadable states after them"] == 0
    assert told["newest sound state older than the last completed save"] == 0
    cases = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text().splitlines()[1:]]
    assert {c["case"].split("/")[1] for c in cases if c["case"].startswith("points/")} == set(POINTS)
    assert sum(len(case["kills"]) for case in cases) > 20

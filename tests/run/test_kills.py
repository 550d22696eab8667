"""Killed within a save: the newest sound state is never older than the last save that returned."""

import contextlib
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arzbench.clock import VirtualClock
from arzbench.run.checkpoint import POINTS, CheckpointStore
from tests.run.states import ROOT

PROGRAM = ROOT / "tests" / "run" / "saving.py"


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
    np.testing.assert_array_equal(state.arrays["weights"], np.full(200_000, step))
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

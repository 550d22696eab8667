"""A script of a user's own on the whole road: calibrated, planned, run, killed, resumed, finished."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, arzbench, environment, ledger, saved, start, stop_when

EXAMPLE = (ROOT / "examples" / "own_training.py").read_text(encoding="utf-8")
SHORT = "import torch\n\ntorch.set_num_threads(1)\n" + EXAMPLE.replace("60_000", "3_000").replace(
    "4096", "1024"
)

pytestmark = pytest.mark.timeout(600)


def test_the_example_differs_from_the_library_s_own_in_three_lines() -> None:
    ours = [line for line in EXAMPLE.splitlines() if "arzbench" in line or "outcome" in line]
    assert [line.rpartition("# ")[2][:1] for line in ours] == ["1", "2", "3"]
    plain = EXAMPLE.replace("import arzbench  # 1\n", "").replace("if outcome.finished:  # 3\n    ", "")
    plain = plain.replace("outcome = arzbench.learn(model, ", "model.learn(")
    compile(plain, "plain", "exec")


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "train.py").write_text(SHORT)
    done = arzbench("calibrate train.py --steps 100 --repetitions 2 --max-time 10s", folder)
    assert done.code == 0, done.out
    assert not (folder / "tank.zip").exists()  # nothing was trained, nothing is saved
    return folder


def test_the_plan_counts_what_the_script_does(working: Path) -> None:
    done = arzbench("plan --quota 40s --json", working)
    (training,) = json.loads(done.out)["study"]["trainings"]
    assert training["model"] == "PPO"
    assert training["env"] == "__main__:Tank"
    assert training["evaluation"]["eval_freq"] == 1024
    assert arzbench("plan train.py --quota 40s", working).code == 0


def test_planned_run_killed_resumed_and_finished(working: Path) -> None:
    command = "run train.py --auto-budget --quota 40s"
    killed = stop_when(start(command, working), lambda: saved(working, 3, session=1), signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    done = arzbench(command, working)
    assert done.code == 0, done.out
    assert "resuming" in done.out
    stop = [e for e in ledger(working) if e["kind"] == "stop"][-1]
    assert stop["data"]["reason"] == "finished"
    assert stop["data"]["slack_s"] > 0
    assert [e["data"]["num_timesteps"] for e in ledger(working) if e["kind"] == "evaluation"][-1] == 3072
    assert (working / "tank.zip").exists()


def test_a_changed_script_is_told_of(working: Path) -> None:
    (working / "train.py").write_text(SHORT + "\n# changed\n")
    try:
        done = arzbench("plan train.py --quota 40s", working)
    finally:
        (working / "train.py").write_text(SHORT)
    assert done.code == 2
    assert "train.py changed since" in done.out
    assert "arzbench calibrate train.py" in done.out


def test_a_script_that_fails_is_shown_with_its_own_last_lines(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import math\nmath.sqrt(-1)\n")
    done = subprocess.run(
        [sys.executable, "-m", "arzbench", "calibrate", "broken.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "broken.py failed before anything was measured" in done.stderr
    assert "line 2" in done.stderr
    (tmp_path / "silent.py").write_text("print('nothing')\n")
    done = arzbench("calibrate silent.py", tmp_path)
    assert done.code == 2
    assert "does not call arzbench.learn" in done.out
    assert {p.name for p in tmp_path.iterdir()} == {"broken.py", "silent.py"}

"""The whole road as its user goes it, on CartPole with PPO: calibrate, plan, run, kill, resume, report."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.calls import CARTPOLE
from tests.processes import arzbench, ledger, saved, start, stop_when

OFTEN = "--set checkpoint.checkpoint_freq=512"

pytestmark = pytest.mark.timeout(600)  # several trainings in a row, on a machine that may be busy


def last_stop(folder: Path) -> dict[str, Any]:
    entry = ledger(folder)[-1]
    assert entry["kind"] == "stop"
    data: dict[str, Any] = entry["data"]
    return data


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("road")
    done = arzbench(f"calibrate {CARTPOLE} --repetitions 2 --max-time 5s", base)
    assert done.code == 0, done.out
    assert "PPO on CartPole-v1: seconds per unit of each phase" in done.out
    for phase in ("import", "env step", "policy", "update", "evaluation", "checkpoint"):
        assert f" {phase} " in done.out
    return base


@pytest.fixture
def place(tmp_path: Path, shared: Path) -> Path:
    """A working folder of its own, with the calibration that all tests share."""
    (tmp_path / "profiles").symlink_to(shared / "profiles")
    return tmp_path


def test_from_calibration_to_report(place: Path) -> None:
    planned = arzbench(f"plan {CARTPOLE} --quota 10m", place)
    assert planned.code == 0, planned.out
    assert "safe budget" in planned.out
    assert (
        "arzbench run --auto-budget --env CartPole-v1 --algo ppo --quota 10m --set n_steps=512" in planned.out
    )

    ran = arzbench(f"run {CARTPOLE} --timesteps 2048 {OFTEN}", place)
    assert ran.code == 0, ran.out
    assert "2,048 of 2,048 steps" in ran.out
    assert "predicted" in ran.out

    told = arzbench("report", place)
    assert told.code == 0, told.out
    assert "finished: the whole study is done" in told.out
    for title in ("predicted against actual", "where the time went", "sessions"):
        assert title in told.out
    (summary,) = place.glob("reports/*/summary.md")
    assert "| update | 320 |" in summary.read_text()  # 4 rollouts x 10 epochs x 512 / 64

    as_json = arzbench("report --json", place)
    report = json.loads(as_json.out)
    assert report["schema"] == "arzbench/report"
    assert report["phases"]["env step"]["units"] == 2048
    assert report["entries"] == ledger(place)
    assert report["elapsed_s"] >= sum(p["seconds"] for p in report["phases"].values())


def test_a_plan_file_is_carried_out_with_its_own_quota(place: Path) -> None:
    study = f"{CARTPOLE} --set total_timesteps=1024"
    planned = arzbench(f"plan {study} --quota 5m --output plan.json", place)
    assert planned.code == 0, planned.out
    ran = arzbench("run --plan plan.json", place)
    assert ran.code == 0, ran.out
    assert "quota 5 min 00 s" in ran.out
    assert "1,024 of 1,024 steps" in ran.out
    assert last_stop(place)["slack_s"] > 0


def test_killed_and_stopped_it_goes_on_to_the_same_end(place: Path) -> None:
    command = f"run {CARTPOLE} --timesteps 8192 {OFTEN}"
    killed = stop_when(start(command, place), lambda: saved(place, 2, session=1), signal.SIGKILL)
    assert killed.code == -signal.SIGKILL

    stopped = stop_when(start(command, place), lambda: saved(place, 2, session=2), signal.SIGTERM)
    assert stopped.code == 4, stopped.out
    assert "stopped by a signal, with more to do: SIGTERM" in stopped.out
    again = stopped.out.rpartition("next: arzbench ")[2].strip()
    assert again.startswith("run --run ppo-cartpole-v1-")
    half = last_stop(place)["num_timesteps"][0]
    assert 1024 < half < 8192

    ended = arzbench(again, place)
    assert ended.code == 0, ended.out
    assert "8,192 of 8,192 steps" in ended.out
    assert "in 3 session(s)" in ended.out
    entries = ledger(place)
    sessions = [e["data"] for e in entries if e["kind"] == "session"]
    assert [s["resumed_from"] is None for s in sessions] == [True, False, False]
    assert f"{half:012d}" in sessions[2]["resumed_from"]  # nothing of the stopped session is lost
    assert last_stop(place)["num_timesteps"] == [8192]
    assert last_stop(place)["reason"] == "finished"
    assert list(place.glob("checkpoints/*/ppo-cartpole-v1.zip"))

    told = arzbench("report", place)
    assert "no end recorded (killed, or still running)" in told.out
    assert "stopped by a signal" in told.out
    assert "finished: the whole study is done" in told.out


def test_a_run_that_cannot_finish_ends_before_its_quota_and_resumes(place: Path) -> None:
    """The promise itself, measured from outside: the only wall-clock bound of these tests."""
    study = f"{CARTPOLE} {OFTEN} --set total_timesteps=400000"
    too_short = arzbench(f"plan {study} --quota 1s", place)
    assert too_short.code == 3, too_short.out
    quota_s = int(too_short.out.rpartition("--quota ")[2].strip().removesuffix("s")) + 4
    command = f"run {study} --auto-budget --option C"
    began = time.monotonic()
    ended = arzbench(f"{command} --quota {quota_s}s", place)
    took = time.monotonic() - began
    assert ended.code == 4, ended.out
    assert took < quota_s
    stop = last_stop(place)
    assert stop["reason"] == "deadline"
    assert 0 < stop["num_timesteps"][0] < 400_000
    assert f"next: arzbench run --run {ledger(place)[0]['data']['run']} --quota {quota_s}s" in ended.out

    process = start(f"{command} --quota 10m", place)
    resumed = stop_when(process, lambda: saved(place, 1, session=2), signal.SIGINT)
    assert resumed.code == 4, resumed.out
    second = next(e for e in ledger(place) if e["kind"] == "session" and e["session"] == 2)
    assert second["data"]["resumed_from"] == stop["checkpoint"]
    assert last_stop(place)["num_timesteps"][0] > stop["num_timesteps"][0]


def test_gymnasium_knows_our_envs_without_importing_us(tmp_path: Path) -> None:
    try:
        files = importlib.metadata.files("arzbench") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    if not any(file.name == "arzbench_gymnasium.pth" for file in files):
        pytest.skip("arzbench is not installed with its start-up file here (it runs from its source)")
    code = (
        "import gymnasium, sys; env = gymnasium.make('arzbench/TrafficLight-v0');"
        "print(env.reset(seed=1)[0].shape == env.observation_space.shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "True", done.stderr

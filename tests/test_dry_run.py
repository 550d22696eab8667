"""`arzbench run --dry-run`: what a run would do, without training and without a trace."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.calls import CARTPOLE, calibrated, call, listing, refused
from tests.processes import TRAINING_PACKAGES, loaded

SMALL = f"{CARTPOLE} --set total_timesteps=20480 --set checkpoint.checkpoint_freq=4096"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    calibrated(tmp_path)
    return tmp_path


def simulated(arguments: str, folder: Path) -> dict[str, Any]:
    ended = call(f"run --dry-run --json {arguments}", folder)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_it_ends_when_the_plan_says_and_leaves_no_trace(place: Path) -> None:
    before = listing(place)
    (session,) = simulated(f"{SMALL} --auto-budget --quota 1h --option C", place)["sessions"]
    assert listing(place) == before
    assert (session["reason"], session["num_timesteps"]) == ("finished", [20_480])
    assert len(session["evaluations"]) == 2
    assert len(session["saves"]) >= 5
    assert session["saves"] == sorted(session["saves"])
    plan = json.loads(call(f"plan {SMALL} --quota 1h --json", place).out)
    whole = plan["options"][-1]["estimate"]["p50_s"]
    assert session["session_s"] == pytest.approx(whole, rel=0.1)
    assert session["session_s"] + session["slack_s"] == pytest.approx(3600)


def test_sessions_follow_each_other_until_it_is_finished(place: Path) -> None:
    whole = simulated(f"{SMALL} --timesteps 20480", place)["sessions"][0]["session_s"]
    run = f"{SMALL} --auto-budget --option C --quota {round(0.4 * whole + 20)}s"
    *parts, last = simulated(run, place)["sessions"]
    assert parts
    assert {s["reason"] for s in parts} == {"deadline"}
    assert all(s["slack_s"] >= 0 for s in (*parts, last))
    assert (last["reason"], last["num_timesteps"]) == ("finished", [20_480])
    (only,) = simulated(f"{run} --max-sessions 1", place)["sessions"]
    assert only == parts[0]
    shown = call(f"run --dry-run {run}", place).out
    assert shown.startswith("simulated at the plan's P50 prices: nothing was trained or written")
    assert f"{len(parts) + 1} session(s)" in shown


def test_a_plan_file_is_simulated_and_nothing_that_trains_is_loaded(place: Path) -> None:
    assert call(f"plan {SMALL} --quota 1h --output plan.json", place).code == 0
    modules, done = loaded("run", "run", "--dry-run", "--plan", "plan.json", folder=place)
    assert done.returncode == 0, done.stderr
    assert "20,480" in done.stdout
    assert not modules & TRAINING_PACKAGES


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (f"--dry-run {CARTPOLE} --timesteps 512 --dir elsewhere", ["--dry-run needs prices", "--plan FILE"]),
        (
            f"--dry-run {CARTPOLE} --auto-budget --dir elsewhere",
            ["no fitting calibration", "arzbench calibrate"],
        ),
        ("--dry-run --run x", ["from its beginning", "leave out --run"]),
        ("--dry-run --timesteps 512 --checkpoints file:///x", ["from its beginning"]),
        ("--json --timesteps 512", ["--json belongs to --dry-run"]),
    ],
)
def test_what_cannot_be_simulated_is_one_error(arguments: str, messages: list[str], place: Path) -> None:
    refused(f"run {arguments}", place, *messages)

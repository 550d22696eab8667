"""What `arzbench run` is told to train: budgets and sessions, also of a run that moves, and old prices."""

import datetime
import json
import shutil
from pathlib import Path

import pytest

from arzbench.clock import SystemClock
from arzbench.commands.run import RunFlags, resolve
from arzbench.limits import find_limits
from arzbench.saves.remote import Remote
from tests.calls import calibrated, call, refused
from tests.processes import arzbench, ledger

SMALL = "--env CartPole-v1 --algo ppo --set n_steps=64 --set evaluation.eval_freq=0"


def budgets(folder: Path) -> list[object]:
    return [e["data"]["budgets"] for e in ledger(folder) if e["kind"] == "session"]


def test_a_budget_grows_only_when_told_and_the_horizon_stays(tmp_path: Path) -> None:
    first = arzbench(f"run {SMALL} --timesteps 128", tmp_path)
    assert first.code == 0, first.out
    run = ledger(tmp_path)[0]["data"]["run"]
    record = tmp_path / "reports" / run / "run.json"
    before = record.read_bytes()

    refused(f"run --run {run} --timesteps 256", tmp_path, "more than the study's 128", "--extend")

    grown = arzbench(f"run --run {run} --timesteps 256 --extend --max-sessions 9", tmp_path)
    assert grown.code == 0, grown.out
    assert "256 of 256 steps" in grown.out
    kept = arzbench(f"run --run {run}", tmp_path)
    assert kept.code == 0, kept.out
    assert "256 of 256 steps" in kept.out
    assert budgets(tmp_path) == [[128], [256], [256]]
    assert record.read_bytes() == before  # its study, and with it every schedule, is what it was

    used = call(f"run --run {run} --max-sessions 3", tmp_path)
    assert (used.code, f"run {run} has had its 3 sessions" in used.err) == (5, True)
    assert "--max-sessions 4" in used.err


@pytest.mark.parametrize(("arguments", "told"), [
    ("--extend --auto-budget", "no new budget is given"),
    ("--extend --timesteps 512 --fresh", "--fresh starts anew"),
    ("--extend --timesteps 2048 --study cartpole-ppo", "no run of this study can be extended"),
    ("--timesteps 512 --max-sessions 0", "--max-sessions 0 is too small"),
])  # fmt: skip
def test_what_cannot_be_meant_is_told_before_anything_is_written(
    arguments: str, told: str, tmp_path: Path
) -> None:
    refused(f"run {arguments}", tmp_path, told)


def unpriced(folder: Path) -> str:
    """Why a run of the study of `calibrated` has no prices."""
    flags = RunFlags(folder=folder, env="CartPole-v1", algo="ppo", changes=["n_steps=512"], timesteps=1024)
    limits = find_limits(folder, None, None, SystemClock())
    return resolve(flags, SystemClock(), None, limits).unpriced


def test_why_there_is_no_prediction_is_told(tmp_path: Path) -> None:
    told = unpriced(tmp_path)
    assert told.startswith("no ")
    assert "calibrat" in told
    path = calibrated(tmp_path)
    assert unpriced(tmp_path) == ""
    old = json.loads(path.read_text())
    made = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=41)
    path.write_text(json.dumps({**old, "created": made.isoformat()}))
    told = unpriced(tmp_path)
    assert "expired (made 41 days ago" in told
    assert "arzbench calibrate" in told
    assert "--allow-expired" in told


def test_a_grown_budget_and_the_sessions_used_travel(tmp_path: Path) -> None:
    machines = [tmp_path / str(number) for number in range(3)]
    for machine in machines:
        machine.mkdir()
    url = (tmp_path / "there").as_uri()
    first = arzbench(f"run {SMALL} --timesteps 128 --checkpoints {url}", machines[0])
    assert first.code == 0, first.out
    run = ledger(machines[0])[0]["data"]["run"]
    grown = arzbench(f"run --checkpoints {url} --timesteps 256 --extend", machines[1])
    assert grown.code == 0, grown.out
    assert "256 of 256 steps" in grown.out
    shutil.rmtree(machines[1])  # what is known of it is at the URL

    # killed before its first save: its session was begun, too
    begun = json.loads((tmp_path / "there" / "session.json").read_text()) | {"sessions": 3, "token": "k"}
    (tmp_path / "there" / "session.json").write_text(json.dumps(begun))
    for machine in (machines[2], machines[0]):  # an empty folder, and one that knows less
        used = call(f"run --checkpoints {url} --max-sessions 3", machine)
        assert used.code == 5, used.err
        assert f"run {run} has had its 3 sessions" in used.err
    found = Remote(url).session()
    assert found is not None
    assert found.token == "k"  # who may not begin takes nothing over
    kept = arzbench(f"run --checkpoints {url}", machines[0])
    assert kept.code == 0, kept.out
    assert "256 of 256 steps" in kept.out
    assert budgets(machines[0]) == [[128], [256]]
    assert [e["session"] for e in ledger(machines[0]) if e["kind"] == "session"] == [1, 4]


def test_a_session_there_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    url = (tmp_path / "there").as_uri()
    assert arzbench(f"run {SMALL} --timesteps 64 --checkpoints {url}", tmp_path).code == 0
    path = tmp_path / "there" / "session.json"
    for wrong in ({"budgets": [1, 2]}, {"budgets": [-5]}, {"budgets": "x"}, {"sessions": -1}, {"version": 9}):
        content = path.read_bytes()
        path.write_text(json.dumps(json.loads(content) | wrong))
        refused(f"run --checkpoints {url}", tmp_path, "session.json")
        path.write_bytes(content)

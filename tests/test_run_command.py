"""What `arzbench run` is told to train: budgets that shrink and grow, sessions, prices that are too old."""

import datetime
import json
from pathlib import Path

import pytest

from arzbench.clock import SystemClock
from arzbench.commands.common import Prices, find_limits
from arzbench.commands.resolve import RunOptions, decide
from tests.calls import calibrated, call
from tests.test_road import arzbench, ledger

SMALL = "--env CartPole-v1 --algo ppo --set n_steps=64 --set evaluation.eval_freq=0"


def budgets(folder: Path) -> list[object]:
    return [e["data"]["budgets"] for e in ledger(folder) if e["kind"] == "session"]


def test_a_budget_grows_only_when_told_and_the_horizon_stays(tmp_path: Path) -> None:
    first = arzbench(f"run {SMALL} --timesteps 128", tmp_path)
    assert first.code == 0, first.out
    run = ledger(tmp_path)[0]["data"]["run"]
    record = tmp_path / "reports" / run / "run.json"
    before = record.read_bytes()

    refused = call(f"run --run {run} --timesteps 256", tmp_path)
    assert refused.code == 2
    assert "more than the study's 128" in refused.err
    assert "--extend" in refused.err

    grown = arzbench(f"run --run {run} --timesteps 256 --extend --max-sessions 9", tmp_path)
    assert grown.code == 0, grown.out
    assert "256 of 256 steps" in grown.out
    kept = arzbench(f"run --run {run}", tmp_path)
    assert kept.code == 0, kept.out
    assert "256 of 256 steps" in kept.out
    assert budgets(tmp_path) == [[128], [256], [256]]
    assert record.read_bytes() == before  # its study, and with it every schedule, is what it was

    used = call(f"run --run {run} --max-sessions 3", tmp_path)
    assert used.code == 5
    assert f"run {run} has had its 3 sessions" in used.err
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
    ended = call(f"run {arguments}", tmp_path)
    assert ended.code == 2
    assert told in ended.err
    assert not list(tmp_path.iterdir())


def unpriced(folder: Path) -> str:
    """Why a run of the study of `calibrated` has no prices."""
    asked = RunOptions(
        working=folder,
        study=None,
        env="CartPole-v1",
        algo="ppo",
        changes=("n_steps=512",),
        auto_budget=False,
        plan_file=None,
        timesteps=1024,
        option="B",
        quota=None,
        platform=None,
        confidence=0.95,
        prices=Prices(),
        device=None,
        run_id=None,
        fresh=False,
    )
    limits = find_limits(folder, None, None, SystemClock())
    return decide(asked, SystemClock(), None, limits).unpriced


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

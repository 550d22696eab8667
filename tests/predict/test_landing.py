"""What is kept free before a deadline is one figure: a plan promises what the guard then gives."""

import json
from pathlib import Path

import pytest

from arzbench import store
from arzbench.clock import VirtualClock
from arzbench.commands.run import RunFlags, resolve
from arzbench.limits import Limits
from arzbench.predict.costmodel import fit
from arzbench.predict.landing import LEAVE_S, kept_free_s, quota_for
from arzbench.predict.plan import Planner
from arzbench.predict.spread import spread_from
from arzbench.run.guard import Guard
from arzbench.run.signals import Signals
from arzbench.workload import StopTraining
from tests import worlds
from tests.calls import CARTPOLE, calibrated, call

QUOTAS = [10.0, 30.0, 60.0, 600.0, 3600.0, 5 * 3600.0, 43_200.0]


@pytest.mark.parametrize("uploads", [False, True])
@pytest.mark.parametrize("quota_s", QUOTAS)
def test_the_guard_lets_train_for_as_long_as_a_plan_counts_on(quota_s: float, uploads: bool) -> None:
    study = worlds.study()
    models = [fit(worlds.samples(study.trainings[0]))]
    planner = Planner(study, models, spread_from([]), quota_s, 0.95, cold=False, uploads=uploads)
    guard = Guard(
        VirtualClock(), Signals(), session_start=0.0, quota_s=quota_s, leave_s=LEAVE_S, uploads=uploads
    )
    guard.saved(0.0, 1)  # saves that take no time: a plan counts the last one by itself
    guard.require(planner.usable_s() - 1e-6, "all that was planned")
    with pytest.raises(StopTraining):
        guard.require(planner.usable_s() + 1e-6, "more than that")
    assert quota_for(planner.usable_s(), uploads=uploads) == pytest.approx(quota_s)


def test_uploads_cost_a_short_quota_a_twentieth_and_a_long_one_ten_seconds() -> None:
    for quota_s, without, of_uploads in ((60.0, 0.6, 3.0), (3600.0, 10.3, 10.0), (43_200.0, 10.3, 10.0)):
        assert kept_free_s(quota_s, uploads=False) == pytest.approx(without)
        assert kept_free_s(quota_s, uploads=True) == pytest.approx(without + of_uploads)


def test_a_plan_knows_of_the_uploads_of_its_run(tmp_path: Path) -> None:
    calibrated(tmp_path)
    without, with_them = (
        json.loads(call(f"plan {CARTPOLE} --quota 60s --json {flag}", tmp_path).out)
        for flag in ("", "--checkpoints memory://there")
    )
    assert (without["uploads"], with_them["uploads"]) == (False, True)
    assert with_them["safe_timesteps"] < without["safe_timesteps"]
    assert "--checkpoints memory://there" in with_them["options"][0]["command"]


@pytest.mark.parametrize(("uploads", "note"), [(False, "; planned without --checkpoints"), (True, "")])
def test_a_plan_made_without_uploads_is_not_passed_off_as_one_with(
    uploads: bool, note: str, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    store.save(path, "arzbench/plan", worlds.plan(worlds.PAIR, 60.0, uploads=uploads))
    flags = RunFlags(folder=tmp_path, plan_file=path, checkpoints="memory://there")
    spec = resolve(flags, VirtualClock(), None, Limits(seconds=None, platform=worlds.PLATFORM))
    assert spec.why == f"option B, recommended: 95% of such runs end in time{note}"

"""Calibrations that others recorded: the incident's P100, from its log."""

import itertools
import json
import re
import statistics
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arzbench.facts import Phase
from arzbench.profiles import load_calibration, named_calibration, names, save_calibration
from arzbench.records import Calibration
from tests import worlds
from tests.calls import calibrated, call
from tests.processes import ROOT, Ended

P100 = "plan --study incident --quota 12h --from incident-p100"


@pytest.fixture(scope="module")
def p100() -> Calibration:
    return load_calibration(ROOT / "profiles" / "imported" / "incident-p100.json")


def seconds(record: Calibration, phase: Phase, *, warmup: bool = False) -> list[float]:
    (one,) = record.workloads
    return [s for p in one.phases if p.phase is phase and p.warmup is warmup for s in p.seconds]


# ---------------------------------------------------------------- its figures


def test_every_imported_one_says_where_its_figures_are_from(tmp_path: Path) -> None:
    assert "incident-p100" in names(tmp_path, "imported")
    for name in names(tmp_path, "imported"):
        record = named_calibration(tmp_path, name)[1]
        assert len(record.imported) > 30
        for one in record.workloads:
            for phase in {p.phase for p in one.phases}:
                assert any(note.startswith(f"{phase.value}: ") for note in one.notes), phase


def test_the_incidents_prices(p100: Calibration) -> None:
    assert statistics.fmean(seconds(p100, Phase.ENV_STEP)) == pytest.approx(0.48, abs=0.005)
    assert statistics.fmean(seconds(p100, Phase.EVAL_STEP)) == pytest.approx(0.47, abs=0.005)
    assert [round(s) for s in seconds(p100, Phase.IMPORT)] == [127, 142]
    assert seconds(p100, Phase.JIT) == [pytest.approx(2.6, abs=0.05)]
    measured = {p.phase for p in p100.workloads[0].phases}
    assert measured == {Phase.IMPORT, Phase.JIT, Phase.ENV_STEP, Phase.EVAL_STEP}


def test_its_raw_values_are_those_of_the_log(p100: Calibration, incident_data: Path) -> None:
    log = json.loads((incident_data / "arz-validation-76rlperformance-rjot.log").read_text())
    steps = [e["time"] for e in log if re.match(r"\[REWARD_MICROSCOPE\] step=", e["data"])]
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps[:100])]
    begins = [n % 8 == 0 for n in range(1, 100)]  # of an episode of 8 steps
    usual = [g for g, b in zip(gaps, begins, strict=True) if not b]
    assert seconds(p100, Phase.ENV_STEP) == pytest.approx(usual, abs=1e-6)
    first = [g for g, b in zip(gaps, begins, strict=True) if b]
    assert seconds(p100, Phase.ENV_STEP, warmup=True) == pytest.approx(first, abs=1e-6)
    evaluation = steps[100:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(evaluation)]
    assert seconds(p100, Phase.EVAL_STEP) == pytest.approx(gaps, abs=1e-6)
    start = next(e["time"] for e in log if "=== TRAINING START ===" in e["data"])
    assert seconds(p100, Phase.IMPORT)[1] == pytest.approx(start)


# ---------------------------------------------------------------- the plan


def asked(command: str, folder: Path) -> dict[str, Any]:
    told = call(f"{command} --json", folder)
    assert told.code == 0, told.err
    return json.loads(told.out)


def test_the_incident_would_have_been_foreseen(tmp_path: Path) -> None:
    plan = asked(P100, tmp_path)
    whole = plan["rows"][-1]
    assert whole["verdict"] == "times out"
    assert whole["total_timesteps"] + whole["hidden_steps"][0] == 98_240
    assert whole["estimate"]["p50_s"] / 3600 == pytest.approx(13, abs=0.25)
    first, second = plan["what_ifs"][:2]
    assert first["changes"] == ["evaluation.eval_freq=5000"]
    assert second["changes"] == ["evaluation.n_eval_episodes=1"]
    assert (first["verdict"], second["verdict"]) == ("fits", "fits")


def test_what_is_said_of_it(tmp_path: Path) -> None:
    said = call(P100, tmp_path).out
    assert "98,240 env steps in all" in said
    assert "evaluation: 53.7% of the env steps (52,800) during the trainings, 54.5% (53,520) with" in said
    assert "imported, not measured by arzbench: the incident's log" in said
    lacking = "build, reset, policy, update, rollout, baseline, checkpoint, restore, teardown"
    assert f"not measured apart, counted as nothing of their own: {lacking}" in said
    assert "prices of kaggle-p100, for another session there: widened (21%)" in said
    assert "what would make it fit" in said


# ---------------------------------------------------------------- --from


def old(folder: Path, **changes: Any) -> Calibration:
    made = msgspec.structs.replace(load_calibration(calibrated(folder)), **changes)
    save_calibration(folder, made)
    return made


def plan_from(folder: Path, name: str, more: str = "") -> Ended:
    return call(
        f"plan --env CartPole-v1 --algo ppo --set n_steps=512 --quota 1h --from {name} {more}", folder
    )


def test_by_id_and_by_file(tmp_path: Path) -> None:
    path = calibrated(tmp_path)
    for name in (path.stem, str(path), str(path.relative_to(tmp_path))):
        assert plan_from(tmp_path, name).code == 0
    told = plan_from(tmp_path, "incident-p10")
    assert told.code == 2
    assert "did you mean 'incident-p100'?" in told.err


def test_of_another_machine_it_is_widened_and_marked(tmp_path: Path) -> None:
    made = old(tmp_path, host=worlds.HOST, id="theirs")
    own, other = (
        json.loads(plan_from(tmp_path, name, "--json").out)
        for name in (next(tmp_path.glob("profiles/calibrations/*/ppo*.json")).stem, made.id)
    )
    assert own["foreign"] == []
    assert "name" in other["foreign"]
    assert other["spread"]["log_sigma"] > own["spread"]["log_sigma"]
    assert other["safe_timesteps"] < own["safe_timesteps"]


def test_of_another_workload_it_is_refused(tmp_path: Path) -> None:
    told = plan_from(tmp_path, "incident-p100")
    assert told.code == 2
    assert "does not cover" in told.err


def test_an_expired_one_is_refused_unless_allowed(tmp_path: Path) -> None:
    made = old(tmp_path, id="aged", created="2020-01-01T00:00:00+00:00")
    told = plan_from(tmp_path, made.id)
    assert told.code == 2
    assert "calibration aged has expired (made" in told.err
    assert "arzbench calibrate" in told.err
    assert plan_from(tmp_path, made.id, "--allow-expired").code == 0

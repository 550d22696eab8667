"""`arzbench calibrate --tune`: with declared costs on a virtual clock, and once for real."""

import itertools
import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arzbench.clock import VirtualClock
from arzbench.errors import StateError, UsageError
from arzbench.facts import Phase
from arzbench.measure.burst import COLD, UNUSED, WARM, BurstJob, BurstResult, measure_once
from arzbench.profiles import calibrations
from arzbench.records import PhaseSamples, TunedSetting, Tuning
from arzbench.report.console import to_markdown
from arzbench.report.tuning_sheets import tuning_lines, tuning_sheets
from arzbench.study import Study, TrainConfig
from arzbench.wiring import tuning
from arzbench.wiring.tuning import Tuner
from tests import worlds
from tests.calls import CARTPOLE, call, listing, refused
from tests.measure.doubles import COSTS, Store, Workload
from tests.processes import arzbench

TINY = "--set n_steps=64 --set batch_size=32 --set n_epochs=1 --set evaluation.eval_freq=0"
STUDY = worlds.study(
    worlds.config(
        algo="ppo",
        total_timesteps=50_000,
        logging={"mode": "off"},
        hyperparameters={"n_steps": 64},
        evaluation={"eval_freq": 1000},
    )
)


class Clock(VirtualClock):
    """Stops a process that goes beyond `limit`."""

    limit = math.inf

    def advance(self, seconds: float) -> None:
        if self.now() + seconds > self.limit:
            super().advance(self.limit - self.now())
            raise StateError("a measuring process took longer than it may")
        super().advance(seconds)


def cheaper_with_envs(config: TrainConfig) -> dict[Phase, float]:
    """An env step costs a share of the number of envs; processes of their own cost more than they bring."""
    step_s = COSTS[Phase.ENV_STEP] / min(config.n_envs, 8)
    return {**COSTS, Phase.ENV_STEP: step_s * (3 if config.vec_env == "subproc" else 1)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Processes are measured here, on a virtual clock; `price` gives the costs of a training."""
    told: dict[str, Any] = {"price": cheaper_with_envs, "clock": Clock(1000.0), "cache": UNUSED, "jobs": []}

    def run_worker(
        job: BurstJob, worker: Any, folder: Path, clock: Clock, report: Any, longest_s: float | None
    ) -> BurstResult:
        told["jobs"].append(job)
        told.get("before", lambda job: None)(job)
        clock.limit = clock.now() + (longest_s or math.inf)
        work = Workload(clock, told["price"](job.config))
        result = measure_once(job, work, Store(clock), clock, report, lambda: told["cache"])
        clock.advance(0.5)
        end = PhaseSamples(phase=Phase.TEARDOWN, repetition=job.repetition, seconds=(0.5,), units=(1,))
        return msgspec.structs.replace(result, phases=(*result.phases, end))

    monkeypatch.setattr(tuning, "run_worker", run_worker)
    monkeypatch.setattr(tuning, "gpu_name", lambda: None)
    return told


def tuned(world: dict[str, Any], folder: Path, study: Study = STUDY, max_s: float = 3600.0) -> Tuning:
    records = folder / "profiles" / "calibrations"
    records.mkdir(parents=True)
    tuner = Tuner(
        study,
        (),
        world["clock"],
        steps=100,
        repetitions=3,
        max_s=max_s,
        working=folder,
        records=records,
        progress=lambda what, share: None,
    )
    tuner.search()
    found = tuner.result(" --study job", tuner.save())
    assert not list(records.glob(".*"))
    return found


def by_title(found: Tuning) -> dict[str, TunedSetting]:
    return {setting.title: setting for setting in found.settings}


def test_it_answers_in_the_time_of_the_whole_study(world: dict[str, Any], tmp_path: Path) -> None:
    found = tuned(world, tmp_path)
    settings = by_title(found)
    own, best = settings["as written"], settings[found.recommended]
    assert "n_envs=8" in best.changes or "n_envs=16" in best.changes
    assert best.estimate is not None
    assert own.estimate is not None
    # 50 evaluations of an episode of 100 steps each and 50,000 steps
    steps_s = 50_048 * (0.005 + 0.00002) + 50 * 5 * 100 * 0.0052
    assert own.estimate.p50_s == pytest.approx(steps_s, rel=0.3)
    assert best.saved_s == pytest.approx(own.estimate.p50_s - best.estimate.p50_s)
    assert best.saved_s > 0.8 * 50_000 * 0.005 * 7 / 8
    assert best.verdict == "faster"
    for setting in found.settings:
        if setting.estimate is not None:
            assert setting.low_s < setting.estimate.p50_s < setting.high_s  # type: ignore[operator]
            if setting.saved_s is not None:
                assert setting.saved_low_s <= setting.saved_s <= setting.saved_high_s  # type: ignore[operator]
    order = [s.estimate.p50_s for s in found.settings if s.estimate is not None]
    assert order == sorted(order)


def test_it_says_what_changes_in_the_training(world: dict[str, Any], tmp_path: Path) -> None:
    settings = by_title(tuned(world, tmp_path))
    assert (settings["as written"].results, settings["as written"].why) == ("same", "")
    assert settings["n_envs 2"].results == "changed"
    assert settings["n_envs 2"].why.startswith("other experience")
    assert "391 rollouts, not 782" in settings["n_envs 2"].why
    assert "evaluations" not in settings["n_envs 2"].why
    threads = [s for title, s in settings.items() if title == "torch_threads 2"]
    assert [(s.results, s.why != "") for s in threads] == [("last bits", True)]


def test_fewer_gradient_steps_are_told(world: dict[str, Any], tmp_path: Path) -> None:
    study = worlds.study(worlds.config(logging={"mode": "off"}))
    settings = by_title(tuned(world, tmp_path, study))
    assert "1,494 gradient steps, not 5,975" in settings["n_envs 4"].why


def test_the_command_beside_a_candidate_trains_it(world: dict[str, Any], tmp_path: Path) -> None:
    for setting in tuned(world, tmp_path).settings:
        words = shlex.split(setting.command)
        assert words[:5] == ["arzbench", "run", "--auto-budget", "--study", "job"]
        sets = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
        assert tuple(sets) == setting.changes


def test_what_was_measured_is_kept_as_ordinary_calibrations(world: dict[str, Any], tmp_path: Path) -> None:
    found = tuned(world, tmp_path)
    kept = list(calibrations(tmp_path))
    assert {c.id for c in kept} == {s.calibration_id for s in found.settings if s.processes >= 2}
    assert kept[0].study == STUDY  # the newest is of the study as written: plan takes it by itself
    best = next(c for c in kept if c.id == by_title(found)[found.recommended].calibration_id)
    assert best.find(best.study.trainings[0].workload_digest()) is not None
    assert best.repetitions == 3
    assert not [s for s in found.settings if s.processes == 1 and s.calibration_id]


def test_the_study_as_written_is_priced_as_plan_prices_it(world: dict[str, Any], tmp_path: Path) -> None:
    found = tuned(world, tmp_path)
    planned = worlds.plan(STUDY, None, calibration=next(calibrations(tmp_path)), host=found.host)
    assert by_title(found)["as written"].estimate == planned.rows[-1].estimate


def test_nothing_is_recommended_where_nothing_helps(world: dict[str, Any], tmp_path: Path) -> None:
    world["price"] = lambda config: {**COSTS, Phase.ENV_STEP: 0.01 * config.n_envs}
    found = tuned(world, tmp_path)
    assert found.recommended == ""
    assert tuning_lines(found)[-2].endswith("keep the study as written")


def test_a_candidate_that_fails_is_shown_with_its_reason(world: dict[str, Any], tmp_path: Path) -> None:
    def refuse(job: BurstJob) -> None:
        if job.config.n_envs == 8:
            raise UsageError("the env was made 7 times and cannot be once more")

    world["before"] = refuse
    found = tuned(world, tmp_path)
    failed = by_title(found)["n_envs 8"]
    assert (failed.verdict, failed.estimate) == ("failed", None)
    assert failed.note == "the env was made 7 times and cannot be once more"
    assert "n_envs 16" in found.recommended
    assert "cannot be once more" in to_markdown(tuning_sheets(found)[0])


def test_a_study_that_cannot_be_measured_is_one_error(world: dict[str, Any], tmp_path: Path) -> None:
    def refuse(job: BurstJob) -> None:
        raise UsageError("unknown env")

    world["before"] = refuse
    with pytest.raises(UsageError, match="unknown env"):
        tuned(world, tmp_path)
    assert list(calibrations(tmp_path)) == []


def test_a_candidate_that_hangs_is_cut_off(world: dict[str, Any], tmp_path: Path) -> None:
    def price(config: TrainConfig) -> dict[Phase, float]:
        return {**COSTS, Phase.JIT: 500.0} if config.n_envs == 4 else COSTS

    world["price"] = price
    assert by_title(tuned(world, tmp_path))["n_envs 4"].verdict == "failed"


@pytest.mark.parametrize("max_s", [1.0, 40.0, 80.0, 150.0])
def test_it_takes_no_longer_than_it_may(max_s: float, world: dict[str, Any], tmp_path: Path) -> None:
    found = tuned(world, tmp_path, max_s=max_s)
    assert found.took_s <= max(max_s, 30.0)
    assert not [s for s in found.settings if s.verdict == "failed"]
    assert by_title(found)["as written"].processes >= 2
    if max_s < 80:
        assert {s.note for s in found.settings if s.estimate is None} == {"no time was left: --max-time"}


@pytest.mark.parametrize("number", [2, 5, 14])
def test_an_interruption_keeps_what_was_measured(number: int, world: dict[str, Any], tmp_path: Path) -> None:
    def interrupt(job: BurstJob) -> None:
        if len(world["jobs"]) > number:
            raise KeyboardInterrupt

    world["before"] = interrupt
    found = tuned(world, tmp_path)
    assert found.interrupted
    assert sum(s.processes for s in found.settings) == number
    assert {c.id for c in calibrations(tmp_path)} == {
        s.calibration_id for s in found.settings if s.calibration_id
    }
    assert by_title(found)["as written"].calibration_id
    assert any("interrupted" in line for line in tuning_lines(found))
    assert {s.note for s in found.settings if s.estimate is None} <= {"interrupted"}


def test_compiled_code_made_anew_does_not_count_against_a_candidate(
    world: dict[str, Any], tmp_path: Path
) -> None:
    """The first process of a candidate may have to compile, which a run of it then need not."""
    seen: set[str] = set()

    def price(config: TrainConfig) -> dict[Phase, float]:
        new = config.workload_digest() not in seen
        seen.add(config.workload_digest())
        world["cache"] = COLD if new else WARM
        return {**cheaper_with_envs(config), Phase.JIT: 63.0 if new else 3.0}

    def interrupt(job: BurstJob) -> None:
        if len(world["jobs"]) > 8:  # all were measured once, the study as written twice
            raise KeyboardInterrupt

    world.update(price=price, before=interrupt)
    settings = by_title(tuned(world, tmp_path))
    assert {settings[f"n_envs {n}"].processes for n in (2, 4, 8, 16)} == {1}
    p50_s = [settings[t].estimate.p50_s for t in ("as written", "n_envs 2", "n_envs 4")]  # type: ignore[union-attr]
    assert p50_s[0] > p50_s[1] > p50_s[2]


def test_trainings_of_several_kinds_are_changed_alike(world: dict[str, Any], tmp_path: Path) -> None:
    one = worlds.config(algo="a2c", logging={"mode": "off"})
    two = worlds.config(algo="ppo", logging={"mode": "off"}, name="second", hyperparameters={"n_steps": 64})
    found = tuned(world, tmp_path, worlds.study(one, two))
    best = next(
        c for c in calibrations(tmp_path) if c.id == by_title(found)[found.recommended].calibration_id
    )
    assert len(best.workloads) == 2
    assert len({t.n_envs for t in best.study.trainings}) == 1


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("calibrate train.py --tune", ["--tune changes settings", "train.py", "--study"]),
        ("calibrate --factory f.py:make --tune", ["--tune changes settings", "f.py:make"]),
        (f"calibrate {CARTPOLE} --tune --max-time 5", ["'5'", "45s"]),
    ],
)
def test_what_cannot_be_tuned_is_refused(arguments: str, told: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('it was run')")
    refused(arguments, tmp_path, *told)


def test_an_unknown_env_leaves_nothing(tmp_path: Path) -> None:
    ended = call("calibrate --env CartPole-v9 --algo ppo --tune --dir deep/er", tmp_path)
    assert ended.code == 2, ended.err
    assert "unknown env 'CartPole-v9'" in ended.err
    assert listing(tmp_path) == {}


def test_a_real_one_from_tuning_to_planning(tmp_path: Path) -> None:
    study = f"--env CartPole-v1 --algo ppo {TINY} --set total_timesteps=128"
    done = arzbench(f"calibrate {study} --tune --json --repetitions 2 --max-time 60s", tmp_path)
    assert done.code == 0, done.out
    record = json.loads(done.out[done.out.index("\n{") :])
    assert (record["schema"], record["version"]) == ("arzbench/tuning", 1)
    settings = {s["title"]: s for s in record["settings"]}
    assert {"as written", "n_envs 2"} <= set(settings)
    assert settings["as written"]["processes"] >= 2
    kept = [s for s in record["settings"] if s["calibration_id"]]
    assert kept
    for setting in kept:
        planned = arzbench(setting["command"].replace("arzbench run --auto-budget", "plan"), tmp_path)
        assert planned.code == 0, planned.out
        assert setting["calibration_id"] in planned.out

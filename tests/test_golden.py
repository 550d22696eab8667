"""One file per schema version ever released: each must load for ever.

A file here is never edited. A new version adds a file and a migration in `arzbench.store`.
"""

import datetime
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arzbench import store
from arzbench.facts import Phase
from arzbench.predict.plan import make_plan
from arzbench.predict.spread import PastRun
from arzbench.profiles import find_platform, load_calibration
from arzbench.records import Calibration, Plan, Platform, Verdict
from arzbench.study import DQN, PPO, Study
from arzbench.study_file import load_study
from arzbench.validate.result import Validation
from arzbench.validate.scores import overruns

GOLDEN = Path(__file__).resolve().parent / "golden"
LOADERS: dict[str, Callable[[Path], Any]] = {
    "study": load_study,
    "platform": lambda path: find_platform(path.parent, path.name),
    "calibration": load_calibration,
    "plan": lambda path: store.load(path, "arzbench/plan", Plan, "plan"),
    "validation": lambda path: store.load(path, "arzbench/validation", Validation, "validation"),
}


def golden(kind: str, version: int) -> Path:
    (found,) = GOLDEN.glob(f"{kind}-{version}.*")
    return found


@pytest.mark.parametrize("kind", LOADERS)
def test_every_version_ever_released_has_its_file_and_loads(kind: str) -> None:
    for version in range(1, store.VERSIONS[f"arzbench/{kind}"] + 1):
        LOADERS[kind](golden(kind, version))


def test_every_golden_file_is_read_by_a_test() -> None:
    kinds = {path.stem.rpartition("-")[0] for path in GOLDEN.iterdir()}
    assert kinds <= {schema.removeprefix("arzbench/") for schema in store.VERSIONS}


def test_study_1() -> None:
    study: Study = load_study(golden("study", 1))
    first, second = study.trainings
    assert isinstance(first, DQN)
    assert isinstance(second, PPO)
    assert (first.train_freq, first.buffer_size, first.seed) == ((4, "step"), 1000, 7)
    assert (second.rollout_steps, second.n_epochs) == (128, 4)
    assert (first.evaluation.eval_freq, second.checkpoint.checkpoint_freq) == (500, 500)
    assert first.hyperparameters == {"learning_rate": 1e-3, "target_update_interval": 500}


def test_platform_1() -> None:
    platform: Platform = LOADERS["platform"](golden("platform", 1))
    assert (platform.name, platform.session_s, platform.weekly_s) == ("golden", 43_200, 108_000)
    assert (platform.device, platform.fresh_machine) == ("cuda", True)


def test_calibration_1_still_finds_its_workloads() -> None:
    """A change of what enters a workload's identity would make every old calibration useless."""
    record: Calibration = load_calibration(golden("calibration", 1))
    for training in load_study(golden("study", 1)).trainings:
        assert record.find(training.workload_digest()) is not None


def test_plan_1_kept_the_middle_of_its_ratios() -> None:
    old: Plan = LOADERS["plan"](golden("plan", 1))
    assert math.exp(old.spread.log_centre) == pytest.approx(statistics.median(old.spread.ratios))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_plans_follow_from_calibration_1(version: int) -> None:
    """The same question, asked again years later, has the same answer, about: priors may change."""
    old: Plan = LOADERS["plan"](golden("plan", version))
    assert old.rows[-1].verdict is Verdict.TIMES_OUT
    assert old.models[0].get(Phase.UPDATE) is not None
    record = load_calibration(golden("calibration", 1))
    again = make_plan(
        old.study,
        record,
        old.calibration_path,
        old.platform,
        host=old.host,
        past=[PastRun(ratio, f"run {i}", f"run {i}") for i, ratio in enumerate(old.spread.ratios)],
        quota_s=old.quota_s,
        confidence=old.confidence,
        created=datetime.datetime.fromisoformat(old.created),
        command="arzbench run --auto-budget",
        uploads=old.uploads,
    )
    assert old.uploads == (version >= 3)
    assert (old.models[0].beside is not None) == (version == 4)
    assert again.study == old.study
    assert again.rows[-1].estimate.p50_s == pytest.approx(old.rows[-1].estimate.p50_s, rel=0.01)
    assert [o.key for o in again.options] == [o.key for o in old.options]


def test_the_first_validation_still_says_what_it_said() -> None:
    validation = LOADERS["validation"](golden("validation", 1))
    assert [r.wall_s for r in validation.runs] == [31.0, 33.5]
    assert overruns(validation.runs) == [validation.runs[1]]
    assert validation.runs[0].marks[0].left_p50_s == 28.0

"""What a quota holds: budgets that fit where one rollout more does not, verdicts, sessions, refusals."""

import re
from pathlib import Path

import msgspec
import pytest

from arzbench.digest import digest
from arzbench.errors import ExitCode, UsageError, WillNotFitError
from arzbench.predict.costmodel import Job, fit
from arzbench.predict.landing import quota_for
from arzbench.predict.plan import STEPS, Planner
from arzbench.predict.schedule import budgets_for
from arzbench.predict.spread import spread_from
from arzbench.records import Platform, Verdict
from arzbench.study import Study
from arzbench.study_file import load_study
from arzbench.units import parse_duration
from tests import worlds
from tests.worlds import FULL, PAIR, plan

ROOT = Path(__file__).resolve().parents[2]
PPO = worlds.config(
    algo="ppo", total_timesteps=50_000, hyperparameters={"n_steps": 256}, n_envs=4, name="ppo"
)
MIXED = worlds.study(worlds.config(total_timesteps=30_000), PPO)


def planner(
    study: Study,
    quota_s: float | None,
    confidence: float = 0.95,
) -> Planner:
    models = [fit(worlds.samples(t, spread=0.03, seed=i)) for i, t in enumerate(study.trainings)]
    return Planner(study, models, spread_from([]), quota_s, confidence, cold=False)


def next_cell(study: Study, budgets: tuple[int, ...]) -> tuple[int, ...]:
    """The next larger budgets in the study's proportion: one rollout more in at least one training."""
    shares = [
        (b + t.rollout_steps) / t.total_timesteps for b, t in zip(budgets, study.trainings, strict=True)
    ]
    return budgets_for(study, min(shares))


# ---------------------------------------------------------------- the largest budget


@pytest.mark.parametrize(
    "study", [worlds.study(FULL), worlds.study(PPO), PAIR, MIXED], ids=lambda s: s.trainings[-1].name
)
@pytest.mark.parametrize("quota_s", [30.0, 60.0, 61.7, 600.0, 3600.0, 43200.0, 1e7])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_largest_budget_fits_and_the_next_does_not(
    study: Study, quota_s: float, confidence: float
) -> None:
    asked = planner(study, quota_s, confidence)
    budgets = asked.largest(confidence)
    assert asked.job(budgets).quantile(confidence) <= asked.usable_s()
    more = next_cell(study, budgets)
    assert more != budgets
    shares = []
    for budget, training in zip(budgets, study.trainings, strict=True):
        assert budget > 0
        assert budget % training.rollout_steps == 0
        shares.append([n / training.total_timesteps for n in (budget, budget + training.rollout_steps)])
    assert max(low for low, _ in shares) < min(high for _, high in shares)  # in the study's proportion
    assert asked.job(more).quantile(confidence) > asked.usable_s()


@pytest.mark.parametrize("total", [49, 98, 103, 107, 161, 187, 24_000])
def test_one_rollout_is_never_lost_to_rounding(total: int) -> None:
    """1 / 49 * 49 is less than 1 in floating point."""
    study = worlds.study(worlds.config(total_timesteps=total, hyperparameters={"train_freq": 1}))
    asked = planner(study, 1e6)
    assert budgets_for(study, asked.smallest) == (1,)
    assert budgets_for(study, 1.0) == (total,)
    assert asked.largest(0.95) is not None


# ---------------------------------------------------------------- too short


@pytest.mark.parametrize(
    "study", [worlds.study(FULL), worlds.study(PPO), PAIR, MIXED], ids=lambda s: s.trainings[-1].name
)
@pytest.mark.parametrize("quota_s", [0.5, 1.0, 3.0])
def test_a_quota_too_short_is_refused_with_the_least_that_works(study: Study, quota_s: float) -> None:
    with pytest.raises(WillNotFitError, match="too short for one cycle") as caught:
        plan(study, quota_s)
    assert caught.value.exit_code == ExitCode.WILL_NOT_FIT == 3
    found = re.search(r"--quota (\S+)", caught.value.hint)
    assert found
    least = parse_duration(found[1])
    assert plan(study, least).safe_timesteps
    with pytest.raises(WillNotFitError):
        plan(study, least - 1.5)


@pytest.mark.parametrize("confidence", [0.0, 0.49, 1.0, 1.5, float("nan")])
def test_a_confidence_that_cannot_be_had_is_refused(confidence: float) -> None:
    with pytest.raises(UsageError, match="--confidence"):
        plan(worlds.study(FULL), 60.0, confidence=confidence)


# ---------------------------------------------------------------- options and sessions


@pytest.mark.parametrize("quota_s", [40.0, 300.0, 1e6])
def test_the_options_go_from_safest_to_whole(quota_s: float) -> None:
    made = plan(PAIR, quota_s)
    options = {o.key: o for o in made.options}
    safest, recommended, whole = options["A"], options["B"], options["C"]
    assert safest.total_timesteps <= recommended.total_timesteps <= whole.total_timesteps
    assert safest.probability >= 0.99
    assert recommended.probability >= 0.95
    assert whole.budgets == tuple(t.total_timesteps for t in PAIR.trainings)
    assert recommended.total_timesteps <= made.safe_timesteps or recommended.budgets == whole.budgets
    for option in made.options:
        assert option.command.startswith(f"arzbench run --option {option.key}")
        assert ("resumes" in option.command) == (option.sessions > 1)
    title = "in one session" if whole.sessions == 1 else f"over {whole.sessions} sessions"
    assert whole.title == f"the whole study {title}"
    assert (whole.sessions == 1) == (quota_s == 1e6)


def test_an_option_never_promises_a_rollout_that_does_not_fit() -> None:
    """SB3 rounds 1,000 steps up to 1,024: where 512 fit, the whole 1,000 need not."""
    training = worlds.config(algo="ppo", total_timesteps=1000, hyperparameters={"n_steps": 512})
    asked = planner(worlds.study(training), None)
    half, whole = (asked.job((n,)).quantile(0.95) for n in (512, 1024))
    assert whole > half
    made = plan(worlds.study(training), quota_for((half + whole) / 2, uploads=False))
    recommended = next(o for o in made.options if o.key == "B")
    assert recommended.budgets == (512,)
    assert recommended.probability >= 0.95


@pytest.mark.parametrize("quota_s", [20.0, 33.0, 47.0, 60.0, 100.0, 175.0, 1e5])
def test_the_number_of_sessions_is_the_least_that_fits(quota_s: float) -> None:
    asked = planner(PAIR, quota_s)
    count = asked.sessions(asked.full, 0.95)

    def fits(sessions: int) -> bool:
        return asked.job(asked.full, sessions).quantile(0.95) <= sessions * asked.usable_s()

    assert fits(count)
    assert not any(fits(fewer) for fewer in range(1, count))


@pytest.mark.parametrize("quota_s", [0.5, 1.0, 3.0])
def test_sessions_shorter_than_their_start_never_end(quota_s: float) -> None:
    asked = planner(PAIR, quota_s)
    assert asked.sessions(asked.full, 0.95) is None


# ---------------------------------------------------------------- the table


def test_without_a_quota_there_are_no_verdicts() -> None:
    made = plan(worlds.study(FULL), None)
    assert made.safe_timesteps is None
    assert {r.verdict for r in made.rows} == {None}
    assert {r.probability for r in made.rows} == {None}
    (only,) = made.options
    assert (only.key, only.budgets, only.probability) == ("A", (24_000,), None)


def test_the_table_holds_the_usual_sizes_and_the_study() -> None:
    made = plan(PAIR, 60.0)
    assert [r.label for r in made.rows] == [*(f"{n:,}" for n in STEPS), "study job"]
    assert [r.total_timesteps for r in made.rows[:-1]] == list(STEPS)
    assert made.rows[-1].total_timesteps == 24_000 + 10_004  # rounded up as SB3 does
    times = [r.estimate.p50_s for r in made.rows[:-1]]
    assert times == sorted(times)


def test_unknown_episode_lengths_are_given_as_a_range_and_said() -> None:
    made = plan(worlds.study(FULL), 3600.0, env=worlds.facts(10, 500))
    row = made.rows[-1]
    assert row.hidden_steps == (122 * 10, 122 * 500)
    assert any("may take 500" in note for note in row.estimate.notes)


@pytest.mark.parametrize(
    ("share", "verdict", "least"),
    [(0.8, Verdict.TIMES_OUT, 0.0), (1.05, Verdict.AT_RISK, 0.5), (1.5, Verdict.FITS, 0.95)],
)
def test_verdicts_follow_from_probabilities(share: float, verdict: Verdict, least: float) -> None:
    study = worlds.study(FULL)
    rows = plan(study, share * planner(study, None).job((24_000,)).quantile(0.5)).rows
    assert rows[-1].verdict is verdict
    assert rows[-1].probability >= least
    probabilities = [r.probability for r in rows[:-1]]
    assert probabilities == sorted(probabilities, reverse=True)


# ---------------------------------------------------------------- the incident


def test_the_incident_holds_98240_env_steps() -> None:
    made = plan(load_study(ROOT / "profiles" / "studies" / "incident.toml"), 43_200.0)
    row = made.rows[-1]
    assert [s.env_steps[0] for s in made.schedules] == [
        240 + 24_000 + 24 * 5 * 240 + 240,
        240 + 10_000 + 10 * 5 * 240 + 240,
        240 + 10_000 + 10 * 5 * 240 + 240,
    ]
    assert row.total_timesteps == 44_000
    assert row.total_timesteps + row.hidden_steps[0] == 98_240
    evaluated = 44 * 5 * 240
    assert evaluated / 98_240 == pytest.approx(0.54, abs=0.005)
    assert row.hidden_steps == (54_240, 54_240)


# ---------------------------------------------------------------- the record


def test_a_plan_explains_itself() -> None:
    study = worlds.study(FULL)
    record = worlds.calibration(study)
    made = plan(study, 60.0, calibration=record)
    assert made.id == "job-20260102T030405Z"
    assert made.study_digest == digest(study)
    assert made.calibration_id == record.id
    assert made.foreign == ()
    again = Job([(made.models[0], made.schedules[0])], made.spread, cold=made.platform.fresh_machine)
    assert again.estimate() == msgspec.structs.replace(made.rows[-1].estimate, notes=())


def test_another_machines_calibration_is_marked_and_widened() -> None:
    study = worlds.study(FULL)
    other = msgspec.structs.replace(worlds.HOST, name="lab-2", device="P100")
    made = plan(study, 600.0, host=other)
    own = plan(study, 600.0)
    assert made.foreign == ("name", "device")
    assert made.host == worlds.HOST  # where the prices are from
    assert made.spread.log_sigma > own.spread.log_sigma
    assert made.safe_timesteps < own.safe_timesteps


def test_drift_and_notes_of_the_calibration_are_warnings() -> None:
    study = worlds.study(FULL)
    record = worlds.calibration(study)
    noted = tuple(msgspec.structs.replace(w, notes=("extrapolated",)) for w in record.workloads)
    record = msgspec.structs.replace(record, drift=0.12, workloads=noted)
    made = plan(study, 600.0, calibration=record)
    assert made.warnings == ("this machine varied 12% while it was measured", "extrapolated")
    assert plan(study, 600.0).warnings == ()


def test_a_platform_without_caches_is_planned_cold() -> None:
    fresh: Platform = msgspec.structs.replace(worlds.PLATFORM, fresh_machine=True)
    study = worlds.study(FULL)
    warm, cold = (plan(study, 600.0, platform=p).rows[0].estimate.p50_s for p in (worlds.PLATFORM, fresh))
    assert cold - warm == pytest.approx(worlds.JIT["cold"] - worlds.JIT["warm"], rel=0.05)

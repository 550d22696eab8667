"""What a quota holds: budgets that fit where one rollout more does not, verdicts, sessions, refusals."""

import itertools
import re
from pathlib import Path

import msgspec
import pytest

from arzbench import store
from arzbench.digest import digest
from arzbench.errors import ExitCode, UsageError, WillNotFitError
from arzbench.facts import EnvFacts, Phase
from arzbench.predict.costmodel import Job, fit
from arzbench.predict.landing import quota_for
from arzbench.predict.plan import MAX_SESSIONS, STEPS, Planner, whole_estimate
from arzbench.predict.schedule import budgets_for
from arzbench.predict.spread import spread_from
from arzbench.records import Plan, Platform, Spread, Verdict
from arzbench.study import Study, TrainConfig
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
    *,
    env: EnvFacts | None = None,
    spread: Spread | None = None,
    cold: bool = False,
) -> Planner:
    models = [fit(worlds.samples(t, spread=0.03, seed=i, env=env)) for i, t in enumerate(study.trainings)]
    return Planner(study, models, spread or spread_from([]), quota_s, confidence, cold=cold)


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
    assert asked.job(more).quantile(confidence) > asked.usable_s()


@pytest.mark.parametrize("total", [49, 98, 103, 107, 161, 187, 24_000])
def test_one_rollout_is_never_lost_to_rounding(total: int) -> None:
    """1 / 49 * 49 is less than 1 in floating point."""
    study = worlds.study(worlds.config(total_timesteps=total, hyperparameters={"train_freq": 1}))
    asked = planner(study, 1e6)
    assert asked.least == (1,)
    assert budgets_for(study, 1.0) == (total,)
    assert asked.largest(0.95) is not None


@pytest.mark.parametrize("study", [worlds.study(PPO), PAIR, MIXED], ids=lambda s: s.trainings[-1].name)
def test_budgets_are_whole_rollouts_in_the_studys_proportion(study: Study) -> None:
    budgets = planner(study, 120.0).largest(0.95)
    for budget, training in zip(budgets, study.trainings, strict=True):
        assert budget > 0
        assert budget % training.rollout_steps == 0
    shares = [
        (b / t.total_timesteps, (b + t.rollout_steps) / t.total_timesteps)
        for b, t in zip(budgets, study.trainings, strict=True)
    ]
    assert max(low for low, _ in shares) < min(high for _, high in shares)


def test_a_larger_quota_and_a_lower_confidence_never_hold_less() -> None:
    study = worlds.study(FULL)
    sizes = [planner(study, quota_s).largest(0.95) for quota_s in (30, 60, 120, 3600)]
    assert sizes == sorted(sizes)
    by_confidence = [planner(study, 300.0).largest(c) for c in (0.99, 0.95, 0.9, 0.5)]
    assert by_confidence == sorted(by_confidence)


def test_a_fresh_machine_pays_for_compilation_again() -> None:
    study = worlds.study(FULL)
    warm, cold = (planner(study, 60.0, cold=c).largest(0.95) for c in (False, True))
    assert cold < warm


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


def test_a_phase_that_was_not_measured_is_named() -> None:
    study = worlds.study(FULL)
    record = worlds.calibration(study, leave_out=[Phase.EVAL_STEP])
    with pytest.raises(UsageError, match="no samples of: evaluation"):
        plan(study, 3600.0, calibration=record)


def test_a_calibration_of_something_else_is_named() -> None:
    with pytest.raises(UsageError, match="does not cover: ppo"):
        plan(worlds.study(PPO), 60.0, calibration=worlds.calibration(worlds.study(FULL)))


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
    assert MAX_SESSIONS >= 1000


def test_splitting_says_so() -> None:
    options = {o.key: o for o in plan(PAIR, 60.0).options}
    assert options["C"].sessions > 1
    assert f"over {options['C'].sessions} sessions" in options["C"].title
    one = {o.key: o for o in plan(PAIR, 1e6).options}["C"]
    assert one.sessions == 1
    assert one.title == "the whole study in one session"


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
    assert whole_estimate(made) == made.rows[-1].estimate
    times = [r.estimate.p50_s for r in made.rows[:-1]]
    assert times == sorted(times)


def test_verdicts_follow_from_probabilities() -> None:
    study = worlds.study(FULL)
    middle = planner(study, None).job((24_000,)).quantile(0.5)
    seen = set()
    for quota_s in (middle * 0.8, middle * 1.05, middle * 1.5):
        made = plan(study, quota_s)
        row = made.rows[-1]
        expected = (
            Verdict.FITS
            if row.probability >= 0.95
            else (Verdict.AT_RISK if row.probability >= 0.5 else Verdict.TIMES_OUT)
        )
        assert row.verdict is expected
        seen.add(row.verdict)
        probabilities = [r.probability or 0.0 for r in made.rows[:-1]]
        assert all(a >= b for a, b in itertools.pairwise(probabilities))
    assert seen == set(Verdict)


def test_hidden_steps_stand_beside_the_training() -> None:
    row = plan(worlds.study(FULL), 3600.0).rows[-1]
    hidden = 24 * 5 * 240 + 240 + 240  # evaluations, the final episode and the baseline
    assert row.hidden_steps == (hidden, hidden)


def test_unknown_episode_lengths_are_given_as_a_range_and_said() -> None:
    made = plan(worlds.study(FULL), 3600.0, env=worlds.facts(10, 500))
    row = made.rows[-1]
    assert row.hidden_steps == (122 * 10, 122 * 500)
    assert any("may take 500" in note for note in row.estimate.notes)


# ---------------------------------------------------------------- the incident


def incident() -> Study:
    """Three trainings, each with a baseline before it and an episode of the trained policy after it."""
    trainings: list[TrainConfig] = [
        worlds.config(
            name=name,
            total_timesteps=total,
            baseline={"controller": "fixed_time", "episodes": 1},
            evaluation={"eval_freq": 1000, "n_eval_episodes": 5, "final_episodes": 1},
        )
        for name, total in (("first", 24_000), ("second", 10_000), ("third", 10_000))
    ]
    return worlds.study(*trainings, name="incident")


@pytest.mark.parametrize("study", [incident(), load_study(ROOT / "profiles" / "studies" / "incident.toml")])
def test_the_incident_holds_98240_env_steps(study: Study) -> None:
    made = plan(study, 43_200.0)
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


def test_the_incident_times_out_at_its_own_price() -> None:
    """0.48 s per env step, evaluation included: 13 hours where 12 were given."""
    prices = dict.fromkeys(worlds.PRICES, 1e-6) | {
        Phase.ENV_STEP: 0.48,
        Phase.EVAL_STEP: 0.48,
        Phase.BASELINE: 0.48,
        Phase.IMPORT: 130.0,
    }
    study = incident()
    made = plan(study, 43_200.0, calibration=worlds.calibration(study, prices=prices))
    row = made.rows[-1]
    assert row.verdict is Verdict.TIMES_OUT
    assert row.estimate.p50_s / 3600 == pytest.approx(13.1, abs=0.1)
    fewer = msgspec.structs.replace(study.trainings[0].evaluation, eval_freq=5000)
    lighter = worlds.study(
        *(msgspec.structs.replace(t, evaluation=fewer) for t in study.trainings), name="incident"
    )
    assert plan(lighter, 43_200.0, calibration=worlds.calibration(lighter, prices=prices)).rows[
        -1
    ].verdict is (Verdict.FITS)


# ---------------------------------------------------------------- the record


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    made = plan(PAIR, 60.0, env=worlds.facts(10, 500))
    path = tmp_path / "plan.json"
    store.save(path, "arzbench/plan", made)
    assert store.load(path, "arzbench/plan", Plan, "plan") == made


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

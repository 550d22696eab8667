"""What a run says of its end at marks on its way is kept in its ledger."""

from pathlib import Path

import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import Phase
from arzbench.predict.remaining import predictor, probability_within, remaining
from arzbench.predict.schedule import count_training
from arzbench.records import Estimate
from arzbench.run import ledger
from arzbench.run.context import MARKS
from arzbench.run.job import RunState, run_job
from arzbench.run.simulated import SyntheticWorkload
from tests.run.jobs import COSTS, Recorded, dqn, plan, request, run, study


def kept(folder: Path) -> list[dict[str, float]]:
    told = ledger.read(folder / "reports" / "r1" / "ledger.jsonl")
    return [{**e.data, "elapsed_s": e.elapsed_s} for e in told.of_kind("prediction")]


def test_a_prediction_is_kept_at_each_mark_of_the_job(tmp_path: Path) -> None:
    run(tmp_path, study(), predict=lambda state: Estimate(p50_s=50.0, p90_s=60.0, p99_s=70.0))
    found = kept(tmp_path)
    assert [e["mark"] for e in found] == list(MARKS)
    assert all(e["mark"] <= e["done"] < e["mark"] + 0.05 for e in found)
    assert [e["elapsed_s"] for e in found] == sorted(e["elapsed_s"] for e in found)
    assert found[0]["left"] == {"p50_s": 50.0, "p90_s": 60.0, "p99_s": 70.0}


def test_without_prices_nothing_is_kept(tmp_path: Path) -> None:
    run(tmp_path, study(), predict=lambda state: None)
    assert kept(tmp_path) == []


def test_a_resumed_session_does_not_tell_marks_again(tmp_path: Path) -> None:
    def predict(state: RunState) -> Estimate:
        return Estimate(p50_s=1.0, p90_s=1.0, p99_s=1.0)

    run(tmp_path, study(), budgets=(250, 0), predict=predict)
    run(tmp_path, study(), predict=predict)
    assert [e["mark"] for e in kept(tmp_path)] == [*MARKS, 0.25, 0.5]  # 250 of 250, then of 1,112


def test_the_end_of_a_run_with_declared_prices_is_predicted_at_every_mark(tmp_path: Path) -> None:
    clock, job = VirtualClock(), study(dqn(total_timesteps=2000))
    made = plan(job)
    asked = request(tmp_path, job, clock, plan=made, predict=predictor(made, job, (2000,)))
    outcome = run_job(asked, SyntheticWorkload(clock, COSTS, episode_steps=20), clock, Recorded())
    found = kept(tmp_path)
    assert len(found) == len(MARKS)
    for entry in found:
        said = entry["elapsed_s"] + entry["left"]["p50_s"]  # type: ignore[index]
        assert said == pytest.approx(outcome.elapsed_s, rel=0.05), entry


def test_what_was_said_at_a_mark_can_be_said_again_from_the_ledger(tmp_path: Path) -> None:
    clock, job = VirtualClock(), study(dqn(total_timesteps=2000))
    made = plan(job)
    asked = request(tmp_path, job, clock, plan=made, predict=predictor(made, job, (2000,)))
    run_job(asked, SyntheticWorkload(clock, COSTS, episode_steps=20), clock, Recorded())
    model = made.models[0]
    schedule = count_training(job.trainings[0], model.facts, budget=2000, state_bytes=model.state_bytes)
    for entry in kept(tmp_path):
        (observed,) = [
            {Phase(phase): (seconds, units) for phase, (seconds, units) in training.items()}
            for training in entry["observed"]  # type: ignore[attr-defined]
        ]
        again = remaining([(model, schedule, observed)], made.spread)
        assert again.p50_s == pytest.approx(entry["left"]["p50_s"])  # type: ignore[index]


def test_the_probability_of_ending_in_time_is_that_of_the_estimate() -> None:
    left = Estimate(p50_s=100.0, p90_s=120.0, p99_s=139.3)
    for seconds, probability in ((100.0, 0.5), (120.0, 0.9), (139.3, 0.99)):
        assert probability_within(left, seconds) == pytest.approx(probability, abs=0.002)
    assert probability_within(left, 0.0) == 0.0
    certain = Estimate(p50_s=5.0, p90_s=5.0, p99_s=5.0)
    assert (probability_within(certain, 4.9), probability_within(certain, 5.0)) == (0.0, 1.0)
    assert probability_within(Estimate(p50_s=0.0, p90_s=0.0, p99_s=0.0), 1.0) == 1.0

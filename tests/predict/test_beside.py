"""Evaluations played beside the training: what they cost it is measured, and a plan counts that alone."""

from typing import Any

import msgspec
import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import Phase
from arzbench.measure.burst import measure_once
from arzbench.measure.phase_times import PhaseTotals
from arzbench.predict.beside import in_order
from arzbench.predict.costmodel import Job
from arzbench.predict.plan import BESIDE_UNKNOWN, EARLIER
from arzbench.predict.remaining import remaining
from arzbench.predict.schedule import count_training
from arzbench.records import NOT_BESIDE, BesidePrice, CostModel, Plan, Spread
from arzbench.report.sheets import plan_lines
from arzbench.study import Study, TrainConfig
from arzbench.study_changes import change_study
from arzbench.workload import AbstractTraining, EvaluationResult
from tests import worlds
from tests.measure.doubles import COSTS, Free, Store, Workload, burst_job, model_of
from tests.worlds import EXACT

#: as an evaluation beside it may cost a training
HOST = Spread(source="a record", log_sigma=0.05)
PRICE = BesidePrice(start_s=0.03, slow_down=1.25, error=0.0, n=1000)
#: a training step costs some 5 ms, an evaluation's env step as much
EVALUATED: dict[str, Any] = {"eval_freq": 1000, "n_eval_episodes": 5, "final_episodes": 1}
SHORT_ONES = {**EVALUATED, "n_eval_episodes": 1}


def config(**changes: Any) -> TrainConfig:
    plain: dict[str, Any] = {"logging": {"mode": "off"}, "evaluation": EVALUATED, "total_timesteps": 12_500}
    return worlds.config(**{**plain, **changes})


#: (training, what an evaluation's env step costs): shorter than the training until the next, longer, one due
#: at the end, too short to be played beside, of an on-policy algorithm
WORLDS = {
    "shorter": (config(), 0.004),
    "longer": (config(), 0.02),
    "one at the end": (config(total_timesteps=12_000), 0.006),
    "short": (config(evaluation=SHORT_ONES), 0.0004),
    "on-policy": (config(algo="ppo", n_envs=2, hyperparameters={"n_steps": 125}), 0.004),
}


def calibrated(training: TrainConfig, costs: dict[Phase, float]) -> CostModel:
    """By two processes, each with three evaluations, two of them beside the training."""
    results = []
    for repetition in range(2):
        clock = VirtualClock()
        work, store = Workload(clock, costs, beside=PRICE), Store(clock)
        episodes = max(1, round(0.01 / costs[Phase.EVAL_STEP]))
        job = burst_job(training, repetition=repetition, cold=repetition == 0, steps=2000, beside=episodes)
        results.append(measure_once(job, work, store, clock, lambda what, share: None))
    return model_of(training, *results)


class Watched(Free):
    """Notes what was paid when an evaluation was complete, and whether it was played beside the training."""

    def __init__(self, store: Store, training: TrainConfig, totals: PhaseTotals) -> None:
        super().__init__(store, training)
        self.totals = totals
        self.seen: list[tuple[float, dict[Phase, tuple[float, int]]]] = []
        self.beside: list[bool] = []

    def evaluated(self, training: AbstractTraining, result: EvaluationResult) -> None:
        self.beside.append(result.beside_s is not None)
        self.seen.append((self.store.clock.now(), self.totals.totals))


def trained(training: TrainConfig, costs: dict[Phase, float]) -> tuple[Watched, float]:
    """A whole training; when it ended."""
    clock, totals = VirtualClock(), PhaseTotals()
    watched = Watched(Store(clock), training, totals)
    work = Workload(clock, costs, beside=PRICE)
    work.load()
    work.first_step(training)
    whole = work.create(training, totals)
    whole.run(watched)
    watched.store.save(whole.capture())
    return watched, clock.now()


@pytest.mark.parametrize("name", WORLDS)
def test_a_training_takes_what_was_said(name: str) -> None:
    training, eval_s = WORLDS[name]
    costs = {**COSTS, Phase.EVAL_STEP: eval_s}
    model = calibrated(training, costs)
    assert model.get(Phase.EVAL_STEP).fixed_s == pytest.approx(eval_s)  # of those that are waited for
    assert model.beside.slow_down == pytest.approx(PRICE.slow_down, rel=0.01)
    assert model.beside.start_s == pytest.approx(PRICE.start_s, rel=0.01)
    schedule = count_training(training, model.facts, state_bytes=model.state_bytes)
    watched, took = trained(training, costs)
    assert any(watched.beside) is (name != "short")
    assert Job([(model, schedule)], EXACT).quantile(0.5) == pytest.approx(took, rel=0.01)
    alone = msgspec.structs.replace(
        training, evaluation=msgspec.structs.replace(training.evaluation, concurrent=False)
    )
    waits = count_training(alone, model.facts, state_bytes=model.state_bytes)
    saved = Job([(model, waits)], EXACT).quantile(0.5) - Job([(model, schedule)], EXACT).quantile(0.5)
    assert (saved > 0.02 * took) is (name != "short")
    for phase, pieces in in_order(model, schedule).items():
        seconds = sum(s for _, s in pieces)
        if phase is not Phase.CHECKPOINT and seconds:
            assert seconds == pytest.approx(watched.totals.totals[phase][0], rel=0.03), phase


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_left_is_known_along_the_way(name: str) -> None:
    training, eval_s = WORLDS[name]
    costs = {**COSTS, Phase.EVAL_STEP: eval_s}
    model = calibrated(training, costs)
    schedule = count_training(training, model.facts, state_bytes=model.state_bytes)
    watched, took = trained(training, costs)
    assert len(watched.seen) == schedule.evaluations + 1
    for now, observed in watched.seen[:-1]:
        left = remaining([(model, schedule, observed)], HOST)
        assert left.p50_s == pytest.approx(took - now, abs=0.04 * took), now


QUIET = worlds.study(
    config(total_timesteps=12_900, evaluation={**EVALUATED, "n_eval_episodes": 3}), name="quiet"
)


def planned(study: Study = QUIET, **how: Any) -> Plan:
    record = worlds.calibration(study, **{"spread": 0.03, **how})
    return worlds.plan(study, 600.0, calibration=record)


def test_a_plan_says_how_many_are_played_beside_the_training_and_what_they_cost_it() -> None:
    made = planned(beside=1.1, spread=0.0)
    (line,) = [line for line in plan_lines(made) if "beside" in line]
    # the first is waited for; each takes 2.95 s, less than the training until the next: 0.02 s begin it
    assert line == "11 of 12 evaluations are played beside the training, which pays for 11% of their time"
    waits = planned(change_study(QUIET, ["evaluation.concurrent=false"]), beside=1.1, spread=0.0)
    assert not [line for line in plan_lines(waits) if "beside" in line]
    saved = waits.rows[-1].estimate.p50_s - made.rows[-1].estimate.p50_s
    assert saved == pytest.approx(11 * (0.9 * 2.952 - 0.02), rel=0.01)


def test_they_are_counted_only_where_that_was_measured_and_it_is_said() -> None:
    made, waits = planned(), planned(change_study(QUIET, ["evaluation.concurrent=false"]))
    assert made.rows == waits.rows
    assert made.warnings == (BESIDE_UNKNOWN,)
    assert waits.warnings == ()
    record = worlds.calibration(QUIET, spread=0.03)
    refused = f"{NOT_BESIDE}: the model is of a class of its own"
    one_core = msgspec.structs.replace(worlds.HOST, cores=1)
    for changes, warnings in (
        ({"workloads": (msgspec.structs.replace(record.workloads[0], notes=(refused,)),)}, (refused,)),
        ({"host": one_core}, ()),
        ({"imported": "a log"}, None),
    ):
        other = worlds.plan(QUIET, 600.0, calibration=msgspec.structs.replace(record, **changes))
        assert other.rows[-1].estimate.p50_s == pytest.approx(waits.rows[-1].estimate.p50_s, rel=0.01)
        assert BESIDE_UNKNOWN not in other.warnings
        assert warnings is None or other.warnings == warnings


def test_a_slow_down_that_is_hardly_known_widens_the_interval() -> None:
    sure, single = planned(beside=1.1), planned(beside=1.1, repetitions=1)
    assert sure.models[0].beside.error < 0.05 < 0.5 < single.models[0].beside.error
    widths = [p.rows[-1].estimate.p90_s / p.rows[-1].estimate.p50_s for p in (sure, single)]
    assert widths[0] < widths[1]


def test_prices_from_before_the_fast_path_are_marked() -> None:
    record = worlds.calibration(QUIET, beside=1.1)
    old = msgspec.structs.replace(record, versions={"python": "3.11"})
    assert worlds.plan(QUIET, 600.0, calibration=old).warnings == (EARLIER,)
    slow = change_study(QUIET, ["fast=false"])
    old = msgspec.structs.replace(worlds.calibration(slow, beside=1.1), versions={})
    assert worlds.plan(slow, 600.0, calibration=old).warnings == ()

"""What is left of a run: priced again by what was seen, phase by phase."""

import math
import random
import statistics
from collections.abc import Callable

import pytest

from arzbench.facts import Phase
from arzbench.predict.remaining import remaining
from arzbench.predict.spread import spread_from
from arzbench.records import CostModel, Spread, TrainSchedule
from tests import worlds
from tests.worlds import EXACT, declared, model_of, schedule_of

Observed = dict[Phase, tuple[float, int]]


def observe(schedule: TrainSchedule, share: float, price: Callable[[Phase, float], float]) -> Observed:
    """`share` of every phase done, at `price(phase, size)` seconds a unit."""
    return {
        item.phase: (price(item.phase, item.size) * int(item.count * share), int(item.count * share))
        for item in schedule.counts
        if int(item.count * share)
    }


def job_seconds(schedule: TrainSchedule) -> float:
    return sum(item.count * declared(item.phase, item.size) for item in schedule.counts)


def test_what_remains_falls_to_nothing_as_work_is_done() -> None:
    model, schedule = model_of(), schedule_of()
    left = [
        remaining([(model, schedule, observe(schedule, share, declared))], EXACT).p50_s
        for share in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    ]
    whole = job_seconds(schedule)
    assert left[0] == pytest.approx(whole, rel=0.001)
    assert left[2] == pytest.approx(whole / 2, rel=0.02)
    assert left == sorted(left, reverse=True)
    assert left[-1] == pytest.approx(0, abs=0.01 * whole / 100)


def test_a_run_twice_as_slow_is_repriced_by_what_was_seen() -> None:
    model, schedule = model_of(), schedule_of()
    slow = observe(schedule, 0.25, lambda phase, size: 2 * declared(phase, size))
    left = remaining([(model, schedule, slow)], spread_from([])).p50_s
    assert left == pytest.approx(2 * 0.75 * job_seconds(schedule), rel=0.05)


def test_a_phase_not_yet_seen_keeps_its_calibrated_price() -> None:
    """Before the first evaluation only cheap steps were seen; one ratio for all would be far off."""
    model, schedule = model_of(), schedule_of()
    seen = {Phase.ENV_STEP: (0.5 * worlds.PRICES[Phase.ENV_STEP] * 2400, 2400)}
    left = remaining([(model, schedule, seen)], EXACT).p50_s
    steps = schedule.get(Phase.ENV_STEP).count
    others = job_seconds(schedule) - steps * worlds.PRICES[Phase.ENV_STEP]
    assert left == pytest.approx(others + 0.5 * (steps - 2400) * worlds.PRICES[Phase.ENV_STEP], rel=0.05)


def test_a_phase_the_calibration_lacks_is_priced_once_it_is_seen() -> None:
    schedule = schedule_of()
    model = model_of(leave_out=(Phase.UPDATE,))
    updates = int(schedule.get(Phase.UPDATE).count)
    seen = {Phase.UPDATE: (updates / 2 * worlds.PRICES[Phase.UPDATE], updates // 2)}
    without, with_ = (remaining([(model, schedule, o)], EXACT).p50_s for o in ({}, seen))
    assert with_ - without == pytest.approx(updates / 2 * worlds.PRICES[Phase.UPDATE], rel=0.01)


def test_short_episodes_leave_nothing_to_do_at_the_end() -> None:
    """Lengths between 10 and 500 were possible; they stayed short."""
    model, schedule = model_of(), schedule_of(env=worlds.facts(10, 500))
    done = remaining([(model, schedule, observe(schedule, 1.0, declared))], EXACT).p50_s
    assert done == pytest.approx(0, abs=0.1)


def test_trainings_not_yet_begun_count_in_full_and_certainty_grows() -> None:
    model, schedule = model_of(), schedule_of()
    spread = spread_from([])
    whole = job_seconds(schedule)
    half_way = [(model, schedule, observe(schedule, 1.0, declared)), (model, schedule, {})]
    left = remaining(half_way, spread)
    assert left.p50_s == pytest.approx(whole, rel=0.01)
    start = remaining([(model, schedule, {}), (model, schedule, {})], spread)
    assert 1 < left.p90_s / left.p50_s < start.p90_s / start.p50_s
    assert left.p90_s < left.p99_s


def test_nothing_to_do_takes_no_time() -> None:
    estimate = remaining([], EXACT)
    assert (estimate.p50_s, estimate.p90_s, estimate.p99_s) == (0, 0, 0)


def test_a_phase_of_little_time_says_little_of_the_others() -> None:
    """Resets took five times their price, twenty milliseconds in all: the rest is not believed slower."""
    model, schedule = model_of(), schedule_of()
    seen = {Phase.RESET: (0.02, 2), Phase.ENV_STEP: (1000 * worlds.PRICES[Phase.ENV_STEP], 1000)}
    without, with_ = (
        remaining([(model, schedule, o)], spread_from([])).p50_s
        for o in ({Phase.ENV_STEP: seen[Phase.ENV_STEP]}, seen)
    )
    assert with_ == pytest.approx(without, rel=0.02)


HOST = Spread(source="a record", log_sigma=0.05)
#: a training of some fifteen seconds, most of them in the loop
SHORT = worlds.config(**{**worlds.EVERYTHING, "evaluation": {"eval_freq": 12_000, "n_eval_episodes": 3}})
LOOP = (Phase.ENV_STEP, Phase.POLICY, Phase.UPDATE, Phase.ROLLOUT, Phase.RESET, Phase.LOG)


def short() -> tuple[CostModel, TrainSchedule]:
    prices = {phase: price / 10 for phase, price in worlds.PRICES.items()}
    return model_of(SHORT, prices=prices), schedule_of(SHORT)


def a_second_of(model: CostModel, schedule: TrainSchedule, factor: Callable[[Phase], float]) -> Observed:
    """What a calibrated second of the loop did, each phase at `factor(phase)` times its price."""
    prices = {phase: price.mean_s(0.0) for phase in LOOP if (price := model.get(phase)) is not None}
    whole = sum(schedule.get(phase).count * price for phase, price in prices.items())
    units = {phase: int(schedule.get(phase).count / whole) for phase in prices}
    return {p: (factor(p) * prices[p] * units[p], units[p]) for p in prices if units[p]}


def test_a_second_of_a_faster_machine_is_believed() -> None:
    """Faster by 8 % than when calibrated, and each phase off by some per cent: most of it is believed."""
    model, schedule = short()
    calm = a_second_of(model, schedule, lambda phase: 1.0)
    before = remaining([(model, schedule, {})], HOST).p50_s
    truth = 0.92 * (before - sum(seconds for seconds, _ in calm.values()))
    draw = random.Random(0)
    errors = []
    for _ in range(50):
        noise = {phase: draw.gauss(0.0, 0.02) for phase in LOOP}
        seen = {p: (0.92 * math.exp(noise[p]) * seconds, units) for p, (seconds, units) in calm.items()}
        errors.append(remaining([(model, schedule, seen)], HOST).p50_s / truth - 1)
    assert 0 < statistics.fmean(errors) < 0.03
    assert max(map(abs, errors)) < 0.06


def test_a_slow_unit_does_not_pull_the_rest_away() -> None:
    """As calibrated but for one update that took fifty times as long."""
    model, schedule = short()
    calm = a_second_of(model, schedule, lambda phase: 1.0)
    seconds, units = calm[Phase.UPDATE]
    slow = {**calm, Phase.UPDATE: (seconds * (1 + 50 / units), units)}
    left, undisturbed = (remaining([(model, schedule, seen)], HOST).p50_s for seen in (slow, calm))
    assert left == pytest.approx(undisturbed, rel=0.01)

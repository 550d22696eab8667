"""The cost model against theory: worlds whose prices are declared."""

import itertools
import random
import statistics
from typing import Any

import msgspec
import numpy as np
import pytest

from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.predict.costmodel import (
    STARTUP,
    Job,
    fit,
    missing_phases,
    models_for,
    seconds_per_step,
    startup_price,
    startup_seconds,
)
from arzbench.predict.spread import PastRun, spread_from
from arzbench.records import BEFORE_LEARNING, TrainSchedule
from arzbench.report.sheets import calibration_sheets
from arzbench.study import Checkpoints, Evaluation, TrainConfig
from tests import worlds
from tests.worlds import EXACT, FULL, model_of, schedule_of


def true_seconds(
    training: TrainConfig, schedule: TrainSchedule, prices: dict[Phase, float] = worlds.PRICES
) -> float:
    """The wall time by the declared prices: the formula, written again."""
    total = prices[Phase.IMPORT] + prices[Phase.TEARDOWN] + worlds.JIT["warm"] + worlds.FIRST_UPDATE_S
    for item in schedule.counts:
        sized = item.phase in worlds.SIZED
        total += item.count * (worlds.declared(item.phase, item.size) if sized else prices[item.phase])
    return total


@pytest.mark.parametrize("mode", ["off", "periodic", "every"])
@pytest.mark.parametrize("repetitions", [1, 2, 5])
def test_every_price_is_recovered(mode: str, repetitions: int) -> None:
    """Warm-ups, other logging modes, blocks of unequal length and several sizes do not disturb it."""
    model = model_of(worlds.config(logging={"mode": mode}), repetitions=repetitions)
    for phase, price in worlds.PRICES.items():
        found = model.get(phase)
        assert found.fixed_s == pytest.approx(price, rel=0.01), phase
        assert found.per_size_s == 0
        assert found.p95_s == pytest.approx(price, rel=0.01)
    for phase, (fixed, per_byte) in worlds.SIZED.items():
        found = model.get(phase)
        assert found.fixed_s == pytest.approx(fixed, rel=0.01)
        assert found.per_size_s == pytest.approx(per_byte, rel=0.01)
    first = model.get(Phase.FIRST)
    assert first.fixed_s == pytest.approx(worlds.FIRST_UPDATE_S, rel=0.01)


def test_a_phase_that_no_block_of_a_mode_met_keeps_its_price() -> None:
    """Resets are rare: the blocks of the other modes may hold none."""
    samples = worlds.samples(worlds.config(logging={"mode": "periodic"}))
    kept = tuple(p for p in samples.phases if p.phase is not Phase.RESET or p.variant == "periodic")
    price = fit(msgspec.structs.replace(samples, phases=kept), "off").get(Phase.RESET)
    assert price.fixed_s == pytest.approx(worlds.PRICES[Phase.RESET], rel=0.01)


def test_the_calibration_shows_each_phase_that_has_a_price() -> None:
    """A rare reset may have come before learning alone, under no logging mode."""
    record = worlds.calibration(worlds.study(FULL))
    (samples,) = record.workloads
    phases = tuple(
        msgspec.structs.replace(p, variant=BEFORE_LEARNING) if p.phase is Phase.RESET else p
        for p in samples.phases
    )
    samples = msgspec.structs.replace(samples, phases=phases)
    sheet = calibration_sheets(msgspec.structs.replace(record, workloads=(samples,)))[0]
    shown = {row[0].partition(" (")[0] for row in sheet.rows}
    assert "reset" in shown
    assert shown == {c.phase.value for c in fit(samples).coefficients}


def test_compiled_code_has_two_prices() -> None:
    model = model_of()
    for state, cold in (("cold", True), ("warm", False)):
        price = startup_price(model, Phase.JIT, cold=cold)
        assert price.fixed_s == pytest.approx(worlds.JIT[state])
    assert startup_seconds(model, cold=True) - startup_seconds(model) == pytest.approx(
        worlds.JIT["cold"] - worlds.JIT["warm"]
    )
    only_cold = model_of(repetitions=1)  # serves both
    assert startup_price(only_cold, Phase.JIT, cold=False).variant == "cold"


def test_prices_from_noisy_processes_are_close_and_know_it() -> None:
    model = model_of(spread=0.03, repetitions=8, seed=3)
    for phase in (Phase.ENV_STEP, Phase.UPDATE, Phase.EVAL_STEP):
        found = model.get(phase)
        assert found.fixed_s == pytest.approx(worlds.PRICES[phase], rel=0.06)
        assert 0.003 < found.relative_error < 0.1


def test_one_measurement_says_nothing_of_its_spread() -> None:
    found = model_of(repetitions=1).get(Phase.IMPORT)
    assert found.relative_error == 0.5


def test_seconds_per_step_counts_the_logging_mode_and_the_updates() -> None:
    samples = worlds.samples(FULL)
    plain = [worlds.PRICES[p] for p in worlds.LOGGED]
    stored = seconds_per_step(samples, "periodic")
    every = seconds_per_step(samples, "every")
    # all phases were measured equally often, and updates once a step
    units = [sum(s.count for s in samples.phases if s.phase is p) for p in (Phase.UPDATE, Phase.ENV_STEP)]
    update = worlds.PRICES[Phase.UPDATE] * units[0] / units[1]
    assert stored == pytest.approx(sum(plain) + update, rel=0.05)
    assert every == pytest.approx(50 * sum(plain) + update, rel=0.05)
    assert seconds_per_step(worlds.samples(FULL, leave_out=worlds.LOGGED), "off") is None


# ---------------------------------------------------------------- monotone


def seconds(training: TrainConfig, budget: int | None = None) -> list[float]:
    model = model_of(worlds.config(), spread=0.05, seed=1)
    job = Job([(model, schedule_of(training, budget=budget))], spread_from([]))
    return [job.quantile(q) for q in (0.5, 0.9, 0.99)]


def rising(values: list[list[float]]) -> bool:
    return all(a <= b for row, after in itertools.pairwise(values) for a, b in zip(row, after, strict=True))


def test_more_steps_never_take_less() -> None:
    """Also across the first update, the first checkpoint and the first evaluation."""
    training = worlds.config(**worlds.EVERYTHING, hyperparameters={"learning_starts": 200})
    steps = [4, 8, 100, 196, 200, 204, 208, 996, 1000, 1004, 2000, 24_000, 100_000]
    assert rising([seconds(training, budget=n) for n in steps])


@pytest.mark.parametrize(
    "changes",
    [
        [{"evaluation": Evaluation(eval_freq=f)} for f in (0, 24_000, 10_000, 5_000, 1_000, 100)],
        [{"evaluation": Evaluation(eval_freq=1000, n_eval_episodes=n)} for n in (1, 2, 9)],
        [{"checkpoint": Checkpoints(checkpoint_freq=f)} for f in (0, 5000, 1000, 100)],
    ],
    ids=["evaluations", "episodes", "checkpoints"],
)
def test_more_of_them_never_take_less(changes: list[dict[str, Any]]) -> None:
    assert rising([seconds(msgspec.structs.replace(FULL, **change)) for change in changes])


def test_a_session_more_costs_a_start_a_save_and_a_load() -> None:
    schedule = schedule_of()
    one, two, three = (Job([(model_of(), schedule)], EXACT, sessions=n).quantile(0.5) for n in (1, 2, 3))
    size = schedule.get(Phase.CHECKPOINT).size
    change = sum(fixed + per_byte * size for fixed, per_byte in worlds.SIZED.values())
    start = startup_seconds(model_of()) - worlds.PRICES[Phase.BUILD]
    assert two - one == pytest.approx(start + change, rel=0.01)
    assert three - two == pytest.approx(two - one, rel=0.001)


# ---------------------------------------------------------------- distribution


def test_quantiles_are_ordered_and_probability_is_their_inverse() -> None:
    job = Job([(model_of(spread=0.05), schedule_of())], spread_from([]))
    estimate = job.estimate(["a note"])
    assert estimate.notes == ("a note",)
    assert estimate.p50_s < estimate.p90_s < estimate.p99_s
    for q in (0.05, 0.5, 0.9, 0.95, 0.99):
        assert job.probability(job.quantile(q)) == pytest.approx(q, abs=0.001)
    assert job.quantile(0.9) == estimate.p90_s
    assert job.probability(0) == 0
    assert job.probability(1e12) == 1


def test_episodes_of_unknown_length_widen_the_estimate_up_to_the_limit() -> None:
    known = schedule_of(FULL, worlds.facts(10, 10))
    open_ = schedule_of(FULL, worlds.facts(10, 500))
    model = model_of()
    narrow, wide = Job([(model, known)], EXACT), Job([(model, open_)], EXACT)
    assert wide.quantile(0.001) >= narrow.quantile(0.5)
    extra = (open_.get(Phase.EVAL_STEP).high - open_.get(Phase.EVAL_STEP).count) * worlds.PRICES[
        Phase.EVAL_STEP
    ]
    assert wide.quantile(0.999) - narrow.quantile(0.5) == pytest.approx(extra, rel=0.1)


@pytest.mark.parametrize(
    "phase", [Phase.UPDATE, Phase.EVAL_STEP, Phase.CHECKPOINT, Phase.BASELINE, Phase.LOG]
)
def test_a_phase_without_samples_is_refused_by_name(phase: Phase) -> None:
    model = model_of(leave_out=[phase])
    schedule = schedule_of()
    assert missing_phases(model, schedule) == [phase]
    with pytest.raises(UsageError, match=f"no samples of: {phase}") as caught:
        Job([(model, schedule)], EXACT)
    assert "arzbench calibrate" in caught.value.hint


def test_a_phase_that_does_not_occur_needs_no_samples() -> None:
    quiet = worlds.config(logging={"mode": "off"}, hyperparameters={"learning_starts": 1_000_000})
    model = model_of(quiet, leave_out=[Phase.UPDATE, Phase.EVAL_STEP, Phase.BASELINE, Phase.LOG])
    assert missing_phases(model, schedule_of(quiet)) == []


def test_a_workload_that_was_not_measured_is_named() -> None:
    other = worlds.config(name="second", n_envs=4)
    models = {FULL.workload_digest(): model_of()}
    with pytest.raises(UsageError, match="does not cover: second"):
        models_for(worlds.study(FULL, other), models)
    assert models_for(worlds.study(FULL), models) == [models[FULL.workload_digest()]]


# ---------------------------------------------------------------- spread


@pytest.mark.parametrize("source", ["prior", "ratios"])
def test_nine_of_ten_worlds_stay_under_p90(source: str) -> None:
    """500 worlds of random prices and studies, each measured with noise, each run once."""
    rng = random.Random(20260101)
    scatter = spread_from([]).log_sigma if source == "prior" else 0.05
    under = {0.5: 0, 0.9: 0, 0.99: 0}
    worlds_drawn = 500
    for seed in range(worlds_drawn):
        prices = {phase: price * rng.lognormvariate(0, 1) for phase, price in worlds.PRICES.items()}
        training = worlds.config(
            **{
                **worlds.EVERYTHING,
                "evaluation": {"eval_freq": rng.choice([0, 500, 3000]), "n_eval_episodes": 2},
            },
            total_timesteps=rng.randrange(5_000, 200_000),
        )
        model = model_of(training, prices=prices, spread=0.03, repetitions=3, seed=seed)
        ratios = [] if source == "prior" else [rng.lognormvariate(0, scatter) for _ in range(30)]
        past = [PastRun(ratio, f"run {i}", f"run {i}") for i, ratio in enumerate(ratios)]
        schedule = schedule_of(training)
        actual = true_seconds(training, schedule, prices) * rng.lognormvariate(0, scatter)
        job = Job([(model, schedule)], spread_from(past))
        for q in under:
            under[q] += actual <= job.quantile(q)
    share = {q: n / worlds_drawn for q, n in under.items()}
    assert 0.44 <= share[0.5] <= 0.56, share
    assert 0.85 <= share[0.9] <= 0.95, share
    assert share[0.99] >= 0.97, share


def test_startup_phases_are_those_no_training_counts() -> None:
    counted = {item.phase for item in schedule_of().counts}
    assert not counted & set(STARTUP)
    assert counted | set(STARTUP) | {Phase.RESTORE} == set(Phase)


def test_means_not_medians() -> None:
    """Step times are heavy-tailed: the price is what a thousand of them cost, divided by a thousand."""
    samples = worlds.samples(FULL, repetitions=2)
    heavy = tuple([0.001] * 95 + [0.1] * 5)
    phases = tuple(
        msgspec.structs.replace(s, seconds=heavy, units=(1,) * 100)
        if s.phase is Phase.ENV_STEP and not s.warmup
        else s
        for s in samples.phases
    )
    found = fit(msgspec.structs.replace(samples, phases=phases)).get(Phase.ENV_STEP)
    assert found.fixed_s == pytest.approx(statistics.fmean(heavy))
    assert found.p95_s > np.median(heavy)


@pytest.mark.parametrize("freq", [0, 1, 7, 1000, 5000])
@pytest.mark.parametrize("buffer_size", [1, 500, 3000, 50_000])
@pytest.mark.parametrize("n_envs", [1, 4])
def test_a_checkpoints_size_is_the_mean_over_its_saves(freq: int, buffer_size: int, n_envs: int) -> None:
    """Summed save by save: one each `freq` calls before the end, one at the end."""
    training = worlds.config(
        total_timesteps=12_000,
        n_envs=n_envs,
        checkpoint={"checkpoint_freq": freq},
        hyperparameters={"buffer_size": buffer_size},
    )
    found = schedule_of(training).get(Phase.CHECKPOINT)
    calls = [*range(freq, 12_000 // n_envs, freq), 12_000 // n_envs] if freq else [12_000 // n_envs]
    base, per_row = worlds.STATE_BYTES
    sizes = [base + per_row * min(call * n_envs, buffer_size) for call in calls]
    assert found.count == len(sizes)
    assert found.size == pytest.approx(statistics.fmean(sizes))


def test_updates_under_other_messages_are_another_price() -> None:
    """Kept apart, as off-policy algorithms are measured; where none were, any will do."""
    plain = worlds.samples(FULL)
    main = FULL.logging.mode
    own = [msgspec.structs.replace(i, variant=main) for i in plain.phases if i.phase is Phase.UPDATE]
    others = [
        msgspec.structs.replace(i, variant="every", seconds=tuple(3 * s for s in i.seconds)) for i in own
    ]
    rest = [i for i in plain.phases if i.phase is not Phase.UPDATE]
    both = msgspec.structs.replace(plain, phases=(*rest, *own, *others))
    price = fit(both).get(Phase.UPDATE)
    assert price.fixed_s == pytest.approx(worlds.PRICES[Phase.UPDATE])
    only = fit(msgspec.structs.replace(plain, phases=(*rest, *others))).get(Phase.UPDATE)
    assert only.fixed_s == pytest.approx(3 * worlds.PRICES[Phase.UPDATE])

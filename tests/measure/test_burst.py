"""One measured repetition on a virtual clock: what it finds is what was declared."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import Phase, StopReason
from arzbench.measure.burst import (
    MAX_PROBE_BYTES,
    BurstResult,
    measure_once,
    short_training,
)
from arzbench.measure.phase_times import PhaseTotals
from arzbench.predict.costmodel import Job, missing_phases, startup_seconds
from arzbench.predict.schedule import count_training
from arzbench.records import BEFORE_LEARNING, BESIDE, NOT_BESIDE, BesidePrice, PhaseSamples
from arzbench.study import MODES, TrainConfig
from arzbench.workload import StopTraining
from tests import worlds
from tests.measure.doubles import (
    BASE_BYTES,
    COSTS,
    KINDS,
    OPTIMIZER_BYTES,
    ROW_BYTES,
    Free,
    Store,
    Workload,
    burst_job,
    by_algo,
    model_of,
)
from tests.worlds import EXACT

FULL = worlds.config(**{**worlds.EVERYTHING, "evaluation": {"eval_freq": 500, "n_eval_episodes": 2}})


def measured(
    training: TrainConfig,
    say: Callable[[str, float], None] = lambda what, share: None,
    workload: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[BurstResult, Workload, Store]:
    clock = VirtualClock()
    how = dict(workload or {})
    work, store = Workload(clock, {**COSTS, **how.pop("costs", {})}, **how), Store(clock)
    return measure_once(burst_job(training, **changes), work, store, clock, say), work, store


def of(result: BurstResult, phase: Phase) -> list[PhaseSamples]:
    return [s for s in result.phases if s.phase is phase]


@pytest.mark.parametrize("training", KINDS, ids=by_algo)
def test_a_short_measurement_predicts_the_whole_training(training: TrainConfig) -> None:
    """Hundreds of steps are measured; tens of thousands with evaluations and saves take what was said."""
    result, _, _ = measured(training)
    model = model_of(training, result)
    clock = VirtualClock()
    work, store = Workload(clock, COSTS), Store(clock)
    work.load()
    work.first_step(training)
    whole = work.create(training, PhaseTotals())
    whole.run(Free(store, training))
    store.save(whole.capture())
    schedule = count_training(training, result.facts, state_bytes=result.state_bytes)
    assert missing_phases(model, schedule) == []
    predicted = Job([(model, schedule)], EXACT).quantile(0.5)
    assert store.saves == schedule.checkpoints
    assert predicted == pytest.approx(clock.now(), rel=0.01)
    assert startup_seconds(model) == pytest.approx(5.25, rel=0.01)


# ---------------------------------------------------------------- the schedule brought forward


@pytest.mark.parametrize("training", KINDS, ids=by_algo)
@pytest.mark.parametrize("steps", [1, 50, 1000])
def test_whole_cycles_after_learning_has_started(training: TrainConfig, steps: int) -> None:
    short, loop = short_training(burst_job(training, steps=steps))
    assert short.total_timesteps % loop.rollout_steps == 0
    assert short.total_timesteps >= 2 * loop.rollout_steps
    start = loop.learning_starts
    assert short.total_timesteps - start >= steps
    assert start < short.total_timesteps
    result, _, _ = measured(training, steps=steps)
    assert sum(s.count for s in of(result, Phase.UPDATE)) >= 1


def test_what_a_unit_costs_stays_as_it_is() -> None:
    short, loop = short_training(burst_job(FULL))
    changed = {"total_timesteps", "evaluation", "checkpoint"}
    for name in FULL.__struct_fields__:
        if name not in changed:
            assert getattr(short, name) == getattr(FULL, name), name
    assert loop.exploration_initial_eps == loop.exploration_final_eps
    unchanged = {"n_envs", "frequency", "unit", "gradient_steps", "buffer_size"}
    assert all(getattr(loop, name) == getattr(FULL.loop, name) for name in unchanged)


def test_a_shortened_rollout_is_of_on_policy_algorithms_only() -> None:
    ppo = worlds.config(algo="ppo")
    short, loop = short_training(burst_job(ppo, rollout=64, steps=100))
    assert (loop.frequency, short.total_timesteps) == (64, 128)
    assert short_training(burst_job(FULL, rollout=64)) == short_training(burst_job(FULL))


def test_a_study_that_learns_at_once_is_not_delayed() -> None:
    _, loop = short_training(burst_job(worlds.config(hyperparameters={"learning_starts": 0})))
    assert loop.learning_starts == 0


# ---------------------------------------------------------------- what is measured on the way


@pytest.mark.parametrize("mode", MODES)
def test_messages_are_measured_off_periodic_and_every_call_in_turns(mode: str) -> None:
    result, work, _ = measured(worlds.config(logging={"mode": mode}), steps=2000)
    counted = dict.fromkeys((*MODES, BEFORE_LEARNING), 0)
    for item in of(result, Phase.ENV_STEP):
        counted[item.variant] += item.count
    # what a step costs between updates is another price
    assert 0 < counted.pop(BEFORE_LEARNING) <= work.made[0].config.learning_starts
    assert min(counted.values()) >= 40
    assert counted[mode] > sum(counted.values()) / 2
    switched = [m for _, m in work.made[0].modes]
    others = [m for m in MODES if m != mode]
    assert switched == [others[0], mode, others[1], mode] * 2


def test_evaluation_is_measured_under_the_studys_own_messages() -> None:
    _, work, _ = measured(worlds.config(algo="a2c", logging={"mode": "off"}), steps=40)
    assert work.made[0].modes
    assert work.made[0].modes[-1][1] == "off"


QUIET = worlds.config(
    logging={"mode": "off"}, evaluation={"eval_freq": 500, "n_eval_episodes": 2, "final_episodes": 1}
)
NEIGHBOUR = BesidePrice(start_s=0.1, slow_down=1.5, error=0.0, n=1)


def test_what_is_paid_beside_an_evaluation_is_kept_apart() -> None:
    result, _, _ = measured(QUIET, workload={"beside": NEIGHBOUR}, steps=2000, beside=1)
    paid = [s for s in of(result, Phase.EVAL_STEP) if s.variant == BESIDE]
    assert [s.seconds for s in paid] == [(0.1,), (0.1,)]  # the first of a process is a warm-up
    assert [s.mean_s for s in of(result, Phase.EVAL_STEP) if s.variant != BESIDE] == [
        pytest.approx(COSTS[Phase.EVAL_STEP])
    ] * 2
    for phase in (Phase.ENV_STEP, Phase.UPDATE, Phase.ROLLOUT):
        slow = [s for s in of(result, phase) if s.variant == BESIDE]
        alone = [s for s in of(result, phase) if s.variant == "off"]
        assert sum(s.count for s in slow) > 10
        assert [s.mean_s / COSTS[phase] for s in slow] == [pytest.approx(1.5, rel=0.02)] * len(slow)
        assert [s.mean_s / COSTS[phase] for s in alone] == [pytest.approx(1.0, rel=0.02)] * len(alone)
    # messages of other modes wait until it is over, and are measured all the same
    assert {s.variant for s in of(result, Phase.ENV_STEP)} == {*MODES, BESIDE, BEFORE_LEARNING}
    assert result.notes == ()


def test_a_process_that_plays_none_beside_the_training_says_why() -> None:
    result, _, _ = measured(QUIET, steps=2000, beside=1)
    assert [note.partition(":")[0] for note in result.notes] == [NOT_BESIDE]
    assert all(s.variant != BESIDE for s in result.phases)
    short = {"costs": {Phase.EVAL_STEP: 1e-4}}
    assert measured(QUIET, workload=short, steps=2000, beside=1)[0].notes == ()


def test_slow_evaluations_are_cut_after_the_first() -> None:
    result, _, _ = measured(FULL, eval_episodes=50, max_eval_s=1.2)
    # an episode takes 0.53 s, its messages included: the fourth would begin after 1.59 s
    assert sum(s.count for s in of(result, Phase.EVAL_STEP)) == 300
    one, _, _ = measured(FULL, eval_episodes=50, max_eval_s=0.0)
    assert sum(s.count for s in of(one, Phase.EVAL_STEP)) == 100


def test_another_reason_to_stop_is_not_swallowed() -> None:
    def fail(step: int) -> None:
        raise StopTraining(StopReason.SIGNAL)

    with pytest.raises(StopTraining):
        measured(FULL, workload={"calls": fail})


def test_one_baseline_episode_is_enough_and_none_is_none() -> None:
    many = worlds.config(**{**worlds.EVERYTHING, "baseline": {"episodes": 9}})
    assert sum(s.count for s in of(measured(many)[0], Phase.BASELINE)) == 100
    assert of(measured(worlds.config())[0], Phase.BASELINE) == []


@pytest.mark.parametrize(("cold", "variant"), [(True, "cold"), (False, "warm")])
def test_compilation_is_marked_by_the_state_of_the_cache(cold: bool, variant: str) -> None:
    (found,) = of(measured(FULL, cold=cold)[0], Phase.JIT)
    assert (found.variant, found.seconds) == (variant, (3.0,))


def test_imports_count_from_the_moment_the_process_was_asked_for() -> None:
    (found,) = of(measured(FULL, spawned=-1.5)[0], Phase.IMPORT)
    assert found.seconds == (3.5,)


def test_checkpoints_are_saved_empty_and_as_full_as_the_study_makes_them() -> None:
    result, _, store = measured(FULL)
    assert result.state_bytes == (BASE_BYTES + OPTIMIZER_BYTES, ROW_BYTES)
    sizes = sorted(s.size for s in of(result, Phase.CHECKPOINT))
    assert sizes[0] == BASE_BYTES
    assert sizes[-1] == BASE_BYTES + OPTIMIZER_BYTES + ROW_BYTES * 24_000
    assert store.saves == sum(s.count for s in of(result, Phase.CHECKPOINT))
    assert result.notes == ()


@pytest.mark.parametrize("learning_starts", [0, 50_000])
def test_a_buffer_too_large_to_try_is_extrapolated_and_said(learning_starts: int) -> None:
    hyper = {"buffer_size": 10_000_000, "learning_starts": learning_starts}
    vast = worlds.config(total_timesteps=10_000_000, hyperparameters=hyper)
    result, _, _ = measured(vast)
    assert max(s.size for s in of(result, Phase.CHECKPOINT)) <= BASE_BYTES + OPTIMIZER_BYTES + MAX_PROBE_BYTES
    assert len(result.notes) == 1
    assert "extrapolated" in result.notes[0]
    assert result.state_bytes == (BASE_BYTES + OPTIMIZER_BYTES, ROW_BYTES)


@pytest.mark.parametrize(
    ("training", "per_row"),
    [
        (worlds.config(total_timesteps=100), ROW_BYTES),  # shorter than its measurement: one size
        (worlds.config(algo="ppo", hyperparameters={"n_steps": 64}), 0),  # no buffer
    ],
    ids=["short", "no buffer"],
)
def test_a_state_of_one_size(training: TrainConfig, per_row: int) -> None:
    result, _, _ = measured(training, steps=400)
    assert result.state_bytes == (BASE_BYTES + OPTIMIZER_BYTES, per_row)


def test_progress_rises_and_says_what_is_measured() -> None:
    told: list[tuple[str, float]] = []
    measured(FULL, say=lambda *line: told.append(line), beside=1)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    words = list(dict.fromkeys(what for what, _ in told))
    assert words[:2] == ["imports", "env made, first step"]
    assert {"training", "evaluation", "checkpoints", "restore"} <= set(words)


def test_the_end_is_marked_for_who_waits() -> None:
    clock = VirtualClock()
    result = measure_once(
        burst_job(FULL), Workload(clock, COSTS), Store(clock), clock, lambda what, share: None
    )
    assert result.done == clock.now()
    assert result.versions["synthetic"] == "1"
    assert msgspec.json.decode(msgspec.json.encode(result), type=BurstResult) == result


def test_updates_between_messages_are_no_price_of_those_without() -> None:
    result, _, _ = measured(worlds.config(logging={"mode": "off"}), steps=2000)
    variants = {item.variant for item in of(result, Phase.UPDATE)}
    assert variants == set(MODES)
    on_policy, _, _ = measured(worlds.config(algo="a2c", logging={"mode": "off"}), steps=400)
    assert {item.variant for item in of(on_policy, Phase.UPDATE)} == {""}


def test_a_short_training_is_mostly_under_the_studys_own_messages() -> None:
    result, _, _ = measured(worlds.config(logging={"mode": "off"}), steps=240)
    counted = {mode: sum(i.count for i in of(result, Phase.ENV_STEP) if i.variant == mode) for mode in MODES}
    assert min(counted.values()) > 0
    assert counted["off"] > 0.8 * sum(counted.values())

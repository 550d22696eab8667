"""What a validation plans to run."""

import pytest

from arzbench.errors import UsageError
from arzbench.predict.costmodel import Job, fit
from arzbench.predict.schedule import count_training
from arzbench.predict.spread import spread_from
from arzbench.study import ALGORITHMS
from arzbench.validate.design import (
    LEAST_S,
    MOST_S,
    PAIRS,
    choose_pairs,
    expected_s,
    make_design,
    pair_target_s,
    sized,
    study_of,
)
from tests import worlds

MINUTE = 60.0


def test_the_default_has_every_algorithm_of_the_library_and_forty_runs_of_eight_pairs() -> None:
    own = {name for name, kind in ALGORITHMS.items() if kind.LIBRARY.startswith("stable_baselines3:")}
    assert {p.algo for p in PAIRS} == own
    assert {p.env.rpartition("/")[0] for p in PAIRS} == {"", "arzbench"}
    design = make_design(PAIRS, busy_share=0.5, seed=0, quick=False, planned_s=None)
    assert len(PAIRS) >= 8
    assert sum(map(len, design.rounds())) >= 40


@pytest.mark.parametrize("minutes", [35, 40, 60, 120, 600])
def test_what_is_planned_fits_the_time_given(minutes: int) -> None:
    design = make_design(PAIRS, busy_share=0.5, seed=0, quick=False, planned_s=minutes * MINUTE)
    assert expected_s(design) <= minutes * MINUTE
    assert expected_s(design) > 0.8 * minutes * MINUTE
    for pair in design.pairs:
        assert 0.9 * LEAST_S <= pair_target_s(design, pair) <= 1.2 * MOST_S
    if minutes >= 40:
        assert sum(map(len, design.rounds())) >= 48


def test_too_short_a_time_is_told_with_one_that_does() -> None:
    with pytest.raises(UsageError, match="too short for 8 pair") as caught:
        make_design(PAIRS, busy_share=0.5, seed=0, quick=False, planned_s=MINUTE)
    minutes = int(caught.value.hint.split("--for ")[1].split("m")[0])
    make_design(PAIRS, busy_share=0.5, seed=0, quick=False, planned_s=(minutes + 1) * MINUTE)


def test_pairs_are_interleaved_and_conditions_share_the_runs() -> None:
    design = make_design(PAIRS[:2], busy_share=0.5, seed=0, quick=False, planned_s=None)
    first, *_, last = design.rounds()
    assert [(p.name, b) for p, b, _ in first] == [
        ("cartpole-ppo", False), ("cartpole-ppo", True), ("pendulum-sac", False), ("pendulum-sac", True),
    ]  # fmt: skip
    assert {n for _, _, n in last} == {2}
    alone = make_design(PAIRS[:2], busy_share=0.0, seed=0, quick=False, planned_s=None)
    assert not any(b for turn in alone.rounds() for _, b, _ in turn)
    uneven = make_design(PAIRS[:1], busy_share=0.3, seed=0, quick=False, planned_s=None)
    assert [len(turn) for turn in uneven.rounds()] == [2, 2, 1, 1]


def test_pairs_are_chosen_by_name() -> None:
    assert [p.name for p in choose_pairs("speed-a2c, pendulum-sac,speed-a2c", quick=False)] == [
        "speed-a2c",
        "pendulum-sac",
    ]
    assert 1 < len(choose_pairs(None, quick=True)) < len(choose_pairs(None, quick=False))
    for wrong, told in (("cartpole-pp", "cartpole-ppo"), (",", "names none")):
        with pytest.raises(UsageError) as caught:
            choose_pairs(wrong, quick=False)
        assert told in caught.value.message + caught.value.hint


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: p.name)
def test_a_training_is_sized_to_its_length_with_evaluations_and_checkpoints(pair: object) -> None:
    unsized = study_of(pair, 20_000, 7)  # type: ignore[arg-type]
    calibration = worlds.calibration(unsized)
    study = sized(pair, calibration, spread_from([]), 7, 60.0)  # type: ignore[arg-type]
    (config,) = study.trainings
    model = fit(calibration.workloads[0])
    schedule = count_training(config, model.facts, state_bytes=model.state_bytes)
    rollouts = config.total_timesteps / config.rollout_steps
    assert rollouts == int(rollouts)
    seconds = Job([(model, schedule)], spread_from([])).quantile(0.5)
    assert 60.0 <= seconds <= 60.0 * (1.01 + 1 / rollouts)
    assert config.workload_digest() == unsized.trainings[0].workload_digest()
    assert config.seed == 7
    assert schedule.evaluations >= 5 or rollouts < 12
    assert schedule.checkpoints >= 2

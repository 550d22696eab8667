"""The search in worlds whose true times are known: it finds the fastest, and claims nothing that is noise."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from arzbench.measure.tune import (
    FINALISTS,
    Candidate,
    Noise,
    Trial,
    decide,
    first_candidates,
    search,
    wider_candidates,
)
from arzbench.study import Study
from tests import worlds

QUIET: dict[str, Any] = {"logging": {"mode": "off"}}
PPO = worlds.study(worlds.config(algo="ppo", hyperparameters={"n_steps": 64}, **QUIET))
REPETITIONS = 4
WORLDS = 300


def candidates(count: int) -> list[Candidate]:
    """As written, then `count` that learn something else."""
    return [
        Candidate(study=PPO),
        *(Candidate(changes=(f"n_envs={n}",), study=PPO) for n in range(2, count + 2)),
    ]


def with_threads(found: Sequence[Candidate]) -> list[Candidate]:
    return [Candidate(changes=(*one.changes, "torch_threads=2"), study=PPO) for one in found]


def found_in(
    true_s: Callable[[str], float],
    *,
    noise: float = 0.0,
    seed: int = 0,
    first: Sequence[Candidate] | None = None,
    widen: Callable[[Sequence[Candidate]], Sequence[Candidate]] = with_threads,
    fails: Sequence[str] = (),
    most: int = 10_000,
) -> tuple[list[Trial], list[tuple[str, int]]]:
    """Trials of a world where `true_s` of a title is what the study takes; titles and rounds, as measured."""
    rng = random.Random(seed)
    log: list[tuple[str, int]] = []

    def measure(trial: Trial, number: int) -> bool:
        if len(log) == most:
            return False
        log.append((trial.candidate.title, number))
        trial.processes += 1
        if trial.candidate.title in fails:
            trial.failed = "it refuses"
            return True
        trial.each_s = [*trial.each_s, true_s(trial.candidate.title) * rng.lognormvariate(0, noise)]
        trial.p50_s = float(np.exp(np.log(trial.each_s).mean()))
        return True

    trials = [Trial(one) for one in first or candidates(7)]
    search(trials, widen, measure, REPETITIONS)
    return trials, log


def chosen(trials: Sequence[Trial], **how: Any) -> str:
    answer = decide(trials, Noise.of(trials), **how).chosen
    return "" if answer is None else answer.candidate.title


SPREAD = {"as written": 300.0, **{f"n_envs {n}": 100.0 * 1.2 ** ((n - 5) % 7) for n in range(2, 9)}}


def spread(title: str) -> float:
    """The fastest is n_envs 5, the next takes 20 % more; threads do harm."""
    envs = title.partition(", torch")[0].partition("torch_")[0] or "as written"
    return SPREAD[envs] * (1.3 if "torch_threads" in title else 1.0)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_the_fastest_is_found_where_processes_differ_by_chance(noise: float) -> None:
    found = [chosen(found_in(spread, noise=noise, seed=seed)[0]) for seed in range(WORLDS)]
    assert found.count("n_envs 5") >= 0.95 * WORLDS


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_nothing_is_recommended_where_all_are_equal(noise: float) -> None:
    found = [chosen(found_in(lambda title: 100.0, noise=noise, seed=seed)[0]) for seed in range(WORLDS)]
    assert found.count("") >= 0.95 * WORLDS


def test_a_gain_smaller_than_the_noise_is_not_recommended() -> None:
    def hardly(title: str) -> float:
        return 98.0 if title == "n_envs 4" else 100.0

    found = [chosen(found_in(hardly, noise=0.05, seed=seed)[0]) for seed in range(WORLDS)]
    assert found.count("") >= 0.95 * WORLDS


def test_two_that_are_equally_fast_are_called_equal() -> None:
    def twins(title: str) -> float:
        return {"n_envs 3": 60.0, "n_envs 4": 60.0}.get(title, 100.0)

    same = 0
    for seed in range(WORLDS):
        trials, _ = found_in(twins, noise=0.03, seed=seed)
        answer = decide(trials, Noise.of(trials))
        assert answer.chosen is not None
        titles = {answer.chosen.candidate.title, *(t.candidate.title for t in answer.equal)}
        same += titles == {"n_envs 3", "n_envs 4"}
    assert same >= 0.95 * WORLDS


def test_of_equally_fast_ones_the_one_that_changes_the_least_is_taken() -> None:
    def threads_do_nothing(title: str) -> float:
        return 300.0 if title in ("as written", "torch_threads 2") else 100.0

    trials, _ = found_in(threads_do_nothing, first=candidates(1))
    answer = decide(trials, Noise.of(trials))
    assert chosen(trials) == "n_envs 2"
    assert [t.candidate.title for t in answer.equal] == ["n_envs 2, torch_threads 2"]


def test_the_fastest_that_learns_the_same_is_named_apart() -> None:
    times = {"as written": 300.0, "torch_threads 2": 200.0}
    trials, _ = found_in(lambda title: times.get(title, 100.0), first=candidates(3))
    assert chosen(trials, same_training=True) == "torch_threads 2"
    assert chosen(trials).startswith("n_envs")
    assert {t.processes for t in trials if t.candidate.title in times} == {REPETITIONS}


def test_the_better_ones_are_measured_more_and_in_turns() -> None:
    trials, log = found_in(spread)
    counts = {t.candidate.title: t.processes for t in trials}
    best = ("n_envs 5", "n_envs 6", "n_envs 5, torch_threads 2")
    assert [counts[title] for title in best] == [REPETITIONS] * FINALISTS
    assert counts["n_envs 7"] == 2
    assert [counts[f"n_envs {n}"] for n in (2, 3, 4)] == [1] * 3
    assert counts["as written"] == REPETITIONS
    assert len(log) == sum(counts.values()) < len(trials) * REPETITIONS * 0.7
    last = [title for title, number in log if number == 2]
    assert last == ["as written", *best] * 2


def test_what_the_study_as_written_beats_is_not_measured_again() -> None:
    trials, log = found_in(lambda title: 100.0 if title == "as written" else 200.0, noise=0.02)
    assert {t.candidate.title: t.processes for t in trials} == {
        "as written": REPETITIONS,
        **{f"n_envs {n}": 1 for n in range(2, 9)},
        "torch_threads 2": 2,
    }
    assert [title for title, number in log if number == 2] == ["as written"] * 2


def test_one_that_fails_is_left_and_the_rest_goes_on() -> None:
    trials, log = found_in(spread, fails=["n_envs 5", "n_envs 6, torch_threads 2"])
    assert chosen(trials) == "n_envs 6"
    assert [title for title, _ in log].count("n_envs 5") == 1
    assert {t.candidate.title for t in trials if t.failed} == {"n_envs 5", "n_envs 6, torch_threads 2"}


@pytest.mark.parametrize("most", [1, 2, 3, 9, 14, 20])
def test_what_was_measured_when_time_is_up_is_judged(most: int) -> None:
    trials, log = found_in(spread, noise=0.02, most=most)
    assert len(log) == most
    assert [title for title, _ in log[:2]] == ["as written"] * min(2, most)
    assert chosen(trials) in ("", "n_envs 5", "n_envs 6", "n_envs 7")


def test_nothing_is_recommended_that_one_process_measured() -> None:
    own, other = candidates(1)
    trials = [Trial(own, p50_s=9.0, each_s=[9.0], processes=1), Trial(other, 1.0, [1.0], 1)]
    noise = Noise.of(trials)
    assert (noise.sigma, noise.faster(trials[1], trials[0])) == (None, True)
    assert chosen(trials) == ""
    trials[0].each_s = ()
    assert noise.half_width(*trials) == np.inf


# ---------------------------------------------------------------- candidates


def titles(study: Study, cores: int = 2) -> list[str]:
    return [one.title for one in first_candidates(study, cores)]


def changes(study: Study, cores: int = 2) -> Mapping[str, tuple[str, ...]]:
    return {one.title: one.changes for one in first_candidates(study, cores)}


def test_numbers_of_envs_are_tried_in_one_process_and_in_several_of_a_few() -> None:
    assert set(titles(PPO)) == {
        "as written", "n_envs 2", "n_envs 4", "n_envs 8", "n_envs 16",
        "n_envs 2, vec_env subproc", "n_envs 4, vec_env subproc",
    }  # fmt: skip
    assert "n_envs 8, vec_env subproc" in titles(PPO, cores=4)
    assert titles(PPO)[0] == "as written"


def test_envs_that_log_stay_in_one_process() -> None:
    study = worlds.study(worlds.config(algo="ppo", logging={"mode": "every"}, hyperparameters={"n_steps": 4}))
    assert not [title for title in titles(study) if "subproc" in title]


def test_the_studys_own_number_is_tried_in_the_other_kind() -> None:
    own = worlds.config(algo="a2c", n_envs=3, vec_env="subproc", **QUIET)
    assert "vec_env dummy" in titles(worlds.study(own))
    assert "n_envs 8, vec_env dummy" in titles(worlds.study(own))
    assert "n_envs 8" not in titles(worlds.study(own))  # eight processes on two cores
    assert "n_envs 4" in titles(worlds.study(own))


@pytest.mark.parametrize(
    "table",
    [
        {"algo": "td3", "hyperparameters": {"train_freq": [1, "episode"]}},
        {"algo": "ars"},
        {"algo": "ppo", "hyperparameters": {"n_steps": 2048}, "total_timesteps": 2048},
    ],
    ids=["episodes", "ars", "a rollout longer than the training"],
)
def test_what_the_algorithm_forbids_is_no_candidate(table: dict[str, Any]) -> None:
    assert titles(worlds.study(worlds.config(**QUIET, **table))) == ["as written"]


def test_evaluations_and_saves_come_after_as_many_steps() -> None:
    schedules = {"evaluation": {"eval_freq": 1000}, "checkpoint": {"checkpoint_freq": 500}}
    one = worlds.config(**QUIET, **schedules)
    two = worlds.config(**QUIET, **schedules, name="second")
    adapted = ("evaluation.eval_freq=250", "checkpoint.checkpoint_freq=125")
    assert changes(worlds.study(one, two))["n_envs 4"] == ("n_envs=4", *adapted)
    other = worlds.config(**QUIET, evaluation={"eval_freq": 10}, name="second")
    assert changes(worlds.study(one, other))["n_envs 4"] == ("n_envs=4",)


def test_what_a_study_switched_off_is_tried_on() -> None:
    off = worlds.config(**QUIET, fast=False, evaluation={"eval_freq": 10, "concurrent": False}, n_envs=2)
    assert {"fast true", "evaluation.concurrent true"} <= set(titles(worlds.study(off)))
    on = worlds.config(**QUIET, evaluation={"eval_freq": 10})
    assert not [t for t in titles(worlds.study(on)) if "fast" in t or "concurrent" in t]


def test_threads_and_devices_are_tried_on_the_best() -> None:
    more = Candidate(changes=("n_envs=4",), study=PPO)
    found = wider_candidates(PPO, [Candidate(study=PPO), more], 6, ("cuda", "cpu"))
    assert [one.title for one in found] == [
        "torch_threads 2", "torch_threads 4", "device cuda",
        "n_envs 4, torch_threads 2", "n_envs 4, torch_threads 4", "n_envs 4, device cuda",
    ]  # fmt: skip
    assert [one.same_training for one in found] == [True, True, False, False, False, False]
    assert wider_candidates(PPO, [Candidate(study=PPO)], 1, ()) == []

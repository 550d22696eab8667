"""Worlds whose costs are declared, on a virtual clock: prices are recovered, budgets end in time.

Calibration, planner and run are the real ones; only the training and the time are not.
"""

import math
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import Phase, StopReason
from arzbench.measure.burst import measure_once
from arzbench.predict.costmodel import models_for
from arzbench.predict.plan import Planner
from arzbench.predict.spread import spread_from
from arzbench.records import BesidePrice, CostModel
from arzbench.run import control
from arzbench.run.job import RunOutcome
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import A2C, Checkpoints, Evaluation, Logging, Study, TrainConfig
from tests.measure import doubles
from tests.run.jobs import dqn, ppo, run

RUNS = 500
SEED = 20_260_301
EPISODE = 20


def calibrated(
    config: TrainConfig, workload: SyntheticWorkload, store: Any, clock: VirtualClock, repetitions: int = 2
) -> CostModel:
    """The prices that short real measurements find."""
    results = []
    for repetition in range(repetitions):
        job = doubles.burst_job(
            config,
            repetition=repetition,
            cold=repetition == 0,
            spawned=clock.now(),
            steps=100,
            eval_episodes=1,
            beside=int(workload.beside is not None),
        )
        results.append(measure_once(job, workload, store, clock, lambda what, share: None))
    return doubles.model_of(config, *results)


# ---------------------------------------------------------------- recovery


@pytest.mark.parametrize("kind", doubles.KINDS, ids=doubles.by_algo)
@pytest.mark.parametrize("seed", range(4))
def test_every_declared_cost_is_found_within_one_percent(kind: TrainConfig, seed: int) -> None:
    """Prices over six orders of magnitude."""
    dice = np.random.default_rng([SEED, seed])
    costs = {phase: float(10 ** dice.uniform(-4, 2)) for phase in doubles.COSTS}
    config = msgspec.structs.replace(kind, total_timesteps=3000, logging=Logging(mode="every"))
    clock = VirtualClock()
    model = calibrated(config, doubles.Workload(clock, costs), doubles.Store(clock), clock)
    for phase, cost in costs.items():
        price = model.get(phase)
        # a resumed session makes its envs and model anew, and then loads
        declared = cost + costs[Phase.BUILD] if phase is Phase.RESTORE else cost
        assert price.fixed_s == pytest.approx(declared, rel=0.01), phase
    saved = model.get(Phase.CHECKPOINT)
    for size in (doubles.BASE_BYTES, 1e6, 1e7):
        declared = doubles.SAVE_S + doubles.SAVE_PER_BYTE * size
        assert saved.mean_s(size) == pytest.approx(declared, rel=0.01)


# ---------------------------------------------------------------- budgets


def random_study(dice: np.random.Generator) -> Study:
    """One or two trainings, longer than any quota here allows."""
    common: dict[str, Any] = {
        "total_timesteps": 50_000,
        "evaluation": Evaluation(
            eval_freq=int(dice.choice([0, 50, 200])), n_eval_episodes=int(dice.integers(1, 4))
        ),
        "checkpoint": Checkpoints(checkpoint_freq=int(dice.choice([0, 200]))),
    }
    kinds = [
        dqn(**common, train_freq=int(dice.choice([1, 4])), gradient_steps=int(dice.choice([-1, 1]))),
        ppo(**common, n_steps=int(dice.choice([4, 16])), n_epochs=int(dice.integers(1, 6))),
        A2C(name="a2c", env="Any-v0", n_envs=2, **common),
    ]
    picked = dice.choice(len(kinds), size=int(dice.integers(1, 3)), replace=False)
    return Study(name="random", trainings=tuple(kinds[i] for i in picked))


def random_costs(dice: np.random.Generator, step_s: float) -> dict[Phase, float]:
    """About `step_s` an env step, everything else in some proportion to it."""
    per_step = (Phase.POLICY, Phase.UPDATE, Phase.ROLLOUT, Phase.LOG)
    costs = {phase: float(step_s * 10 ** dice.uniform(-3, -0.5)) for phase in per_step}
    alike = (Phase.ENV_STEP, Phase.EVAL_STEP, Phase.BASELINE, Phase.RESET)
    costs |= {phase: float(step_s * dice.uniform(0.5, 1.0)) for phase in alike}
    once = (Phase.IMPORT, Phase.JIT, Phase.BUILD, Phase.RESTORE)
    return costs | {phase: float(step_s * dice.uniform(0.5, 5)) for phase in once}


def carried_out(number: int, folder: Path, confidence: float) -> tuple[RunOutcome, float]:
    """A random study, calibrated, planned for a random quota, run as fast as its machine happens to be."""
    dice = np.random.default_rng([SEED, number])
    study = random_study(dice)
    quota_s = float(10 ** dice.uniform(3.3, 5))  # half an hour to a day
    costs = random_costs(dice, quota_s / dice.uniform(200, 600))
    save_s = float(costs[Phase.ENV_STEP] * dice.uniform(0.1, 1))
    clock = VirtualClock()
    slow_down, start_s = dice.uniform(1, 1.5), costs[Phase.ENV_STEP] * dice.uniform(0, 5)
    beside = BesidePrice(start_s=start_s, slow_down=slow_down, error=0.0, n=1) if number % 2 else None
    bench = SyntheticWorkload(clock, costs, save_s=save_s, episode_steps=EPISODE, beside=beside)
    models = {
        t.workload_digest(): calibrated(t, bench, doubles.Store(clock, timed=False), clock)
        for t in study.trainings
    }
    spread = spread_from([])
    planner = Planner(study, models_for(study, models), spread, quota_s, confidence, cold=True)
    budgets = planner.largest(confidence)
    assert all(b < t.total_timesteps for b, t in zip(budgets, study.trainings, strict=True))
    factor = math.exp(spread.log_sigma * dice.standard_normal())  # what the stated prior says of runs
    jitter = np.random.default_rng([SEED, number, 1])
    machine = SyntheticWorkload(
        clock,
        costs,
        save_s=save_s,
        episode_steps=EPISODE,
        beside=beside,
        slow_down=lambda now: factor * (0.8 + 0.4 * jitter.random()),
    )
    outcome = run(folder / str(number), study, clock, machine, quota_s=quota_s, budgets=budgets)
    return outcome, quota_s


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is killed here, and hours pass in a moment: no disk is waited for, few lines are written."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(control, "FLUSH_S", math.inf)


def test_budgets_planned_at_99_percent_overrun_in_one_of_a_hundred_at_most(tmp_path: Path) -> None:
    ended = [carried_out(number, tmp_path, 0.99) for number in range(RUNS)]
    assert [o.slack_s for o, _ in ended if o.slack_s is None or o.slack_s < 0] == []  # no session ends late
    assert {o.reason for o, _ in ended} <= {StopReason.BUDGET, StopReason.DEADLINE}
    cut = sum(o.reason is StopReason.DEADLINE for o, _ in ended)
    assert cut <= 0.01 * RUNS, f"{cut} of {RUNS} did not reach their budget"
    # nor is that because it asks for little: two standard deviations of the prior below the quota
    used = float(np.median([o.session_s / q for o, q in ended]))
    assert 0.7 < used < 0.9, f"{cut} cut, {used:.1%} of the quota used"


def test_budgets_planned_at_50_percent_are_cut_half_the_time(tmp_path: Path) -> None:
    """The slow-downs are real: a plan that is only even odds fails about as often as it says."""
    ended = [carried_out(number, tmp_path, 0.5) for number in range(80)]
    cut = sum(o.reason is StopReason.DEADLINE for o, _ in ended)
    assert 28 <= cut <= 56  # 40 on average; the guard's own reserve adds some
    assert all(o.slack_s is not None and o.slack_s >= 0 for o, _ in ended)

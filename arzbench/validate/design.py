"""What a validation runs: pairs, repetitions, and trainings sized by their own calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from arzbench.choose_study import choose_study
from arzbench.errors import UsageError, unknown
from arzbench.predict.costmodel import Job, fit, startup_seconds
from arzbench.predict.schedule import count_training, whole_rollouts
from arzbench.records import Calibration, Spread
from arzbench.study import Study
from arzbench.units import format_duration
from arzbench.validate.result import Design, Pair

#: every algorithm, classic envs and ours, one env and several
PAIRS = (
    Pair(name="cartpole-ppo", env="CartPole-v1", algo="ppo"),
    Pair(name="pendulum-sac", env="Pendulum-v1", algo="sac"),
    Pair(name="traffic-dqn", env="arzbench/TrafficLight-v0", algo="dqn"),
    Pair(name="pendulum-td3", env="Pendulum-v1", algo="td3"),
    Pair(name="ramp-ppo", env="arzbench/RampMetering-v0", algo="ppo", settings=("n_envs=4", "n_steps=256")),
    Pair(name="acrobot-dqn", env="Acrobot-v1", algo="dqn"),
    Pair(name="speed-a2c", env="arzbench/SpeedControl-v0", algo="a2c", settings=("n_envs=8",)),
    Pair(name="mountaincar-ddpg", env="MountainCarContinuous-v0", algo="ddpg"),
)
QUICK = ("cartpole-ppo", "pendulum-sac", "traffic-dqn")
#: run lengths in seconds; a pair's own is the target times its factor
LEAST_S, MOST_S = 20.0, 120.0
FACTORS = (1.0, 1.15, 0.9, 1.05, 0.95, 1.1)
#: what a calibration, the two trials beside it, and a run's start and bookkeeping take, roughly
CALIBRATE_S, TRIAL_S, AROUND_S = 45.0, 14.0, 2.0
#: of a quick validation: less, and starting the processes leaves no time to measure
QUICK_CALIBRATE_S = 30.0
#: runs of each pair as long as they can be of a reasonable length
USUAL_RUNS = 6
#: training steps a calibration is told of before its study is sized by it
UNSIZED = 20_000
#: evaluations and checkpoints of every training
EVALUATIONS, SAVES = 6, 3


def choose_pairs(names: str | None, *, quick: bool) -> tuple[Pair, ...]:
    """The pairs named, separated by commas; else all, or those of a quick validation."""
    by_name = {pair.name: pair for pair in PAIRS}
    chosen = list(by_name) if names is None and not quick else list(QUICK)
    if names is not None:
        chosen = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not chosen:
        raise UsageError("--pairs names none", f"valid: {', '.join(by_name)}")
    for name in chosen:
        if name not in by_name:
            raise unknown("pair", name, by_name)
    return tuple(by_name[name] for name in chosen)


def make_design(
    pairs: Sequence[Pair], *, busy_share: float, seed: int, quick: bool, planned_s: float | None
) -> Design:
    """As many runs of 20 to 120 seconds as fit `planned_s`; three of each kind without a limit.

    Raises:
        UsageError: not even two runs of each pair fit.
    """

    def design(runs: int, target_s: float = LEAST_S) -> Design:
        beside = min(runs, max(0, round(runs * busy_share)))
        return Design(
            pairs=tuple(pairs),
            alone=runs - beside,
            beside=beside,
            target_s=target_s,
            calibrate_s=QUICK_CALIBRATE_S if quick else None,
            planned_s=planned_s,
            seed=seed,
        )

    if planned_s is None:
        return design(4, 12.0) if quick else design(USUAL_RUNS, 40.0)

    def fitting(runs: int) -> float:
        """The length of a run: a run's own error, and a pair's factor, on the safe side."""
        return 0.95 * (LEAST_S + (planned_s - expected_s(design(runs))) / (len(pairs) * runs))

    runs = next((n for n in (USUAL_RUNS, 5, 4, 2) if fitting(n) >= LEAST_S), None)
    if runs is None:
        raise UsageError(
            f"--for {format_duration(planned_s)} is too short for {len(pairs)} pair(s)",
            f"at least --for {math.ceil(expected_s(design(2)) / 60)}m, or fewer --pairs",
        )
    while fitting(runs) > 1.5 * LEAST_S * 2:
        runs += 2
    return design(runs, min(fitting(runs), MOST_S))


def expected_s(design: Design) -> float:
    """How long it will take, about: the calibrations with their trials, and the runs."""
    runs = len(design.pairs) * (design.alone + design.beside)
    calibrating = len(design.cells()) * ((design.calibrate_s or CALIBRATE_S) + TRIAL_S)
    return calibrating + runs * (design.target_s + AROUND_S)


def pair_target_s(design: Design, pair: Pair) -> float:
    """The length of a pair's runs: not all the same."""
    return design.target_s * FACTORS[design.pairs.index(pair) % len(FACTORS)]


def study_of(pair: Pair, timesteps: int, seed: int) -> Study:
    """`pair` trained for `timesteps`, with evaluations and checkpoints on the way."""
    study = choose_study(
        Path(),
        study=None,
        env=pair.env,
        algo=pair.algo,
        changes=[*pair.settings, f"seed={seed}"],
        timesteps=timesteps,
    )
    assert study is not None
    config = study.trainings[0]
    calls = timesteps // config.n_envs
    sized = msgspec.structs.replace(
        config,
        name=pair.name,
        evaluation=msgspec.structs.replace(
            config.evaluation, eval_freq=max(1, calls // EVALUATIONS), n_eval_episodes=3
        ),
        checkpoint=msgspec.structs.replace(
            config.checkpoint, checkpoint_freq=max(1, math.ceil(calls / SAVES))
        ),
    )
    return Study(name=pair.name, trainings=(sized,))


def sized(pair: Pair, calibration: Calibration, spread: Spread, seed: int, target_s: float) -> Study:
    """The training of `pair` whose predicted P50 is `target_s`, in whole rollouts.

    Longer where starting a process alone takes a third of it: a training is to be judged, not its start.
    """
    samples = calibration.workloads[0]
    model = fit(samples)
    target_s = max(target_s, 3 * startup_seconds(model))
    rollout = samples.config.rollout_steps

    def study(rollouts: int) -> Study:
        return study_of(pair, max(rollout, whole_rollouts(samples.config, rollouts * rollout)), seed)

    def seconds(rollouts: int) -> float:
        config = study(rollouts).trainings[0]
        schedule = count_training(config, model.facts, state_bytes=model.state_bytes)
        return Job([(model, schedule)], spread).quantile(0.5)

    low, high = 1, 2
    while seconds(high) < target_s:
        low, high = high, high * 2
    while high - low > max(1, low // 500):
        middle = (low + high) // 2
        low, high = (middle, high) if seconds(middle) < target_s else (low, middle)
    return study(high)

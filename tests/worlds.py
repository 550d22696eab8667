"""Worlds with declared prices: what a calibration would have measured where everything is known."""

from __future__ import annotations

import datetime
import random
from collections.abc import Mapping, Sequence
from typing import Any

from arzbench.facts import EnvFacts, Phase
from arzbench.predict.beside import STEPWISE
from arzbench.predict.costmodel import fit
from arzbench.predict.plan import make_plan
from arzbench.predict.schedule import count_training
from arzbench.records import (
    BESIDE,
    Calibration,
    CostModel,
    HostInfo,
    PhaseSamples,
    Plan,
    Platform,
    Spread,
    TrainSchedule,
    WorkloadSamples,
)
from arzbench.study import Study, TrainConfig
from arzbench.study_file import make_config

HOST = HostInfo(
    name="lab-1",
    system="Linux 6 x86_64",
    cpu="Some CPU",
    cores=4,
    memory_bytes=16_000_000_000,
    python="3.11.9",
    device="cpu",
    torch_threads=1,
)
PLATFORM = Platform(name="local", title="here", source="none", checked="2026-01-01")

#: a training in which every phase occurs
EVERYTHING: dict[str, Any] = {
    "evaluation": {"eval_freq": 1000, "n_eval_episodes": 5, "final_episodes": 1},
    "baseline": {"episodes": 1},
    "checkpoint": {"checkpoint_freq": 1000},
}

#: seconds per unit
PRICES: dict[Phase, float] = {
    Phase.IMPORT: 2.4,
    Phase.BUILD: 0.2,
    Phase.RESET: 0.002,
    Phase.ENV_STEP: 0.004,
    Phase.POLICY: 0.0001,
    Phase.UPDATE: 0.0011,
    Phase.ROLLOUT: 0.00003,
    Phase.EVAL_STEP: 0.0041,
    Phase.BASELINE: 0.0039,
    Phase.LOG: 0.00001,
    Phase.TEARDOWN: 0.9,
}
JIT = {"cold": 11.0, "warm": 1.2}
#: (seconds of an empty one, seconds per byte)
SIZED = {Phase.CHECKPOINT: (0.03, 4e-9), Phase.RESTORE: (0.08, 2e-9)}
#: what the first update of a process costs above the others
FIRST_UPDATE_S = 0.35
STATE_BYTES = (120_000, 60)
#: what it costs to begin an evaluation beside the training
BEGUN_S = 0.02
LOGGED = (Phase.ENV_STEP, Phase.POLICY, Phase.ROLLOUT, Phase.RESET, Phase.LOG)


def config(**table: Any) -> TrainConfig:
    """A DQN training of 24,000 steps unless told otherwise."""
    plain = {"name": "t", "env": "Synthetic-v0", "algo": "dqn", "total_timesteps": 24_000}
    plain["logging"] = {"mode": "periodic"}
    return make_config({**plain, **table}, "test")


def study(*trainings: TrainConfig, name: str = "job") -> Study:
    return Study(name=name, trainings=tuple(trainings) or (config(),))  # type: ignore[arg-type]


def facts(length: int = 240, bound: int | None = 240, n_envs: int = 1) -> EnvFacts:
    """Episodes that took `length` steps where `bound` is the limit."""
    return EnvFacts(
        n_envs=n_envs, max_episode_steps=bound, episode_steps=(length,), eval_episode_steps=(length,) * 3
    )


FULL = config(**EVERYTHING)
PAIR = study(FULL, config(**{**EVERYTHING, "total_timesteps": 10_001, "name": "second"}))
#: of a run that takes what its prices say
EXACT = Spread(source="none", log_sigma=0.0)


def declared(phase: Phase, size: float = 0.0) -> float:
    """The price of a unit."""
    fixed, per_byte = SIZED.get(phase, (0.0, 0.0))
    return fixed + per_byte * size if phase in SIZED else PRICES[phase]


def _sample(phase: Phase, repetition: int, *seconds: float, **more: Any) -> PhaseSamples:
    units = more.pop("units", (1,) * len(seconds))
    return PhaseSamples(phase=phase, repetition=repetition, seconds=seconds, units=tuple(units), **more)


def samples(
    training: TrainConfig,
    *,
    prices: Mapping[Phase, float] = PRICES,
    repetitions: int = 4,
    spread: float = 0.0,
    env: EnvFacts | None = None,
    leave_out: Sequence[Phase] = (),
    seed: int = 0,
    beside: float | None = None,
) -> WorkloadSamples:
    """Everything a calibration keeps: warm-ups, variants, several sizes, blocks of unequal length.

    `beside`: how many times as long steps of a training took while an evaluation was under way.
    """
    rng = random.Random(seed)
    main = training.logging.mode
    measured: list[PhaseSamples] = []

    def noise(around: float = 0.0, width: float = spread) -> float:
        return rng.lognormvariate(around, width) if spread else 1.0

    def series(phase: Phase, repetition: int, price: float, units: Sequence[int], variant: str) -> None:
        """A warm-up and measurements around `price`; the mean differs a little between processes."""
        level = price * noise()
        seconds = [level * u * noise(-0.02, 0.2) for u in units]
        first = FIRST_UPDATE_S if phase is Phase.UPDATE and variant == "" else 0.0
        measured.append(_sample(phase, repetition, price + first, variant=variant, warmup=True))
        measured.append(_sample(phase, repetition, *seconds, variant=variant, units=units))

    for repetition in range(repetitions):
        for phase, price in prices.items():
            if phase in (Phase.IMPORT, Phase.BUILD, Phase.TEARDOWN):
                measured.append(_sample(phase, repetition, price * noise()))
                continue
            units = [1] * 30 + [25, 1, 7, 40]
            variant = main if phase in LOGGED else ""
            series(phase, repetition, price, units, variant)
            if phase in LOGGED:
                for other in {"off", "periodic", "every"} - {main}:
                    series(phase, repetition, price * 50, units[:9], other)
        for phase in STEPWISE if beside is not None else ():
            seconds = [prices[phase] * noise() * u * beside * noise() for u in (1, 40, 60)]
            measured.append(_sample(phase, repetition, *seconds, variant=BESIDE, units=(1, 40, 60)))
        if beside is not None:
            measured.append(_sample(Phase.EVAL_STEP, repetition, BEGUN_S, variant=BESIDE, units=(1200,)))
        state = "cold" if repetition == 0 else "warm"
        measured.append(_sample(Phase.JIT, repetition, JIT[state], variant=state))
        for phase in SIZED:
            for size in (120_000.0, 900_000.0, 3_120_000.0 + repetition):
                measured.append(_sample(phase, repetition, declared(phase, size) * noise(), size=size))
    return WorkloadSamples(
        workload=training.workload_digest(),
        config=training,  # type: ignore[arg-type]
        facts=env or facts(n_envs=training.n_envs),
        state_bytes=STATE_BYTES,
        phases=tuple(s for s in measured if s.phase not in leave_out),
    )


def calibration(
    job: Study, *, host: HostInfo = HOST, created: str = "20260101T000000Z", **how: Any
) -> Calibration:
    """The calibration of every workload of `job`; `how` goes to `samples`."""
    distinct = {t.workload_digest(): t for t in reversed(job.trainings)}
    return Calibration(
        id=f"{job.name}-{created}",
        created=created,
        host=host,
        study=job,
        versions={"python": "3.11.9", "arzbench": "1"},
        steps=100,
        repetitions=how.get("repetitions", 4),
        took_s=20.0,
        drift=0.01,
        workloads=tuple(samples(t, **how) for t in distinct.values()),
    )


def model_of(training: TrainConfig = FULL, **how: Any) -> CostModel:
    """The prices of `training`; `how` goes to `samples`."""
    return fit(samples(training, **how))


def schedule_of(training: TrainConfig = FULL, env: EnvFacts | None = None, **how: Any) -> TrainSchedule:
    return count_training(training, env or facts(), state_bytes=STATE_BYTES, **how)


def plan(job: Study, quota_s: float | None, **changes: Any) -> Plan:
    """A plan of `job`, by a noisy `calibration` of it in the env `env`; `changes` go to `make_plan`."""
    env, platform = changes.pop("env", None), changes.pop("platform", PLATFORM)
    record = changes.pop("calibration", None) or calibration(job, env=env, spread=0.03)
    how: dict[str, Any] = {
        "host": HOST,
        "past": [],
        "confidence": 0.95,
        "created": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "command": "arzbench run",
    }
    return make_plan(job, record, "a/b.json", platform, quota_s=quota_s, **{**how, **changes})

"""Controls for tests, and the shortest way to a training."""

import copy
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tests.sb3.envs  # noqa: F401  (registers its envs)
from arzbench.clock import VirtualClock
from arzbench.facts import Phase, StopReason
from arzbench.measure.phase_times import PhaseTotals
from arzbench.sb3.workload import SB3Workload
from arzbench.study import ALGORITHMS, TrainConfig
from arzbench.study_file import make_config
from arzbench.training_state import Ring, TrainingState
from arzbench.workload import StopTraining

SMALL = {"policy_kwargs": {"net_arch": [8]}}


def config(algo: str, env: str = "arztest/Known-v0", **table: Any) -> TrainConfig:
    """A small training; hyper-parameters go by their own names beside the other keys."""
    keys = set(TrainConfig.__struct_fields__)
    hyper = {**copy.deepcopy(SMALL), **{k: v for k, v in table.items() if k not in keys}}
    rest = {"logging": {"mode": "periodic"}, **{k: v for k, v in table.items() if k in keys}}
    kwargs = rest.pop("env_kwargs", {})
    if env.startswith("arztest") and ALGORITHMS[algo].ACTIONS == ("Box",):
        kwargs = {"continuous": True, **kwargs}
    return make_config(
        {"algo": algo, "env": env, "env_kwargs": kwargs, "hyperparameters": hyper, **rest}, "test"
    )


class Log:
    """A recorder that only counts, and keeps the totals."""

    def __init__(self) -> None:
        self.totals = PhaseTotals()
        self.add = self.totals.add

    def units(self, phase: Phase) -> int:
        return self.totals.totals.get(phase, (0.0, 0))[1]


class Free:
    """Lets everything run, and remembers what it was told."""

    def __init__(self) -> None:
        self.expected_updates = 0
        self.steps = 0
        self.saves = 0
        self.evaluations: list[Any] = []
        self.episodes: list[tuple[float, int]] = []
        self.notes: list[str] = []

    def before_step(self, training: Any, updates: int) -> None:
        self.expected_updates += updates
        frequency = training.config.checkpoint.checkpoint_freq
        calls = training.num_timesteps // training.config.n_envs
        if calls and frequency and calls % frequency == 0:
            self.saves += 1
            training.capture()
        self.steps += 1

    def before_episode(self, training: Any, kind: str, episodes: int = 1) -> None:
        self.event("episode")

    def during_episode(self, training: Any) -> None:
        self.event("during")

    def waiting(self, training: Any) -> None: ...

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def during_update(self, training: Any) -> None:
        self.event("update")

    def evaluated(self, training: Any, result: Any) -> None:
        self.evaluations.append(result)
        self.event("evaluated")

    def episode_ended(self, training: Any, episode_return: float, length: int) -> None:
        self.episodes.append((episode_return, length))
        self.event("ended")

    def event(self, kind: str) -> None:
        pass


class StopAt(Free):
    """Stops at the n-th call of all its methods, counted from 0."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.count = 0
        self.where = ""

    def before_step(self, training: Any, updates: int) -> None:
        super().before_step(training, updates)
        self.event("step")

    def event(self, kind: str) -> None:
        self.count += 1
        if self.count > self.at:
            self.where = kind
            raise StopTraining(StopReason.SIGNAL)


class Seldom(Free):
    """Need not be asked about so many steps after each; remembers when it was told of what."""

    def __init__(self, unasked: int) -> None:
        super().__init__()
        self.unasked = unasked
        self.asked: list[int] = []
        self.told: list[tuple[str, int, Any]] = []

    def before_step(self, training: Any, updates: int) -> int:
        self.asked.append(training.num_timesteps)
        return self.unasked

    def episode_ended(self, training: Any, episode_return: float, length: int) -> None:
        self.told.append(("episode", training.num_timesteps, episode_return))

    def evaluated(self, training: Any, result: Any) -> None:
        self.told.append(("evaluation", training.num_timesteps, result))


STARTED: list[Any] = []


def start(config: TrainConfig, state: TrainingState | None = None, **kwargs: Any) -> tuple[Any, Log]:
    """A training that reads no clock, and what records it; `tidy` closes it."""
    log = Log()
    training = SB3Workload(VirtualClock()).create(config, log, state=state, **kwargs)
    STARTED.append(training)
    return training, log


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    """Close what a test has started; for import into test modules."""
    yield
    while STARTED:
        STARTED.pop().close()


def through_bytes(state: TrainingState) -> TrainingState:
    """`state` as it comes back from a disk: arrays that were never pickled, values that were text."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **state.arrays)
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    values = json.loads(json.dumps(state.values, allow_nan=False))
    ring = state.ring
    if ring is not None:
        rows = {name: array.copy() for name, array in ring.rows(ring.first, ring.total).items()}
        ring = Ring(arrays=rows, total=ring.total, origin=ring.first)
    return TrainingState(arrays=arrays, values=values, tier=state.tier, ring=ring)

"""Hundreds of virtual sessions on machines that slow down, stall and save slowly: none ends late."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import Phase, StopReason
from arzbench.predict import landing
from arzbench.run import guard
from arzbench.run.job import RunOutcome
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import A2C, Checkpoints, Evaluation, Study
from tests.run.jobs import dqn, fingerprints, plan, ppo, run

RUNS = 500
LEAVE_S = 0.3


@dataclass
class Machine:
    """Slows down by up to three from a random moment on, or from unit to unit; stalls within the margin."""

    dice: np.random.Generator
    quota_s: float
    kind: str

    def __post_init__(self) -> None:
        self.moment = self.dice.uniform(0, self.quota_s)
        self.factor = self.dice.uniform(1, 3)

    def slow_down(self, now: float) -> float:
        if self.kind == "steady":
            return 1.0
        if self.kind == "step":
            return self.factor if now > self.moment else 1.0
        return float(self.dice.uniform(1, 3))


class Stalling(SyntheticWorkload):
    """Now and then any unit, a save too, takes longer by a stall shorter than the margin."""

    stall_s = 0.0
    dice = np.random.default_rng(0)

    def spend(self, seconds: float) -> float:
        took = super().spend(seconds)
        if self.stall_s and self.dice.random() < 0.002:
            self.clock.sleep(self.stall_s)
            took += self.stall_s
        return took


def random_job(dice: np.random.Generator) -> Study:
    evaluation = Evaluation(
        eval_freq=int(dice.choice([0, 40, 150])), n_eval_episodes=2, final_episodes=int(dice.integers(0, 3))
    )
    changes: dict[str, Any] = {
        "evaluation": evaluation,
        "checkpoint": Checkpoints(checkpoint_freq=int(dice.choice([0, 50, 100]))),
        "total_timesteps": int(dice.integers(300, 3000)),
    }
    kinds = [
        dqn(**changes, train_freq=int(dice.choice([1, 4])), gradient_steps=int(dice.choice([-1, 1, 8]))),
        ppo(**changes, n_steps=int(dice.choice([16, 64])), n_epochs=int(dice.integers(1, 10))),
        A2C(name="a2c", env="Any-v0", n_envs=2, **changes),
    ]
    picked = dice.choice(len(kinds), size=int(dice.integers(1, 3)), replace=False)
    return Study(name="random", trainings=tuple(kinds[i] for i in picked))


def random_costs(dice: np.random.Generator) -> dict[Phase, float]:
    scale = 10 ** dice.uniform(-1.7, -0.3)
    phases = (Phase.ENV_STEP, Phase.POLICY, Phase.UPDATE, Phase.ROLLOUT, Phase.EVAL_STEP, Phase.BASELINE)
    costs = {phase: float(scale * 10 ** dice.uniform(-1.5, 0)) for phase in phases}
    return {**costs, Phase.IMPORT: 1.5, Phase.BUILD: 0.2, Phase.RESET: scale / 2, Phase.RESTORE: 0.1}


def session(number: int, folder: Path, quota_s: float | None = None) -> tuple[RunOutcome, float]:
    """One random session, its quota cut from a random job; and the quota."""
    dice = np.random.default_rng(number)
    job, costs = random_job(dice), random_costs(dice)
    save_s = float(10 ** dice.uniform(-2, 0))
    quota_s = float(dice.uniform(10, 90)) if quota_s is None else quota_s
    machine = Machine(dice, quota_s, str(dice.choice(["steady", "step", "jitter"])))
    clock = VirtualClock(float(dice.uniform(0, 1e6)))
    workload = Stalling(clock, costs, save_s=save_s, slow_down=machine.slow_down, episode_steps=20)
    workload.stall_s = float(dice.choice([0, 1])) * 0.9 * max(0.1, 0.005 * quota_s)
    workload.dice = dice
    known = plan(job, costs, save_s) if dice.random() < 0.7 else None
    return run(folder, job, clock, workload, quota_s=quota_s, plan=known, leave_s=LEAVE_S), quota_s


@pytest.fixture
def sessions(tmp_path: Path) -> list[tuple[RunOutcome, float]]:
    return [session(number, tmp_path / str(number)) for number in range(RUNS)]


def test_none_ends_after_its_deadline(sessions: list[tuple[RunOutcome, float]]) -> None:
    late = {i: o.slack_s for i, (o, _) in enumerate(sessions) if o.slack_s is None or o.slack_s < LEAVE_S}
    assert not late
    cut = [(o, q) for o, q in sessions if o.reason is StopReason.DEADLINE]
    assert {o.reason for o, _ in sessions} <= {StopReason.DEADLINE, StopReason.FINISHED}
    # the test would say nothing if sessions were not cut, or were cut far too early
    assert len(cut) > RUNS // 3
    assert statistics.median(o.session_s / q for o, q in cut) > 0.9


def test_without_its_care_the_guard_would_be_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sessions, each unit believed to cost its mean: the injected slow-downs are real."""
    monkeypatch.setattr(guard, "SURPRISE", 1.0)
    monkeypatch.setattr(guard, "STALL_SHARE", 0.0)
    monkeypatch.setattr(landing, "MARGIN_LEAST_S", 0.0)
    monkeypatch.setattr(landing, "MARGIN_SHARE", 0.0)
    late = 0
    for number in range(80):
        outcome, _ = session(number, tmp_path / str(number))
        late += outcome.slack_s is not None and outcome.slack_s < LEAVE_S
    assert late > 2


@pytest.mark.parametrize("number", range(16))
def test_however_it_was_cut_the_end_is_the_same(tmp_path: Path, number: int) -> None:
    whole, _ = session(number, tmp_path / "whole", quota_s=1e9)
    assert whole.reason is StopReason.FINISHED
    steps = -1
    for _ in range(400):
        outcome, _ = session(number, tmp_path / "cut", quota_s=max(12.0, whole.session_s / 5))
        if outcome.reason is StopReason.FINISHED:
            break
        assert sum(outcome.num_timesteps) >= steps
        steps = sum(outcome.num_timesteps)
    assert outcome.reason is StopReason.FINISHED
    assert outcome.num_timesteps == whole.num_timesteps
    assert fingerprints(tmp_path / "cut") == fingerprints(tmp_path / "whole")

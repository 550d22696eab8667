"""Episodes played at once: the guard asks whether all of them fit, and the ledger has one's share."""

import json
from pathlib import Path
from typing import Any

from arzbench.clock import VirtualClock
from arzbench.facts import Phase
from arzbench.run.simulated import SyntheticTraining, SyntheticWorkload
from arzbench.study import Evaluation, Study
from tests.run.jobs import COSTS, dqn, run

EPISODES, STEPS = 6, 20
ONE_S = STEPS * COSTS[Phase.EVAL_STEP]


class AtOnce(SyntheticTraining):
    """Plays all episodes of an evaluation at once, in the time of as many one by one."""

    def _evaluate(self, control: Any, kind: str, episodes: int) -> None:
        if episodes:
            control.before_episode(self, kind, episodes)
            for _ in range(episodes):
                self._episode(control, Phase.EVAL_STEP)
                self._at.open_returns.append(self._return())
            super()._evaluate(control, kind, episodes)


def job() -> Study:
    evaluation = Evaluation(eval_freq=100, n_eval_episodes=EPISODES)
    return Study(name="small", trainings=(dqn(total_timesteps=200, evaluation=evaluation),))


def session(folder: Path, monkeypatch: Any, **changes: Any) -> tuple[Any, VirtualClock, list[dict[str, Any]]]:
    monkeypatch.setattr("arzbench.run.simulated.SyntheticTraining", AtOnce)
    clock = VirtualClock()
    workload = SyntheticWorkload(clock, COSTS, episode_steps=STEPS, save_s=0.25)
    outcome = run(folder, job(), clock, workload, **changes)
    lines = (folder / "reports" / "r1" / "ledger.jsonl").read_text().splitlines()
    return outcome, clock, [json.loads(line) for line in lines]


def test_the_ledger_has_the_time_of_one(tmp_path: Path, monkeypatch: Any) -> None:
    _, _, entries = session(tmp_path, monkeypatch)
    told = [e["data"]["episode_s"] for e in entries if e["data"].get("evaluation") == "evaluation"]
    assert told == [ONE_S, ONE_S]


def test_all_of_them_must_fit(tmp_path: Path, monkeypatch: Any) -> None:
    _, clock, _ = session(tmp_path / "whole", monkeypatch)
    whole_s = clock.now()
    quota_s = whole_s - (EPISODES - 2) * ONE_S  # the last evaluation lacks the time for all, not for one
    outcome, clock, _ = session(tmp_path / "short", monkeypatch, quota_s=quota_s)
    assert outcome.num_timesteps == (200,)
    assert "the next 6 evaluation episodes may take 15.0 s" in outcome.detail
    assert clock.now() < whole_s - EPISODES * ONE_S + 2.0  # it was not begun

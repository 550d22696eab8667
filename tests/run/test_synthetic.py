"""Played out event by event, trainings do what the schedule counted."""

import contextlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import EnvFacts, Phase, StopReason
from arzbench.measure.phase_times import PhaseTotals
from arzbench.predict.schedule import count_training
from arzbench.records import BesidePrice
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import A2C, SAC, TD3, Baseline, Evaluation
from arzbench.workload import Control, StopTraining
from tests.run.jobs import COSTS, dqn, ppo


@dataclass
class Watch(Control):
    """Counts, and stops at the n-th event."""

    stop_at: int = -1
    events: int = 0
    updates: int = 0
    evaluations: list[tuple[str, int]] = field(default_factory=list)

    def before_step(self, training: Any, updates: int) -> None:
        self.during_episode(training)
        self.updates += updates

    def before_episode(self, training: Any, kind: str, episodes: int = 1) -> None:
        self.during_episode(training)

    def waiting(self, training: Any) -> None:
        self.during_episode(training)

    def during_episode(self, training: Any) -> None:
        self.events += 1
        if self.events == self.stop_at:
            raise StopTraining(StopReason.SIGNAL)

    def evaluated(self, training: Any, result: Any) -> None:
        self.evaluations.append((result.kind, result.num_timesteps))


EVALUATION = Evaluation(eval_freq=60, n_eval_episodes=3, final_episodes=2)
CONFIGS = [
    dqn(),
    dqn(learning_starts=100, train_freq=1, gradient_steps=-1),
    dqn(n_envs=4, train_freq=2, gradient_steps=-1, total_timesteps=1000),
    dqn(train_freq=(2, "episode"), total_timesteps=390, evaluation=EVALUATION),
    dqn(learning_starts=10_000),
    ppo(),
    ppo(total_timesteps=500, baseline=Baseline(episodes=2)),
    A2C(name="a2c", env="E", n_envs=2, total_timesteps=200, evaluation=EVALUATION),
    SAC(name="sac", env="E", total_timesteps=300),
    TD3(name="td3", env="E", total_timesteps=300, train_freq=(1, "episode"), evaluation=EVALUATION),
]
EXACT = [
    Phase.BUILD, Phase.ENV_STEP, Phase.UPDATE, Phase.ROLLOUT, Phase.EVAL_STEP, Phase.BASELINE, Phase.LOG,
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name}-{c.total_timesteps}")
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_every_event_is_as_counted(config: Any, share: float) -> None:
    clock, totals, watch = VirtualClock(), PhaseTotals(), Watch()
    budget = int(config.total_timesteps * share)
    workload = SyntheticWorkload(clock, COSTS, episode_steps=20, eval_episode_steps=25)
    training = workload.create(config, totals, budget=budget)
    training.run(watch)
    facts = EnvFacts(
        n_envs=config.n_envs, max_episode_steps=25, episode_steps=(20,), eval_episode_steps=(25,)
    )
    counted = count_training(config, facts, budget=budget)
    done = {phase: units for phase, (_, units) in totals.totals.items()}
    assert {p: done.get(p, 0) for p in EXACT} == {p: counted.get(p).count for p in EXACT}
    # greedy actions of DQN are counted as an expectation
    assert done.get(Phase.POLICY, 0) == pytest.approx(counted.get(Phase.POLICY).count, abs=2 + 0.02 * budget)
    assert training.num_timesteps == counted.total_timesteps
    assert watch.updates == counted.updates
    assert sum(kind == "evaluation" for kind, _ in watch.evaluations) == counted.evaluations
    assert training.stage == "done"
    spent = sum(seconds for seconds, _ in totals.totals.values())
    assert clock.now() == pytest.approx(spent)


BESIDE = BesidePrice(start_s=0.5, slow_down=1.25, error=0.0, n=1)


def beside(workload: SyntheticWorkload, watch: Watch, state: Any = None) -> Any:
    training = workload.create(dqn(), PhaseTotals(), state=state)
    with contextlib.suppress(StopTraining):
        training.run(watch)
    return training


def test_evaluations_beside_the_training_come_to_the_same_and_take_less() -> None:
    clocks = []
    watches = []
    prints = []
    for price in (None, BESIDE):
        clock, watch = VirtualClock(), Watch()
        training = beside(SyntheticWorkload(clock, COSTS, episode_steps=20, beside=price), watch)
        clocks.append(clock.now())
        watches.append(watch.evaluations)
        prints.append(training.fingerprint())
    assert prints[0] == prints[1]
    assert watches[0] == watches[1]
    assert clocks[1] < clocks[0] - 2 * 20 * COSTS[Phase.EVAL_STEP]


def test_one_that_was_under_way_is_complete_after_resuming() -> None:
    whole = Watch()
    prints = beside(
        SyntheticWorkload(VirtualClock(), COSTS, episode_steps=20, beside=BESIDE), whole
    ).fingerprint()
    pending = 0
    for stop_at in range(1, whole.events, 7):
        first, then = Watch(stop_at), Watch()
        workload = SyntheticWorkload(VirtualClock(), COSTS, episode_steps=20, beside=BESIDE)
        stopped = beside(workload, first)
        pending += stopped.evaluating is not None
        again = beside(workload, then, stopped.capture())
        assert again.fingerprint() == prints
        assert first.evaluations + then.evaluations == whole.evaluations
    assert pending > 5

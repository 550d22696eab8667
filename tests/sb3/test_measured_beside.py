"""A real short training with evaluations beside it: what they cost it is kept apart."""

from arzbench.clock import SystemClock
from arzbench.facts import Phase
from arzbench.measure.burst import BurstJob, measure_once
from arzbench.predict.costmodel import fit
from arzbench.records import BESIDE, NOT_BESIDE, WorkloadSamples
from arzbench.sb3.workload import SB3Workload
from arzbench.study import DQN, Evaluation
from arzbench.worker import TrialCheckpoints

STUDY = DQN(
    env="CartPole-v1", total_timesteps=5000, learning_starts=50, buffer_size=1000,
    evaluation=Evaluation(eval_freq=1000, final_episodes=1),
)  # fmt: skip


def test_steps_beside_an_evaluation_are_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr("arzbench.sb3.evaluations.SHORT_S", 0.0)  # so that a few episodes will do
    job = BurstJob(
        config=STUDY, repetition=0, cold=False, spawned=0.0, steps=300, rollout=None, eval_episodes=2,
        max_eval_s=60.0, folder=str(tmp_path), beside=20,
    )  # fmt: skip
    clock = SystemClock()
    result = measure_once(
        job, SB3Workload(), TrialCheckpoints(tmp_path, clock), clock, lambda what, share: None
    )
    assert not [note for note in result.notes if note.startswith(NOT_BESIDE)]
    beside = [s for s in result.phases if s.variant == BESIDE]
    assert {Phase.EVAL_STEP, Phase.ENV_STEP, Phase.UPDATE, Phase.ROLLOUT} <= {s.phase for s in beside}
    assert sum(s.count for s in beside if s.phase is Phase.ENV_STEP) < 300
    price = fit(
        WorkloadSamples(
            workload="w",
            config=STUDY,
            facts=result.facts,
            state_bytes=result.state_bytes,
            phases=result.phases,
        )
    ).beside
    assert price is not None
    assert price.n > 0
    assert 0 < price.start_s < 5
    assert price.slow_down > 0

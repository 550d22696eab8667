"""What the tests of runs share: small studies, prices, and sessions on a virtual clock."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from arzbench.clock import Clock, VirtualClock
from arzbench.facts import EnvFacts, Phase
from arzbench.records import Coefficient, CostModel, HostInfo, Plan, Platform, Spread
from arzbench.run.job import RunOutcome, RunRequest, run_job
from arzbench.run.progress import Progress
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import DQN, PPO, Baseline, Checkpoints, Evaluation, Study

#: seconds per unit; sums of these are exact in binary, so that equal histories have equal clocks
COSTS = {
    Phase.IMPORT: 2.0,
    Phase.JIT: 0.5,
    Phase.BUILD: 0.25,
    Phase.RESTORE: 0.25,
    Phase.RESET: 0.0625,
    Phase.ENV_STEP: 0.125,
    Phase.POLICY: 0.03125,
    Phase.UPDATE: 0.0625,
    Phase.ROLLOUT: 0.0078125,
    Phase.EVAL_STEP: 0.125,
    Phase.BASELINE: 0.125,
    Phase.LOG: 0.0,
}


def dqn(**changes: Any) -> DQN:
    given: dict[str, Any] = {
        "name": "dqn",
        "env": "Any-v0",
        "total_timesteps": 600,
        "buffer_size": 400,
        "learning_starts": 50,
        "evaluation": Evaluation(eval_freq=150, n_eval_episodes=2, final_episodes=1),
        "baseline": Baseline(episodes=1),
        "checkpoint": Checkpoints(checkpoint_freq=100),
    }
    return DQN(**{**given, **changes})


def ppo(**changes: Any) -> PPO:
    given: dict[str, Any] = {
        "name": "ppo",
        "env": "Any-v0",
        "total_timesteps": 512,
        "n_steps": 32,
        "n_envs": 2,
        "batch_size": 16,
        "n_epochs": 2,
        "evaluation": Evaluation(eval_freq=64, n_eval_episodes=1),
    }
    return PPO(**{**given, **changes})


def study(*trainings: Any) -> Study:
    return Study(name="small", trainings=trainings or (dqn(), ppo()))


class Recorded:
    """A display that keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Progress] = []
        self.closed = False

    def show(self, progress: Progress) -> None:
        self.shown.append(progress)

    def say(self, line: str) -> None:
        return

    def close(self) -> None:
        self.closed = True


def request(folder: Path, job: Study, clock: Clock, **changes: Any) -> RunRequest:
    given: dict[str, Any] = {
        "study": job,
        "budgets": tuple(t.total_timesteps for t in job.trainings),
        "run_id": "r1",
        "run_folder": folder / "reports" / "r1",
        "checkpoint_folder": folder / "checkpoints" / "r1",
        "session_start": clock.now(),
        "save_beside": False,  # a virtual clock stands still beside a thread
    }
    return RunRequest(**{**given, **changes})


def run(
    folder: Path,
    job: Study,
    clock: Clock | None = None,
    workload: SyntheticWorkload | None = None,
    **changes: Any,
) -> RunOutcome:
    """One session."""
    clock = clock or VirtualClock()
    workload = workload or SyntheticWorkload(clock, COSTS, episode_steps=20, save_s=0.25)
    return run_job(request(folder, job, clock, **changes), workload, clock, Recorded())


def fingerprints(folder: Path) -> dict[str, dict[str, str]]:
    """What the exported models of a finished job say of themselves."""
    files = sorted((folder / "checkpoints" / "r1").glob("*.zip"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def model(config: Any, costs: Mapping[Phase, float], save_s: float) -> CostModel:
    """The prices that a perfect calibration would find."""
    priced = {**costs, Phase.CHECKPOINT: save_s}
    return CostModel(
        workload=config.workload_digest(),
        facts=EnvFacts(
            n_envs=config.n_envs, max_episode_steps=20, episode_steps=(20,), eval_episode_steps=(20,)
        ),
        state_bytes=(1000, 8),
        coefficients=tuple(
            Coefficient(phase=p, fixed_s=s, relative_error=0.05, n=10, p95_s=s) for p, s in priced.items()
        ),
    )


def plan(job: Study, costs: Mapping[Phase, float] = COSTS, save_s: float = 0.25) -> Plan:
    """A plan that knows the prices and nothing else of interest here."""
    host = HostInfo(
        name="h", system="s", cpu="c", cores=2, memory_bytes=1, python="3.11", device="cpu", torch_threads=1
    )
    return Plan(
        id="p1",
        created="2026-01-01",
        study=job,
        study_digest="d",
        calibration_id="c1",
        calibration_path="c1.json",
        host=host,
        platform=Platform(name="local", title="here", source="none", checked="2026-01-01"),
        quota_s=None,
        confidence=0.95,
        models=tuple(model(t, costs, save_s) for t in job.trainings),
        spread=Spread(source="prior", log_sigma=0.1),
        schedules=(),
        rows=(),
        safe_timesteps=None,
        options=(),
    )


def until_done(
    folder: Path,
    job: Study,
    quota_s: float,
    make: Callable[[VirtualClock], SyntheticWorkload] | None = None,
    **changes: Any,
) -> list[RunOutcome]:
    """Sessions, one after the other, until the job is finished."""
    clock = VirtualClock()
    outcomes = []
    for _ in range(200):
        workload = make(clock) if make else None
        outcomes.append(run(folder, job, clock, workload, quota_s=quota_s, **changes))
        if outcomes[-1].exit_code != 4:
            break
    return outcomes

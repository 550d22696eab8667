"""Run as a program: one session of a synthetic training in real time. `training.py FOLDER QUOTA_S`.

Prints "going" when the first step was done; leaves with the session's exit code.
"""

import sys
from pathlib import Path

from arzbench.clock import SystemClock, process_start
from arzbench.facts import Phase
from arzbench.run.job import RunRequest, run_job
from arzbench.run.progress import Progress
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import DQN, Checkpoints, Evaluation, Study

STUDY = Study(
    name="real-time",
    trainings=(
        DQN(
            name="dqn",
            env="Any-v0",
            total_timesteps=1500,
            evaluation=Evaluation(eval_freq=400, n_eval_episodes=2),
            checkpoint=Checkpoints(checkpoint_freq=50),
        ),
    ),
)
COSTS = {Phase.ENV_STEP: 0.001, Phase.EVAL_STEP: 0.002}


class Announced:
    """Says once that it goes."""

    def __init__(self) -> None:
        self.going = False

    def show(self, progress: Progress) -> None:
        if progress.num_timesteps and not self.going:
            self.going = True
            print("going", flush=True)

    def say(self, line: str) -> None:
        return

    def close(self) -> None:
        return


def main(folder: str, quota_s: str) -> int:
    clock = SystemClock()
    request = RunRequest(
        study=STUDY,
        budgets=(1500,),
        quota_s=float(quota_s),
        run_id="r1",
        run_folder=Path(folder) / "reports" / "r1",
        checkpoint_folder=Path(folder) / "checkpoints" / "r1",
        session_start=process_start(clock),
    )
    outcome = run_job(
        request, SyntheticWorkload(clock, COSTS, episode_steps=100, save_s=0.02), clock, Announced()
    )
    print(outcome.reason.name, outcome.detail, flush=True)
    return int(outcome.exit_code)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

"""Run as a program: saves again and again, to be killed. `saving.py FOLDER [POINT NUMBER]`.

With a point, it leaves at once when the save of that number passes that point.
"""

import os
import sys
from pathlib import Path

import numpy as np

from arzbench.clock import SystemClock
from arzbench.run.checkpoint import CheckpointStore, Header
from arzbench.workloads.base import TrainingState


def main(folder: str, point: str = "", number: str = "0") -> None:
    step = 0

    def at_point(name: str) -> None:
        if name == point and step == int(number):
            os._exit(9)

    checkpoints = CheckpointStore(Path(folder), 2, SystemClock(), at_point=at_point)
    checkpoints.clean()
    found = checkpoints.newest("study-1")
    step = found.manifest.num_timesteps if found else 0
    while True:
        step += 1
        weights = np.full(200_000, step, dtype=np.float64)
        checkpoints.save(
            TrainingState(arrays={"weights": weights}, values={"step": step}, tier="exact"),
            Header(
                study="study-1", training=0, num_timesteps=step, job_steps=step, elapsed_s=float(step),
                sessions=1, ledger=0, versions={}, created="2026-01-01",
            ),
        )  # fmt: skip
        print(step, flush=True)  # it is durable: from here on it must never be lost


if __name__ == "__main__":
    main(*sys.argv[1:])

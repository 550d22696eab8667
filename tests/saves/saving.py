"""Run as a program: saves again and again, to be killed. `saving.py FOLDER [POINT NUMBER]`.

With a point, it leaves at once when the save of that number passes that point. Half of a state is a ring
buffer whose full segments are shared by checkpoints.
"""

import os
import sys
from pathlib import Path

import numpy as np

from arzbench.clock import SystemClock
from arzbench.saves import segments
from arzbench.saves.checkpoints import CheckpointStore, Header
from arzbench.training_state import Ring, TrainingState

ROWS, ROWS_A_STEP = 60_000, 7_000


def expected(step: int) -> TrainingState:
    """The state of `step`: each array tells by its values where it belongs."""
    total = step * ROWS_A_STEP
    slots = np.arange(ROWS)
    rows = slots + (total - 1 - slots) // ROWS * ROWS  # the newest row of each slot
    return TrainingState(
        arrays={"weights": np.full(100_000, step, dtype=np.float64)},
        values={"step": step},
        tier="exact",
        ring=Ring(arrays={"rows": rows[: min(total, ROWS)].copy() if total < ROWS else rows}, total=total),
    )


def main(folder: str, point: str = "", number: str = "0") -> None:
    step = 0

    def at_point(name: str) -> None:
        if name == point and step == int(number):
            os._exit(9)

    segments.SEGMENT_BYTES = 65_536
    checkpoints = CheckpointStore(Path(folder), 2, SystemClock(), at_point=at_point)
    checkpoints.clean()
    found = checkpoints.newest("study-1")
    checkpoints.adopt(found)
    step = found.manifest.num_timesteps if found else 0
    while True:
        step += 1
        checkpoints.save(
            expected(step),
            Header(
                study="study-1", training=0, num_timesteps=step, job_steps=step, elapsed_s=float(step),
                sessions=1, ledger=0, versions={}, created="2026-01-01",
            ),
        )  # fmt: skip
        print(step, flush=True)  # it is durable: from here on it must never be lost


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What the tests of checkpoints share: small states, and folders filled with them."""

from pathlib import Path
from typing import Any

import numpy as np

from arzbench.clock import VirtualClock
from arzbench.saves.checkpoints import Checkpoint, CheckpointStore, Header
from arzbench.workload import TrainingState

ROOT = Path(__file__).resolve().parent.parent.parent


def header(step: int = 0, **changes: Any) -> Header:
    given: dict[str, Any] = {
        "study": "study-1",
        "training": 0,
        "num_timesteps": step,
        "job_steps": step,
        "elapsed_s": float(step),
        "sessions": 1,
        "ledger": step,
        "versions": {"numpy": np.__version__},
        "created": "2026-01-01T00:00:00",
    }
    return Header(**{**given, **changes})


def state(step: int = 0, rows: int = 50) -> TrainingState:
    arrays = {"weights": np.arange(rows) + step, "policy/layer.0": np.full((3, 2), step, np.float32)}
    return TrainingState(arrays=arrays, values={"step": step}, tier="exact")


def opened(folder: Path, keep_last: int = 2) -> CheckpointStore:
    return CheckpointStore(folder, keep_last, VirtualClock())


def newest(folder: Path) -> Checkpoint:
    found = opened(folder).newest("study-1")
    assert found is not None
    return found


def filled(folder: Path, steps: int = 3, keep_last: int = 5) -> CheckpointStore:
    checkpoints = opened(folder, keep_last)
    for step in range(1, steps + 1):
        checkpoints.save(state(step), header(step))
    return checkpoints


def names(folder: Path) -> list[str]:
    return [path.name for path in opened(folder).paths()]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])

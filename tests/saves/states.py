"""What the tests of checkpoints share: small states, and folders and URLs filled with them."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from arzbench import store
from arzbench.clock import VirtualClock
from arzbench.digest import digest
from arzbench.records import RunRecord
from arzbench.saves.checkpoints import Checkpoint, CheckpointStore, CompletedSave, Header
from arzbench.saves.read import MANIFEST, SCHEMA, Part, read_manifest
from arzbench.saves.remote import Remote, RemoteSession
from arzbench.training_state import Ring, TrainingState
from tests.run.jobs import dqn, plan, study

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


def flip(path: Path) -> None:
    """A bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def reseal(path: Path, *, version: int = store.VERSIONS[SCHEMA], **changes: Any) -> None:
    """Write a manifest that vouches for `changes`."""
    manifest = msgspec.structs.replace(read_manifest(path), **changes)
    manifest = msgspec.structs.replace(manifest, digest=manifest.expected_digest())
    text = store.encode(SCHEMA, manifest)
    newest = b'"version": %d' % store.VERSIONS[SCHEMA]
    (path / MANIFEST).write_bytes(text.replace(newest, b'"version": %d' % version, 1))


def part_of(file: Path) -> Part:
    content = file.read_bytes()
    return Part(name=file.name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def ring(total: int, capacity: int = 35, history: int = 0) -> Ring:
    """Rows of 20 bytes that tell their own number."""
    arrays = {"x": np.zeros((capacity, 4), np.float32), "y": np.zeros(capacity, np.int32)}
    for row in range(max(0, total - capacity), total):
        arrays["x"][row % capacity] = arrays["y"][row % capacity] = row + 1000 * history
    return Ring(arrays=arrays, total=total)


def save_rows(checkpoints: CheckpointStore, total: int, **changes: int) -> CompletedSave:
    """Save the `ring` of `total` rows."""
    rows = TrainingState(arrays={}, values={"step": total}, tier="exact", ring=ring(total, **changes))
    return checkpoints.save(rows, header(total))


def remote_names(remote: Remote) -> list[str]:
    return [name[-4:] for name in remote.names()]


def run_record(**changes: Any) -> RunRecord:
    job = study(dqn())
    given: dict[str, Any] = {"id": "r1", "created": "2026-01-01", "study": job, "budgets": (600,), "why": ""}
    given |= {"study_digest": digest(job), "quota_s": None, "predicted": None, "host": plan(job).host}
    return RunRecord(**{**given, **changes})


def remote_session(token: str = "a", **changes: Any) -> RemoteSession:
    given: dict[str, Any] = {"run": "r1", "token": token, "machine": f"process 1 on {token}"}
    return RemoteSession(**{**given, "began": "2026-01-01", "budgets": (600,), "sessions": 1, **changes})

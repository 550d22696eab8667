"""The measuring process of `calibrate`: wires a real workload to one burst, and writes what it found."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from arzbench.clock import SystemClock
from arzbench.errors import ArzbenchError, ExitCode
from arzbench.measure.burst import BurstJob, measure_once
from arzbench.run.checkpoint import CheckpointStore
from arzbench.workloads.base import TrainingState


class TrialCheckpoints:
    """Saves and loads as a run does, one checkpoint kept."""

    def __init__(self, folder: Path) -> None:
        self._store = CheckpointStore(folder, keep_last=1)

    def save(self, state: TrainingState) -> int:
        """Write `state`; the bytes written."""
        return self._store.save(state, self._header()).bytes

    def load(self) -> tuple[TrainingState, int]:
        """The state and the bytes read."""
        raise NotImplementedError


def run_worker(task: Path, answer: Path) -> int:
    """Measure the job in `task`, write the result to `answer`; the exit code.

    A problem of the user's making is written beside `answer` for the parent to show.
    """
    from arzbench.workloads.sb3 import SB3Workload

    job = msgspec.json.decode(task.read_bytes(), type=BurstJob)
    clock = SystemClock()

    def say(what: str, fraction: float) -> None:
        print(json.dumps([what, round(fraction, 3)]), flush=True)

    try:
        trial = TrialCheckpoints(Path(job.folder) / f"trial-{job.repetition}")
        result = measure_once(job, SB3Workload(clock), trial, clock, say)
    except ArzbenchError as error:
        told = {"message": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
        answer.with_suffix(".error").write_text(json.dumps(told))
        return int(error.exit_code)
    answer.write_bytes(msgspec.json.encode(result))
    return int(ExitCode.OK)

"""The measuring process of `calibrate`: wires a real workload to one burst, and writes what it found."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import msgspec

from arzbench.clock import Clock, SystemClock
from arzbench.errors import ArzbenchError, ExitCode, StateError
from arzbench.measure.burst import COLD, UNUSED, WARM, BurstJob, measure_once
from arzbench.measure.logcost import measure_sinks
from arzbench.saves.checkpoints import CheckpointStore, Header
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState


class TrialCheckpoints:
    """Saves and loads through the store a run uses; one checkpoint is kept, and written as a whole."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._created = clock.wall().isoformat()

    def save(self, state: TrainingState) -> int:
        """Write `state`; the bytes written."""
        header = Header(
            study="trial",
            training=0,
            num_timesteps=0,
            job_steps=0,
            elapsed_s=0.0,
            sessions=1,
            ledger=0,
            versions={},
            created=self._created,
        )
        self._store = CheckpointStore(self._folder, keep_last=1, clock=self._clock)  # shares nothing
        return self._store.save(state, header).bytes

    def load(self) -> tuple[TrainingState, int]:
        """The state last saved and the bytes read."""
        newest = self._store.newest("trial")
        if newest is None:
            raise StateError("the trial checkpoint cannot be read back", str(self._store.skipped))
        return newest.load(), newest.bytes


_DISPATCHERS = {"numba.core.dispatcher": "Dispatcher", "numba.cuda.dispatcher": "CUDADispatcher"}


def numba_cache() -> str:
    """What Numba's on-disk cache did in this process; code compiled anew each time is cold."""
    kinds = tuple(getattr(sys.modules[m], kind) for m, kind in _DISPATCHERS.items() if m in sys.modules)
    stats = [o.stats for o in gc.get_objects() if issubclass(type(o), kinds)]  # isinstance asks dead proxies
    if any(s.cache_misses for s in stats):
        return COLD
    return WARM if any(s.cache_hits for s in stats) else UNUSED


def _has_messages(config: TrainConfig) -> bool:
    """Whether the env has messages of its own: only then, or where the study logs, do they cost anything."""
    from arzbench.sb3.building import make_env

    env = make_env(config)
    try:
        return hasattr(env.unwrapped, "message_log")
    finally:
        env.close()


def run_worker(task: Path, answer: Path) -> int:
    """Measure the job in `task`, write the result to `answer`; the exit code.

    A problem of the user's making is written beside `answer` for the parent to show.
    """
    from arzbench.sb3.workload import SB3Workload

    job = msgspec.json.decode(task.read_bytes(), type=BurstJob)
    clock = SystemClock()

    def say(what: str, fraction: float) -> None:
        print(json.dumps([what, round(fraction, 3)]), flush=True)

    try:
        trial = TrialCheckpoints(Path(job.folder) / f"trial-{job.repetition}", clock)
        result = measure_once(job, SB3Workload(clock), trial, clock, say, numba_cache)
        if job.config.logging.mode != "off" or _has_messages(job.config):
            say("messages", 0.97)
            sinks = measure_sinks(
                job.config, lambda path: SB3Workload(clock, path), Path(job.folder), clock, job.repetition
            )
            result = msgspec.structs.replace(result, phases=(*result.phases, *sinks), done=clock.now())
    except ArzbenchError as error:
        problem = {"message": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
        answer.with_suffix(".error").write_text(json.dumps(problem))
        return int(error.exit_code)
    answer.write_bytes(msgspec.json.encode(result))
    return int(ExitCode.OK)

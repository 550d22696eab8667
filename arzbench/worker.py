"""A process that a command starts: it measures one repetition, or finds out what the user's own code trains.

python -m arzbench.worker measure|describe TASK ANSWER
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from arzbench import __version__
from arzbench.clock import Clock, SystemClock
from arzbench.errors import ArzbenchError, ExitCode, StateError, leave, tell
from arzbench.measure.burst import COLD, UNUSED, WARM, BurstJob, BurstResult, Say, measure_once
from arzbench.measure.logcost import measure_sinks
from arzbench.saves.checkpoints import CheckpointStore, Header
from arzbench.study import Built
from arzbench.training_state import TrainingState
from arzbench.user_code import loaded_sources, users_trace
from arzbench.wiring.describing import Description, DescriptionTask
from arzbench.workload import AbstractWorkload


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
    gc.unfreeze()
    stats = [o.stats for o in gc.get_objects() if issubclass(type(o), kinds)]  # isinstance asks dead proxies
    if any(s.cache_misses for s in stats):
        return COLD
    return WARM if any(s.cache_hits for s in stats) else UNUSED


def _with_sinks(
    job: BurstJob, measure: Callable[[AbstractWorkload], BurstResult], clock: Clock, say: Say
) -> BurstResult:
    """Measure, and what the env's messages cost by where they go, if there are any."""
    from arzbench.sb3.loading import load

    load([job.config])
    from arzbench.sb3.workload import SB3Workload

    workload = SB3Workload(clock)
    result = measure(workload)
    alone = job.config.vec_env == "subproc"
    if job.config.logging.mode == "off" and (alone or not workload.has_messages):
        return result  # only an env's own messages, or those the study asks for, cost anything
    say("messages", 0.97)
    sinks = measure_sinks(
        job.config, lambda path: SB3Workload(clock, path), Path(job.folder), clock, job.repetition
    )
    return msgspec.structs.replace(result, phases=(*result.phases, *sinks), done=clock.now())


def _of_users_code(
    config: Built, measure: Callable[[AbstractWorkload], BurstResult], clock: Clock
) -> BurstResult:
    """Measure the training of a model that the user's own code builds; what it prints goes to stderr."""
    from arzbench.sb3.user_model import factory_workload
    from arzbench.wiring.scripts import measure_script

    found: list[BurstResult] = []
    with contextlib.redirect_stdout(sys.stderr):
        if config.code.script:
            measure_script(config, clock, lambda workload: found.append(measure(workload)))
        else:
            found.append(measure(factory_workload(clock)))
    return msgspec.structs.replace(found[0], sources=loaded_sources(config.code.script))


def run_worker(task: Path, answer: Path) -> int:
    """Measure the job in `task`, write the result to `answer`; the exit code.

    A problem of the user's making is written beside `answer` for the parent to show.
    """
    job = msgspec.json.decode(task.read_bytes(), type=BurstJob)
    # a script may change the current folder
    job = msgspec.structs.replace(job, folder=str(Path(job.folder).absolute()))
    clock = SystemClock()

    out = sys.stdout

    def say(what: str, fraction: float) -> None:
        print(json.dumps([what, round(fraction, 3)]), file=out, flush=True)

    try:
        trial = TrialCheckpoints(Path(job.folder) / f"trial-{job.repetition}", clock)

        def measure(workload: AbstractWorkload) -> BurstResult:
            return measure_once(job, workload, trial, clock, say, numba_cache)

        if isinstance(job.config, Built):
            result = _of_users_code(job.config, measure, clock)
        else:
            result = _with_sinks(job, measure, clock, say)
    except ArzbenchError as error:
        _write_problem(answer, error, error.message, error.hint)
        return int(error.exit_code)
    except Exception as error:
        if not users_trace(error):
            raise
        _write_problem(
            answer, error, f"{job.config.name} cannot be measured: {type(error).__name__}: {error}"
        )
        return int(ExitCode.FAILURE)
    versions = {"arzbench": __version__, **result.versions}
    answer.write_bytes(msgspec.json.encode(msgspec.structs.replace(result, versions=versions)))
    return int(ExitCode.OK)


def _write_problem(answer: Path, error: Exception, message: str, hint: str = "") -> None:
    """Write down what the command shows, beside `answer`."""
    code = error.exit_code if isinstance(error, ArzbenchError) else ExitCode.FAILURE
    problem = {"message": message, "hint": hint, "exit_code": int(code), "trace": users_trace(error)}
    answer.with_suffix(".error").write_text(json.dumps(problem))


def run_description(task: Path, answer: Path) -> int:
    """Write what a script trains, or factories build, to `answer`; the exit code."""
    from arzbench.sb3.user_model import describe_factory
    from arzbench.wiring.scripts import describe_script

    asked = msgspec.json.decode(task.read_bytes(), type=DescriptionTask)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            built = [describe_factory(config) for config in asked.factories]
            trainings = describe_script(asked.script, asked.arguments) if asked.script else tuple(built)
    except Exception as error:
        if not isinstance(error, ArzbenchError) and not users_trace(error):
            raise
        message = getattr(error, "message", f"{type(error).__name__}: {error}")
        _write_problem(answer, error, message, getattr(error, "hint", ""))
        return int(ExitCode.FAILURE)
    description = Description(trainings=trainings, sources=loaded_sources(asked.script))
    answer.write_bytes(msgspec.json.encode(description))
    return int(ExitCode.OK)


def main() -> None:
    """Carry out what the command line asks for; the exit code tells how it went."""
    what, task, answer = sys.argv[1:]
    # loaded to be measured, as `arzbench run` does before it trains
    importlib.import_module("arzbench.cli").load("run")
    try:
        code = {"measure": run_worker, "describe": run_description}[what](Path(task), Path(answer).absolute())
    except ArzbenchError as error:
        tell(error.message, error.hint)
        code = int(error.exit_code)
    leave(code)


if __name__ == "__main__":
    main()

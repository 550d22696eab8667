"""A user's script as a study: what its calls of `arzbench.learn` train is counted, measured or trained."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.vec_env import VecNormalize

from arzbench import runs
from arzbench.clock import Clock
from arzbench.errors import ExitCode, StateError, UsageError
from arzbench.facts import StopReason
from arzbench.run.job import Job, RunOutcome
from arzbench.saves.remote import Remote
from arzbench.sb3.user_model import UserModelWorkload, apply_evaluation, take_over
from arzbench.study import Built, Study
from arzbench.user_code import users_frames
from arzbench.wiring import session
from arzbench.wiring.run_spec import RunSpec
from arzbench.wiring.tasks import LearnCall, Outcome, Task, tasked
from arzbench.workload import AbstractWorkload

_NOT_TRAINED = Outcome(finished=False, reason=None, detail="not trained: arzbench measures", num_timesteps=0)


class Measured(BaseException):
    """Ends a script when what it was run for is done."""


class Describing(Task):
    """Writes down what each call would train."""

    def __init__(self) -> None:
        self.trainings: list[Built] = []

    def learn(self, call: LearnCall) -> Outcome:
        self.trainings.append(call.config)
        return _NOT_TRAINED


class Measuring(Task):
    """Gives the workload of one call to `measure`, and ends the script."""

    def __init__(self, number: int, clock: Clock, measure: Callable[[AbstractWorkload], None]) -> None:
        self._number, self._clock, self._measure = number, clock, measure

    def learn(self, call: LearnCall) -> Outcome:
        if call.config.code.number != self._number:
            return _NOT_TRAINED
        workload = UserModelWorkload(None, self._clock)
        workload.take(call.model, call.arguments, call.eval_env)
        self._measure(workload)
        raise Measured


def run_script(path: str, arguments: Sequence[str], task: Task) -> None:
    """Run a script as `python PATH ARGUMENTS` would, its calls of `learn` for `task`.

    Raises:
        Exception: what it raised itself.
    """
    argv, before, here = sys.argv, list(sys.path), Path.cwd()
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).absolute().parent))
    try:
        with tasked(task), contextlib.suppress(Measured):
            runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv, sys.path[:] = argv, before
        os.chdir(here)


#: what the library writes of a training
_SAVES = (
    (BaseAlgorithm, "save"),
    (OffPolicyAlgorithm, "save_replay_buffer"),
    (BaseModel, "save"),
    (VecNormalize, "save"),
)


@contextlib.contextmanager
def _nothing_saved() -> Iterator[None]:
    """Within, the library saves nothing: what is only measured must not replace what was trained."""
    with contextlib.ExitStack() as stack:
        for owner, name in _SAVES:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, lambda *args, **kwargs: None)
        yield


def describe_script(path: str, arguments: Sequence[str]) -> tuple[Built, ...]:
    """What a script trains; it is run, in this process, and trains nothing."""
    task = Describing()
    with _nothing_saved():
        try:
            run_script(path, arguments, task)
        except SystemExit:
            if not task.trainings:  # else as it may after a training that is not finished
                raise
    return tuple(task.trainings)


def measure_script(config: Built, clock: Clock, measure: Callable[[AbstractWorkload], None]) -> None:
    """Run the script of `config` up to its call of `learn`, and measure that training."""
    done: list[bool] = []

    def once(workload: AbstractWorkload) -> None:
        measure(workload)
        done.append(True)

    with _nothing_saved():
        run_script(config.code.script, config.code.arguments, Measuring(config.code.number, clock, once))
    if not done:
        raise StateError(
            f"{config.code.script} ended before its call {config.code.number + 1} of arzbench.learn",
            "it trains something else than it did a moment ago",
        )


class _Training(Task):
    """Lets a job train what the calls ask for."""

    def __init__(
        self, job: Job, study: Study, run: runs.Run, states: Path, workload: UserModelWorkload, clock: Clock
    ) -> None:
        self._job, self._study, self._folder, self._states = job, study, run.folder, states
        self._workload, self._clock = workload, clock
        self.called = 0

    def learn(self, call: LearnCall) -> Outcome:
        index = call.config.code.number
        trainings = self._study.trainings
        planned = trainings[index] if index < len(trainings) else None
        if planned is None or planned.workload_digest() != call.config.workload_digest():
            raise UsageError(
                f"{call.config.code.script}: call {index + 1} of arzbench.learn is not what was planned",
                "the script builds another model than before: calibrate it again",
            )
        if call.quota is not None and self._job.left_s is None:
            raise UsageError(
                f"{call.config.code.script} asks for a quota of {call.quota}, arzbench run was given none",
                f"--quota {call.quota}",
            )
        apply_evaluation(call.arguments["callback"], planned.evaluation)
        self.called += 1
        self._workload.take(call.model, call.arguments, call.eval_env)
        self._job.env_errors = call.env_errors
        goes_on = self._job.train(index)
        error = self._job.error
        if error is not None:
            raise error.with_traceback(users_frames(error.__traceback__))
        if self._workload.training is not None:
            self._workload.training.close()
        elif goes_on:
            take_over(self._workload, self._study, index, self._states, self._clock)
        finished = goes_on and self._job.whole(index)
        done = StopReason.FINISHED if finished else StopReason.BUDGET
        return Outcome(
            finished=finished,
            reason=self._job.reason or done,
            detail=self._job.detail,
            num_timesteps=self._job.steps[index],
            elapsed_s=self._job.elapsed_s,
            left_s=self._job.left_s,
            folder=self._folder,
            exit_code=int(ExitCode.OK if finished else ExitCode.MORE_TO_DO),
        )


def carry_out(
    spec: RunSpec, clock: Clock, started: float, run: runs.Run, console: Console, remote: Remote | None
) -> RunOutcome:
    """Train what a script trains, in its order, until it or the session ends."""
    code = spec.study.code
    assert code is not None
    workload = UserModelWorkload(None, clock)
    working = spec.request.working.absolute()  # the script may change the current folder
    spec = replace(spec, request=replace(spec.request, working=working))
    run = msgspec.structs.replace(run, folder=run.folder.absolute())
    states = runs.checkpoints_folder(working, run.record.id)
    with session.opened(spec, clock, started, run, console, remote, workload) as job:
        task = _Training(job, spec.study, run, states, workload, clock)
        try:
            run_script(code.script, code.arguments, task)
        except SystemExit:
            pass  # as it may after a stop
        except Exception as error:
            job.fail(error.with_traceback(users_frames(error.__traceback__)))
        if task.called < len(spec.study.trainings):
            job.stop(f"{code.script} ended after {task.called} of {len(spec.study.trainings)} trainings")
        return job.end()

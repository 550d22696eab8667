"""`arzbench.learn`: takes the place of `model.learn` in the user's own script."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import operator
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from stable_baselines3.common.callbacks import BaseCallback

from arzbench import runs
from arzbench.clock import Clock, SystemClock, process_start
from arzbench.digest import digest
from arzbench.errors import ArzbenchError, ExitCode, UsageError, WillNotFitError
from arzbench.facts import StopReason
from arzbench.limits import AUTO, find_limits
from arzbench.predict.landing import LEAVE_S, kept_free_s
from arzbench.report.console import make_console, say
from arzbench.sb3.user_model import UserModelWorkload, describe, evaluation_env, take_over
from arzbench.study import Built, Code, Evaluation, Study
from arzbench.units import format_duration
from arzbench.user_code import users_frames
from arzbench.wiring import run_spec, session
from arzbench.wiring.planning import Pricing
from arzbench.wiring.tasks import LearnCall, Outcome, current, next_call
from arzbench.workload import StopTraining

#: saves of a training whose script does not say how often
SAVES = 50


def learn(
    model: Any,
    total_timesteps: int,
    *,
    quota: str | float | None = None,
    callback: Any = None,
    eval_env: Any = None,
    eval_freq: int = 10_000,
    n_eval_episodes: int = 5,
    deterministic: bool = True,
    checkpoint_freq: int | None = None,
    folder: str | Path = ".",
    name: str | None = None,
    fresh: bool = False,
    on_stop: Literal["return", "exit"] = "return",
    leave_s: float = LEAVE_S,
    env_errors: int = 0,
    fast: bool = True,
    **arguments: Any,
) -> Outcome:
    """Train `model` as `model.learn(total_timesteps, callback=callback, **arguments)` would, within a quota.

    The weights are those of the library's own `learn`. The training is checkpointed, shows its predicted
    end, stops before the deadline and on SIGTERM, SIGINT and SIGUSR1, and writes a ledger and a report.
    The same script started again builds the same model and goes on exactly where it was; where that cannot
    be promised, it says so.

    Args:
        model: Any model of Stable-Baselines3 or sb3-contrib, with its env. Trained in place.
        total_timesteps: Env steps of the whole training.
        quota: Wall-clock limit of this session, counted from the start of the process: "12h", seconds,
            "auto" for what is left of a known platform's session; None: no limit.
        callback: As in `model.learn`; its plain state is saved with the model's.
        eval_env: Evaluate in this env, between two steps, in seeded episodes; one that is broken off is
            played again after resuming. None: callbacks may evaluate.
        eval_freq: Vectorised steps between two evaluations in `eval_env`.
        n_eval_episodes: Episodes of each.
        deterministic: Whether the policy acts without noise in them.
        checkpoint_freq: A save every so many vectorised steps; None: 50 in the whole training.
        folder: Below it are `reports/` and `checkpoints/`.
        name: Of the training, which goes on whatever the script's arguments are; None: the script's, with
            a number for each further call, and a training of its own for other arguments.
        fresh: Begin anew, even where a run of the same training can go on or is finished.
        on_stop: "exit" leaves the process when the training is not finished, with exit code 4.
        leave_s: Seconds that the script needs after `learn` has returned.
        env_errors: How many exceptions from `step` or `reset` of an env the session goes on after, from the
            newest checkpoint.
        fast: Compute policy and updates without autograd where that was tried to give the library's bits.
        **arguments: Others of `model.learn`: `log_interval`, `progress_bar`, `tb_log_name`,
            `reset_num_timesteps` and an algorithm's own.

    Raises:
        UsageError: What is asked for does not fit together. Nothing was written.
        WillNotFitError: Nothing is left of the quota. Nothing was written.
        StateError: No sound checkpoint of this run is left, or another process trains it.
        Exception: What the user's own code raised; the last sound checkpoint is kept.
    """
    if on_stop not in ("return", "exit"):
        raise UsageError(f"on_stop = {on_stop!r}", '"return" or "exit"')
    total_timesteps = _count("total_timesteps", total_timesteps, 1)
    env_errors = _count("env_errors", env_errors, 0)
    if checkpoint_freq is not None:
        checkpoint_freq = _count("checkpoint_freq", checkpoint_freq, 0)
    if eval_env is not None:
        eval_freq = _count("eval_freq", eval_freq, 1)
        n_eval_episodes = _count("n_eval_episodes", n_eval_episodes, 1)
    if name is not None and (not name.strip(".") or {*name} & {"/", "\\", "\0"}):
        raise UsageError(f"name = {name!r}: it is to be the name of a folder", "letters and digits will do")
    number = next_call()
    before = 0 if arguments.get("reset_num_timesteps", True) else getattr(model, "num_timesteps", 0)
    in_script = hasattr(sys.modules["__main__"], "__file__")  # not so in a notebook
    script, words = (sys.argv[0], sys.argv[1:]) if in_script else ("", [])
    stem = Path(script).stem or "training"
    calls = total_timesteps // getattr(model, "n_envs", 1)
    config = describe(
        model,
        Code(script=script, arguments=tuple(words), number=number),
        name=name or (stem if number == 0 else f"{stem}-{number + 1}"),
        total_timesteps=before + total_timesteps,
        callback=callback,
        checkpoint_freq=max(1, calls // SAVES) if checkpoint_freq is None else checkpoint_freq,
    )
    config = msgspec.structs.replace(config, fast=bool(fast))
    _check_learn(model, total_timesteps, callback, arguments)
    if eval_env is not None:
        if config.evaluated_by_callback:
            raise UsageError("eval_env is given, and a callback evaluates, too", "leave one of them out")
        evaluation = Evaluation(
            eval_freq=eval_freq, n_eval_episodes=n_eval_episodes, deterministic=deterministic
        )
        config = msgspec.structs.replace(config, evaluation=evaluation)
        eval_env = evaluation_env(eval_env)
    call = LearnCall(
        eval_env=eval_env,
        model=model,
        config=config,
        arguments={"callback": callback, **arguments},
        quota=None if quota is None else str(quota) if isinstance(quota, str) else f"{quota}s",
        folder=Path(folder),
        fresh=fresh,
        named=name is not None,
        leave_s=leave_s,
        env_errors=env_errors,
    )
    task = current()
    outcome = _train(call) if task is None else task.learn(call)
    if on_stop == "exit" and not outcome.finished and outcome.reason is not None:
        sys.exit(outcome.exit_code)
    return outcome


def _count(name: str, value: Any, least: int) -> int:
    """`value` as an int; a `UsageError` if it is no whole number, or less than `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        whole = f", for example {int(value)}" if isinstance(value, float) and value >= least else ""
        raise UsageError(f"{name} = {value!r}", f"a whole number, {least} or more{whole}")
    return number


def _check_learn(model: Any, total_timesteps: int, callback: Any, arguments: dict[str, Any]) -> None:
    """Raise a `UsageError` where `model.learn` would refuse what it is given."""
    try:
        inspect.signature(model.learn).bind(total_timesteps, callback=callback, **arguments)
    except TypeError as error:
        raise UsageError(
            f"{type(model).__name__}.learn: {error}", "what arzbench.learn does not know is passed on to it"
        ) from error
    for one in callback if isinstance(callback, list) else [callback]:
        alone = one is callback and (one is None or (callable(one) and not isinstance(one, type)))
        if not alone and not isinstance(one, BaseCallback):
            raise UsageError(
                f"{one!r} is not a callback",
                "an object of a callback's class, a list of such, or a function of (locals, globals)",
            )


@contextlib.contextmanager
def _options_are_arguments() -> Iterator[None]:
    """Within, an error that names options of the command line names arguments of `learn` instead."""

    def reworded(text: str) -> str:
        text = re.sub(r"--quota (\w+)", r'quota="\1"', text)
        return text.replace("--fresh", "fresh=True").replace("--dir", "folder=...")

    try:
        yield
    except ArzbenchError as error:
        error.reword(reworded)
        raise


@_options_are_arguments()
def _train(call: LearnCall) -> Outcome:
    """Train by itself: a run with one training."""
    clock = SystemClock()
    limits = find_limits(call.folder, call.quota, None, clock)
    started, quota_s = _session(call, limits.seconds, clock)
    study = Study(name=call.config.name, trainings=(call.config,))
    earlier = None if call.fresh else _earlier(call, study)
    if earlier is not None:
        study = earlier.record.study  # under a name, the script may have been given other arguments
    ended_before = earlier is not None and earlier.finished
    if (
        quota_s is not None
        and not ended_before
        and (late := _too_late(call, started, quota_s, earlier, clock))
    ):
        return late
    limits = dataclasses.replace(limits, seconds=quota_s)
    pricing = Pricing(working=call.folder)
    goes_on = earlier is not None  # to the whole training, also where `arzbench run` gave it less
    request = run_spec.Request(
        working=call.folder, limits=limits, fresh=call.fresh, extend=goes_on, new_budget=goes_on
    )
    spec = run_spec.of_budgets(
        request, study, (call.config.total_timesteps,), "arzbench.learn", pricing, clock
    )
    spec = dataclasses.replace(spec, leave_s=call.leave_s)
    console = make_console(stderr=True, lasting=True)
    workload = UserModelWorkload(None, clock)
    workload.take(call.model, call.arguments, call.eval_env)
    if earlier is not None and earlier.finished:
        states = runs.checkpoints_folder(call.folder, earlier.record.id)
        take_over(workload, study, 0, states, clock)
        line = f"run {earlier.record.id} is finished: the model is as it ended there; fresh=True trains anew"
        say(console, line)
        return Outcome(
            finished=True,
            reason=StopReason.FINISHED,
            detail="finished in an earlier session",
            num_timesteps=int(call.model.num_timesteps),
            elapsed_s=earlier.summary().elapsed_s,
            folder=earlier.folder,
            exit_code=int(ExitCode.OK),
        )
    run, spec = session.begin_or_resume(spec, clock, earlier, console, None)
    try:
        with session.opened(spec, clock, started, run, console, None, workload) as job:
            job.env_errors = call.env_errors
            job.train_all()
            ended = job.end()
            error = job.error
    except StopTraining as stop:
        raise WillNotFitError(f"nothing could be trained: {stop.detail}", "give it a longer quota") from stop
    if workload.training is not None:
        workload.training.close()
    again = (
        shlex.join([Path(sys.executable).name, *sys.argv]) if sys.argv and sys.argv[0] else "the same again"
    )
    session.show_end(spec, clock, run, ended, console, again)
    if error is not None:
        raise error.with_traceback(users_frames(error.__traceback__))
    return Outcome(
        finished=ended.reason is StopReason.FINISHED,
        reason=ended.reason,
        detail=ended.detail,
        num_timesteps=ended.num_timesteps[0],
        elapsed_s=ended.elapsed_s,
        left_s=ended.slack_s,
        folder=run.folder,
        exit_code=int(ended.exit_code),
    )


def _session(call: LearnCall, seconds: float | None, clock: Clock) -> tuple[float, float | None]:
    """When this session began, and how many `seconds` there are from then.

    The first training of a script counts the imports as its own, further ones begin when they are called, as
    those in a notebook do; the quota is counted from the start of the process for all of them.
    """
    now, born = clock.now(), process_start(clock)
    code = call.config.code
    began = born if code.script and code.number == 0 else now
    if seconds is None:
        return began, None
    return began, (now if call.quota == AUTO else born) + seconds - began


def _too_late(
    call: LearnCall, started: float, quota_s: float, earlier: runs.Run | None, clock: Clock
) -> Outcome | None:
    """How a training ends whose quota is used up before it begins; None: it is not.

    Raises:
        WillNotFitError: it is the first of its script, or in a notebook.
    """
    deadline, now, born = started + quota_s, clock.now(), process_start(clock)
    total_s = deadline - born
    keeps_s = kept_free_s(total_s, uploads=False, leave_s=call.leave_s)
    if deadline - now > keeps_s:
        return None
    if call.config.code.number == 0 or not call.config.code.script:
        raise WillNotFitError(
            f"of the quota of {format_duration(total_s)} nothing is left to train in: this process is "
            f"{format_duration(now - born)} old, and {format_duration(keeps_s)} are for leaving",
            "the quota is counted from the start of the process; for as long from now: "
            f'quota="{math.ceil(now - born + total_s)}s"',
        )
    detail = "the quota was used up before this training"
    say(make_console(stderr=True, lasting=True), f"{call.config.name}: {detail}")
    done = None if earlier is None else earlier.summary()
    stop = None if done is None else done.stop
    return Outcome(
        finished=False,
        reason=StopReason.DEADLINE,
        detail=detail,
        num_timesteps=0 if stop is None else sum(stop.data["num_timesteps"]),
        elapsed_s=0.0 if done is None else done.elapsed_s,
        left_s=deadline - now,
        folder=None if earlier is None else earlier.folder,
    )


def _earlier(call: LearnCall, study: Study) -> runs.Run | None:
    """The newest run of this training."""
    if not call.named:
        return next(iter(runs.of_study(call.folder, digest(study))), None)

    def nameless(one: Study) -> Study:
        trainings = [msgspec.structs.replace(t, code=Code()) for t in one.trainings if isinstance(t, Built)]
        return msgspec.structs.replace(one, trainings=tuple(trainings))

    same = (run for run in runs.newest_first(call.folder) if nameless(run.record.study) == nameless(study))
    return next(same, None)

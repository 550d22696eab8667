"""`arzbench.learn`: takes the place of `model.learn` in the user's own script."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from arzbench import runs
from arzbench.clock import SystemClock, process_start
from arzbench.digest import digest
from arzbench.errors import ExitCode, UsageError, WillNotFitError
from arzbench.facts import StopReason
from arzbench.limits import find_limits
from arzbench.predict.landing import LEAVE_S
from arzbench.report.console import make_console, say
from arzbench.run.job import RunOutcome
from arzbench.sb3.user_model import UserModelWorkload, describe, evaluation_env, take_over
from arzbench.study import Built, Code, Evaluation, Study
from arzbench.wiring import run_spec, session
from arzbench.wiring.planning import Pricing
from arzbench.wiring.tasks import LearnCall, Outcome, current, next_call, users_frames
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
        **arguments: Others of `model.learn`: `log_interval`, `progress_bar`, `tb_log_name`,
            `reset_num_timesteps` and an algorithm's own.

    Raises:
        UsageError: What is asked for does not fit together. Nothing was written.
        StateError: No sound checkpoint of this run is left, or another process trains it.
        Exception: What the user's own code raised; the last sound checkpoint is kept.
    """
    if on_stop not in ("return", "exit"):
        raise UsageError(f"on_stop = {on_stop!r}", '"return" or "exit"')
    if not isinstance(total_timesteps, int) or total_timesteps < 1:
        raise UsageError(f"total_timesteps = {total_timesteps!r}: a number of env steps is needed", "")
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
    )
    task = current()
    outcome = _train(call) if task is None else task.learn(call)
    if on_stop == "exit" and not outcome.finished and outcome.reason is not None:
        sys.exit(outcome.exit_code)
    return outcome


def _train(call: LearnCall) -> Outcome:
    """Train by itself: a run with one training."""
    clock = SystemClock()
    started = process_start(clock)
    limits = find_limits(call.folder, call.quota, None, clock)
    study = Study(name=call.config.name, trainings=(call.config,))
    earlier = None if call.fresh else _earlier(call, study)
    if earlier is not None:
        study = earlier.record.study  # under a name, the script may have been given other arguments
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
    return outcome_of(ended, run.folder)


def _earlier(call: LearnCall, study: Study) -> runs.Run | None:
    """The newest run of this training."""
    if not call.named:
        return next(iter(runs.of_study(call.folder, digest(study))), None)

    def nameless(one: Study) -> Study:
        trainings = [msgspec.structs.replace(t, code=Code()) for t in one.trainings if isinstance(t, Built)]
        return msgspec.structs.replace(one, trainings=tuple(trainings))

    same = (run for run in runs.newest_first(call.folder) if nameless(run.record.study) == nameless(study))
    return next(same, None)


def outcome_of(ended: RunOutcome, folder: Path, training: int = 0) -> Outcome:
    """How one training of a session ended, for its script."""
    return Outcome(
        finished=ended.reason is StopReason.FINISHED,
        reason=ended.reason,
        detail=ended.detail,
        num_timesteps=ended.num_timesteps[training],
        elapsed_s=ended.elapsed_s,
        left_s=ended.slack_s,
        folder=folder,
        exit_code=int(ended.exit_code),
    )

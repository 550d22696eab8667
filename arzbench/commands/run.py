"""`arzbench run`: a plan becomes a training that lands in time."""

from __future__ import annotations

import math
import operator
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console

from arzbench import profiles, runs, store
from arzbench.clock import Clock, SystemClock, process_start
from arzbench.commands.common import (
    Limits,
    find_limits,
    on_device,
    require_training_stack,
    undone,
)
from arzbench.commands.remote import fetch, open_remote, take_up
from arzbench.commands.report import write_summary
from arzbench.commands.resolve import Order, RunOptions, decide, last_budgets
from arzbench.errors import ExitCode, StateError, UsageError, WillNotFitError
from arzbench.measure.host import host_of
from arzbench.predict.remaining import predictor
from arzbench.predict.spread import training_key
from arzbench.quota import ledger_path, reserved
from arzbench.records import Platform, RunRecord, StopReason
from arzbench.report.console import make_console, say
from arzbench.report.run_display import RunDisplay
from arzbench.report.sheets import study_line
from arzbench.run.job import RunOutcome, RunRequest, run_job
from arzbench.run.signals import starting
from arzbench.saves.remote import Remote
from arzbench.saves.uploads import Uploads
from arzbench.study import Study
from arzbench.units import format_duration
from arzbench.workload import StopTraining

#: where the env's own messages go, beside the ledger
MESSAGES = "messages.log"
#: seconds without a step that are reported, where steps are not known to take long
STALL_S = 30.0


def run_run(options: RunOptions) -> int:
    """Decide what to run, begin or resume it, tell how it ended; the exit code."""
    clock = SystemClock()
    started = process_start(clock)
    options.check()
    require_training_stack()
    remote = open_remote(options)
    earlier = runs.find(options.working, options.run_id) if options.run_id is not None else None
    if remote is not None:
        earlier = take_up(options, remote, earlier)
    limits = find_limits(options.working, options.quota, options.platform, clock)
    order = decide(options, clock, earlier, limits)
    on_device(order.study, None)
    # a little before the deadline: an import is not interrupted at once
    left_s = None if order.quota_s is None else started + 0.95 * order.quota_s - 0.3 - clock.now()
    try:
        with starting(left_s):
            return _train(options, clock, started, order, earlier, limits, remote)
    except StopTraining as stop:
        if stop.reason is not StopReason.DEADLINE:
            print("stopped by a signal, nothing was begun", file=sys.stderr)
            return int(ExitCode.MORE_TO_DO)
        said = (
            f"the quota of {format_duration(order.quota_s or 0.0)} is over before anything could be trained"
        )
        raise WillNotFitError(f"{said}: {stop.detail}", "give it a longer one: --quota") from stop


def _train(
    options: RunOptions,
    clock: Clock,
    started: float,
    order: Order,
    earlier: runs.Run | None,
    limits: Limits,
    remote: Remote | None,
) -> int:
    run, order, resumed = _begin_or_resume(options, clock, order, earlier)
    console = make_console(lasting=True)
    _announce(console, run, order, resumed=resumed)
    if limits.how:
        say(console, f"quota: {limits.how}")
    uploads = None
    if remote is not None:
        for line in fetch(options, remote, run):
            say(console, line)
        uploads = Uploads(remote, run.folder / "run.json")
    with _booked(options, clock, started, run, order, limits.platform):
        outcome = _carry_out(options, clock, started, run, order, console, uploads)
    _tell(options, clock, console, run, order, outcome)
    return int(outcome.exit_code)


def _begin_or_resume(
    options: RunOptions, clock: Clock, order: Order, earlier: runs.Run | None
) -> tuple[runs.Run, Order, bool]:
    """The unfinished run of this study with its own budget, or a new run."""
    identity = store.digest(order.study)
    found = earlier or (None if options.fresh else _to_resume(options, identity))
    if found is None and options.extend:
        raise UsageError(
            "no run of this study can be extended", "name the run: --run ID --timesteps N --extend"
        )
    if found is None:
        _check(clock, order.study)
        return _begin(options, clock, order, identity), order, False
    if found.record.study_digest != identity:
        raise UsageError(f"run {found.record.id} is of another study", "leave out --run to begin a new one")
    before = last_budgets(found)
    if options.timesteps is None:
        order = replace(order, budgets=before, why=found.record.why, predicted=found.record.predicted)
    elif not options.extend and any(map(operator.gt, order.budgets, before)):
        raise UsageError(
            f"{order.why} is more than the {sum(before):,} steps of run {found.record.id}",
            "--extend lets its budget grow, its schedules keep their horizon\n--fresh begins a new run",
        )
    if not (found.folder / "run.json").exists():  # it was known by its URL alone
        found = msgspec.structs.replace(found, folder=runs.begin(options.working, found.record).folder)
    return found, order, True


def _to_resume(options: RunOptions, identity: str) -> runs.Run | None:
    """The newest run of the study: an unfinished one, or one to be extended."""
    if not options.extend:
        return runs.unfinished(options.working, identity)
    of_study = (r for r in runs.newest_first(options.working) if r.record.study_digest == identity)
    return next(of_study, None)


def _check(clock: Clock, study: Study) -> None:
    """Raise a `UsageError` if a training cannot be made here, before anything is written."""
    from arzbench.sb3.workload import SB3Workload

    workload = SB3Workload(clock)
    for config in {t.workload_digest(): t for t in study.trainings}.values():
        workload.check(config)


def _begin(options: RunOptions, clock: Clock, order: Order, identity: str) -> runs.Run:
    created = clock.wall()
    first = order.study.trainings[0]
    run_id = runs.free_id(options.working, f"{order.study.name}-{created:%Y%m%dT%H%M%SZ}")
    reports, states = runs.reports_folder(options.working), runs.checkpoints_folder(options.working, run_id)
    with undone(reports), undone(states):
        store.ensure_writable(reports)
        store.ensure_writable(states)
    record = RunRecord(
        id=run_id,
        created=created.isoformat(timespec="milliseconds"),
        study=order.study,
        study_digest=identity,
        budgets=order.budgets,
        why=order.why,
        quota_s=order.quota_s,
        predicted=order.predicted,
        host=host_of(first),
    )
    return runs.begin(options.working, record)


def _announce(console: Console, run: runs.Run, order: Order, *, resumed: bool) -> None:
    quota = "no quota" if order.quota_s is None else f"quota {format_duration(order.quota_s)}"
    lines = [
        f"{'resuming' if resumed else 'run'} {run.record.id}: {study_line(order.study)}",
        f"budget: {sum(order.budgets):,} steps ({order.why}), {quota}",
    ]
    if order.plan is None:
        lines.append(f"no prediction until prices are learned: {order.unpriced}")
    for line in lines:
        say(console, line)


def _booked(
    options: RunOptions, clock: Clock, started: float, run: runs.Run, order: Order, place: Platform
) -> AbstractContextManager[None]:
    """The session in the weekly ledger of its platform, where there is such a limit."""
    if options.plan_file is not None and options.platform is None and order.plan is not None:
        place = order.plan.platform
    if place.weekly_s is None:
        return nullcontext()
    session = f"{run.record.id} {clock.wall():%Y%m%dT%H%M%SZ}"
    limit_s = place.session_s or order.quota_s or place.weekly_s
    return reserved(ledger_path(options.working, place.name), session, clock, started, limit_s)


def _carry_out(
    options: RunOptions,
    clock: Clock,
    started: float,
    run: runs.Run,
    order: Order,
    console: Console,
    uploads: Uploads | None,
) -> RunOutcome:
    from arzbench.sb3.workload import SB3Workload

    request = RunRequest(
        study=order.study,
        budgets=order.budgets,
        quota_s=order.quota_s,
        plan=order.plan,
        run_id=run.record.id,
        run_folder=run.folder,
        checkpoint_folder=runs.checkpoints_folder(options.working, run.record.id),
        session_start=started,
        max_sessions=options.max_sessions,
        stall_s=STALL_S,
        predict=predictor(order.plan, order.study, order.budgets),
        uploads=uploads,
        sessions=run.sessions,
    )
    logged = any(t.logging.mode != "off" for t in order.study.trainings)
    workload = SB3Workload(clock, run.folder / MESSAGES if logged else None)
    return run_job(request, workload, clock, RunDisplay(console))


def _tell(
    options: RunOptions, clock: Clock, console: Console, run: runs.Run, order: Order, outcome: RunOutcome
) -> None:
    """How it ended, predicted against actual, and what to do next."""
    said = f"{outcome.reason.value}{f': {outcome.detail}' if outcome.detail else ''}"
    done = sum(outcome.num_timesteps)
    left = "" if outcome.slack_s is None else f", {format_duration(outcome.slack_s)} before the deadline"
    lines = [
        said,
        f"{done:,} of {sum(order.budgets):,} steps after {format_duration(outcome.elapsed_s)} "
        f"in {outcome.session} session(s){left}",
    ]
    ended = outcome.reason in (StopReason.FINISHED, StopReason.BUDGET)
    said_then = None
    if ended and run.record.predicted is not None:
        predicted = run.record.predicted.p50_s
        lines.append(
            f"predicted {format_duration(predicted)}, actual {format_duration(outcome.elapsed_s)}: "
            f"{outcome.elapsed_s / predicted - 1:+.1%}"
        )
        if outcome.session == 1:
            said_then = profiles.Prediction(
                run_id=run.record.id,
                at=clock.wall().isoformat(timespec="seconds"),
                predicted_p50_s=predicted,
                actual_s=outcome.elapsed_s,
                learned=1.0 if order.plan is None else math.exp(order.plan.spread.log_centre),
                predicted_p90_s=run.record.predicted.p90_s,
                training=training_key(order.study),
                calibration="" if order.plan is None else order.plan.calibration_id,
            )
    lines += outcome.notes
    try:
        if said_then is not None:
            profiles.record_prediction(options.working, run.record.host, said_then)
        lines.append(f"report: {write_summary(run, run.summary())}")
    except StateError as error:  # of a full disk: how the run ended stands
        lines.append(f"no report: {error.message}")
    if not ended and outcome.sessions_left == 0:
        lines.append(f"all {outcome.session} sessions are used; {outcome.session + 1} let it go on:")
    if not ended:
        lines.append(f"next: {_again(options, run, order, outcome)}")
    for line in lines:
        say(console, line)


def _again(options: RunOptions, run: runs.Run, order: Order, outcome: RunOutcome) -> str:
    """The command that continues this run."""
    words = ["arzbench", "run", "--run", run.record.id]
    quota = options.quota
    if quota is None and options.platform is None and order.quota_s is not None:
        quota = f"{order.quota_s:.0f}s"  # the plan file's
    sessions = options.max_sessions
    if sessions is not None:
        sessions = max(sessions, outcome.session + 1)
    prices = options.prices
    for flag, value in (
        ("--quota", quota),
        ("--from", prices.named),
        ("--platform", options.platform),
        ("--max-sessions", sessions),
        ("--checkpoints", options.checkpoints),
        ("--dir", None if options.working == Path() else options.working),
    ):
        if value is not None:
            words += [flag, str(value)]
    words += ["--allow-foreign"] * prices.allow_foreign + ["--allow-expired"] * prices.allow_expired
    return shlex.join(words)

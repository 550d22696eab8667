"""One session of `arzbench run`: a run is begun or resumed, carried out, and its end reported."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import msgspec
from rich.console import Console

from arzbench import profiles, runs, store
from arzbench.clock import Clock
from arzbench.digest import digest
from arzbench.errors import StateError, UsageError
from arzbench.facts import StopReason
from arzbench.measure.host import host_of
from arzbench.predict.remaining import predictor
from arzbench.predict.spread import training_key
from arzbench.quota import ledger_path, reserved
from arzbench.records import RunRecord
from arzbench.report.console import make_console, say
from arzbench.report.run_display import RunDisplay
from arzbench.report.sheets import study_line
from arzbench.report.summary import write_summary
from arzbench.run.job import Job, RunOutcome, RunRequest, open_job
from arzbench.run.progress import told_if_slow
from arzbench.saves.remote import Remote
from arzbench.saves.uploads import Uploads
from arzbench.study import Study
from arzbench.units import format_duration
from arzbench.wiring.checks import undone
from arzbench.wiring.run_spec import Request, RunSpec, last_budgets
from arzbench.workload import AbstractWorkload

#: seconds without a step that are reported, where steps are not known to take long
STALL_S = 30.0


@contextmanager
def opened(
    spec: RunSpec,
    clock: Clock,
    started: float,
    run: runs.Run,
    console: Console,
    remote: Remote | None,
    workload: AbstractWorkload,
) -> Iterator[Job]:
    """The session, its trainings to be asked for."""
    states = runs.checkpoints_folder(spec.request.working, run.record.id)
    uploads = None
    if remote is not None:
        for line in remote.fetch(run.record.study_digest, states):
            say(console, line)
        uploads = Uploads(remote, run.folder / "run.json")
    request = RunRequest(
        study=spec.study,
        budgets=spec.budgets,
        quota_s=spec.quota_s,
        plan=spec.plan,
        run_id=run.record.id,
        run_folder=run.folder,
        checkpoint_folder=states,
        session_start=started,
        max_sessions=spec.request.max_sessions,
        stall_s=STALL_S,
        leave_s=spec.leave_s,
        predict=predictor(spec.plan, spec.study, spec.budgets),
        uploads=uploads,
        sessions=run.sessions,
    )
    with _booked(spec, clock, started, run), open_job(request, workload, clock, RunDisplay(console)) as job:
        yield job


def begin_or_resume(
    spec: RunSpec, clock: Clock, earlier: runs.Run | None, console: Console, workload: AbstractWorkload | None
) -> tuple[runs.Run, RunSpec]:
    """The unfinished run of this study (or `earlier`) with its own budget, or a new run.

    `workload` is asked first whether each training of a new one can be made here; None: it can.
    """
    request = spec.request
    identity = digest(spec.study)
    run = earlier or _to_resume(request, identity)
    if run is None and request.extend:
        raise UsageError(
            "no run of this study can be extended", "name the run: --run ID --timesteps N --extend"
        )
    if run is None:
        if workload is not None:
            waited_for = f"trying {spec.study.trainings[0].env}"
            with told_if_slow(lambda line: say(make_console(stderr=True, lasting=True), line), waited_for):
                _check(workload, spec.study)
        run = _begin(spec, clock, identity)
        _announce(console, run, spec, resumed=False)
        return run, spec
    if run.record.study_digest != identity:
        raise UsageError(f"run {run.record.id} is of another study", "leave out --run to begin a new one")
    before = last_budgets(run)
    if not request.new_budget:
        spec = replace(spec, budgets=before, why=run.record.why, predicted=run.record.predicted)
    elif not request.extend and any(map(operator.gt, spec.budgets, before)):
        raise UsageError(
            f"{spec.why} is more than the {sum(before):,} steps of run {run.record.id}",
            "--extend lets its budget grow, its schedules keep their horizon\n--fresh begins a new run",
        )
    if not (run.folder / "run.json").exists():  # only its URL knew of it
        run = msgspec.structs.replace(run, folder=runs.begin(request.working, run.record).folder)
    _announce(console, run, spec, resumed=True)
    return run, spec


def _to_resume(request: Request, identity: str) -> runs.Run | None:
    """The newest run of the study: an unfinished one, or one to be extended."""
    if request.fresh:
        return None
    if request.extend:
        return next(iter(runs.of_study(request.working, identity)), None)
    return runs.unfinished(request.working, identity)


def _check(workload: AbstractWorkload, study: Study) -> None:
    """Raise a `UsageError` if a training cannot be made here, before anything is written."""
    for config in {t.workload_digest(): t for t in study.trainings}.values():
        workload.check(config)


def _begin(spec: RunSpec, clock: Clock, identity: str) -> runs.Run:
    created, working = clock.wall(), spec.request.working
    run_id = runs.free_id(working, f"{spec.study.name}-{created:%Y%m%dT%H%M%SZ}")
    reports, states = runs.reports_folder(working), runs.checkpoints_folder(working, run_id)
    with undone(reports), undone(states):
        store.ensure_writable(reports)
        store.ensure_writable(states)
    record = RunRecord(
        id=run_id,
        created=created.isoformat(timespec="milliseconds"),
        study=spec.study,
        study_digest=identity,
        budgets=spec.budgets,
        why=spec.why,
        quota_s=spec.quota_s,
        predicted=spec.predicted,
        host=host_of(spec.study.trainings[0]),
    )
    return runs.begin(working, record)


def _announce(console: Console, run: runs.Run, spec: RunSpec, *, resumed: bool) -> None:
    quota = "no quota" if spec.quota_s is None else f"quota {format_duration(spec.quota_s)}"
    lines = [
        f"{'resuming' if resumed else 'run'} {run.record.id}: {study_line(spec.study)}",
        f"budget: {sum(spec.budgets):,} steps ({spec.why}), {quota}",
    ]
    if spec.plan is None:
        lines.append(f"no prediction until prices are learned: {spec.unpriced}")
    if spec.request.limits.how:
        lines.append(f"quota: {spec.request.limits.how}")
    for line in lines:
        say(console, line)


def _booked(spec: RunSpec, clock: Clock, started: float, run: runs.Run) -> AbstractContextManager[None]:
    """The session in the weekly ledger of its platform, where there is such a limit."""
    place = spec.request.limits.platform
    if place.weekly_s is None:
        return nullcontext()
    session = f"{run.record.id} {clock.wall():%Y%m%dT%H%M%SZ}"
    limit_s = place.session_s or spec.quota_s or place.weekly_s
    return reserved(ledger_path(spec.request.working, place.name), session, clock, started, limit_s)


def show_end(
    spec: RunSpec, clock: Clock, run: runs.Run, outcome: RunOutcome, console: Console, again: str
) -> None:
    """How the session ended, predicted against actual, and what to do next: the command `again`."""
    slack = "" if outcome.slack_s is None else f", {format_duration(outcome.slack_s)} before the deadline"
    lines = [
        f"{outcome.reason.value}{f': {outcome.detail}' if outcome.detail else ''}",
        f"{sum(outcome.num_timesteps):,} of {sum(spec.budgets):,} steps after "
        f"{format_duration(outcome.elapsed_s)} in {outcome.session} session(s){slack}",
    ]
    ended = outcome.reason in (StopReason.FINISHED, StopReason.BUDGET)
    # a budget that grew later was not predicted
    predicted = run.record.predicted if spec.budgets == run.record.budgets else None
    if ended and predicted is not None:
        lines.append(
            f"predicted {format_duration(predicted.p50_s)}, actual {format_duration(outcome.elapsed_s)}: "
            f"{outcome.elapsed_s / predicted.p50_s - 1:+.1%}"
        )
    lines += outcome.notes
    try:
        if ended and predicted is not None and outcome.session == 1:
            _record_prediction(spec, clock, run, outcome)
        lines.append(f"report: {write_summary(run, run.summary())}")
    except StateError as error:  # of a full disk: how the run ended stands
        lines.append(f"no report: {error.message}")
    if not ended and outcome.sessions_left == 0:
        lines.append(f"all {outcome.session} sessions are used; {outcome.session + 1} let it go on:")
    if not ended:
        lines.append(f"next: {again}")
    for line in lines:
        say(console, line)


def _record_prediction(spec: RunSpec, clock: Clock, run: runs.Run, outcome: RunOutcome) -> None:
    """Add the run to the host's record of predictions, which the next prediction learns from."""
    assert run.record.predicted is not None
    prediction = profiles.Prediction(
        run_id=run.record.id,
        at=clock.wall().isoformat(timespec="seconds"),
        predicted_p50_s=run.record.predicted.p50_s,
        actual_s=outcome.elapsed_s,
        learned=1.0 if spec.plan is None else math.exp(spec.plan.spread.log_centre),
        predicted_p90_s=run.record.predicted.p90_s,
        training=training_key(spec.study),
        calibration="" if spec.plan is None else spec.plan.calibration_id,
    )
    profiles.record_prediction(spec.request.working, run.record.host, prediction)

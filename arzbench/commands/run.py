"""`arzbench run`: a plan becomes a training that lands in time."""

from __future__ import annotations

import math
import shlex
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from arzbench import profiles, runs, store
from arzbench.clock import Clock, SystemClock, process_start
from arzbench.commands.common import (
    Limits,
    Prices,
    find_limits,
    on_device,
    plan_now,
    require_training_stack,
    undone,
)
from arzbench.commands.report import write_summary
from arzbench.costmodel import Job, centre
from arzbench.errors import UsageError, unknown
from arzbench.measure.host import host_info
from arzbench.quota import ledger_path, reserved
from arzbench.records import Estimate, Plan, Platform, RunRecord, StopReason
from arzbench.report.live import RunDisplay
from arzbench.report.render import make_console, say
from arzbench.report.sheets import study_line
from arzbench.run.predictor import predictor
from arzbench.run.session import RunOutcome, RunRequest, run_job
from arzbench.schedule import budgets_for, count_training
from arzbench.settings import change_study, choose_study
from arzbench.study import Study
from arzbench.units import format_duration

#: where the env's own messages go, beside the ledger
MESSAGES = "messages.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line of `arzbench run`."""

    working: Path
    study: str | None
    env: str | None
    algo: str | None
    changes: tuple[str, ...]
    auto_budget: bool
    plan_file: Path | None
    timesteps: int | None
    option: str
    quota: str | None
    platform: str | None
    confidence: float
    prices: Prices
    device: str | None
    run_id: str | None
    fresh: bool

    def check(self) -> None:
        """Raise a `UsageError` where flags contradict each other or say too little."""
        given = [self.auto_budget, self.plan_file is not None, self.timesteps is not None]
        if sum(given) > 1:
            raise UsageError("--auto-budget, --plan and --timesteps exclude each other", "give one of them")
        if not any(given) and self.run_id is None:
            raise UsageError(
                "how much to train was not said",
                "--auto-budget (what fits the quota), --plan FILE, --timesteps N, or --run ID to continue",
            )
        if self.run_id is not None and self.fresh:
            raise UsageError("--run continues a run and --fresh starts anew", "give one of them")
        if self.device is not None and self.study is None and self.env is None:
            raise UsageError(
                "--device changes a study, and none is named", "add --study NAME, or --env and --algo"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be trained, how far, and the prices known."""

    study: Study
    budgets: tuple[int, ...]
    why: str
    plan: Plan | None  # None: not calibrated, prices are learned on the way
    predicted: Estimate | None
    quota_s: float | None


def run_run(options: RunOptions) -> int:
    """Decide what to run, begin or resume it, tell how it ended; the exit code."""
    clock = SystemClock()
    started = process_start(clock)
    options.check()
    require_training_stack()
    earlier = runs.find(options.working, options.run_id) if options.run_id is not None else None
    limits = find_limits(options.working, options.quota, options.platform, clock)
    order = _order(options, clock, earlier, limits)
    on_device(order.study, None)
    run, order, resumed = _begin_or_resume(options, clock, order, earlier)
    console = make_console()
    _announce(console, run, order, resumed=resumed)
    if limits.how:
        say(console, f"quota: {limits.how}")
    with _booked(options, clock, started, run, order, limits.platform):
        outcome = _carry_out(options, clock, started, run, order, console)
    _tell(options, clock, console, run, order, outcome)
    return int(outcome.exit_code)


def _order(options: RunOptions, clock: Clock, earlier: runs.Run | None, limits: Limits) -> Order:
    quota_s, place = limits.seconds, limits.platform
    if options.plan_file is not None:
        plan = store.load(options.plan_file, "arzbench/plan", Plan, "plan", "make one: arzbench plan")
        return _from_plan(plan, options.option, quota_s if quota_s is not None else plan.quota_s)
    study = earlier.record.study if earlier is not None else _asked_study(options)
    if options.auto_budget:
        plan = _planned(options, clock, study, quota_s, place)
        return _from_plan(plan, options.option, quota_s)
    if study is None:
        study = _newest_study(options)
    if options.timesteps is not None:
        budgets, why = _share(study, options.timesteps), f"--timesteps {options.timesteps:,}"
    else:
        assert earlier is not None
        budgets, why = earlier.record.budgets, earlier.record.why
    plan_or_none = _planned_if_calibrated(options, clock, study, place)
    predicted = None if plan_or_none is None else _predicted(plan_or_none, study, budgets)
    return Order(
        study=study, budgets=budgets, why=why, plan=plan_or_none, predicted=predicted, quota_s=quota_s
    )


def _predicted(plan: Plan, study: Study, budgets: tuple[int, ...]) -> Estimate:
    """The wall time of `budgets`, which no option of the plan is for."""
    models = {m.workload: m for m in plan.models}
    parts = []
    for config, budget in zip(study.trainings, budgets, strict=True):
        if budget:
            model = models[config.workload_digest()]
            schedule = count_training(config, model.facts, budget=budget, state_bytes=model.state_bytes)
            parts.append((model, schedule))
    return Job(parts, plan.spread, cold=plan.platform.fresh_machine).estimate()


def _asked_study(options: RunOptions) -> Study | None:
    study = choose_study(
        options.working,
        study=options.study,
        env=options.env,
        algo=options.algo,
        changes=options.changes,
        timesteps=options.timesteps,
    )
    return study if study is None else on_device(study, options.device)


def _newest_study(options: RunOptions) -> Study:
    """The study of the newest calibration, as `plan` takes it."""
    found = profiles.newest_calibration(options.working, host_info(), None, allow_foreign=True)[1].study
    return change_study(found, options.changes)


def _planned(
    options: RunOptions, clock: Clock, study: Study | None, quota_s: float | None, place: Platform
) -> Plan:
    return plan_now(
        options.working,
        study,
        clock,
        quota_s=quota_s,
        platform=place,
        confidence=options.confidence,
        prices=options.prices,
        flags="",
        changes=options.changes,
    )[0]


def _planned_if_calibrated(options: RunOptions, clock: Clock, study: Study, place: Platform) -> Plan | None:
    """Prices for the guard and the predicted end, where there are any."""
    try:
        return _planned(options, clock, study, None, place)
    except UsageError:
        return None


def _from_plan(plan: Plan, key: str, quota_s: float | None) -> Order:
    by_key = {o.key: o for o in plan.options}
    option = by_key.get(key.upper())
    if option is None and plan.quota_s is None:
        option = plan.options[0]  # without a quota there is one way: the whole study
    if option is None:
        raise unknown("option", key, by_key, "in this plan")
    why = f"option {option.key}, {option.title}"
    return Order(
        study=plan.study,
        budgets=option.budgets,
        why=why,
        plan=plan,
        predicted=option.estimate,
        quota_s=quota_s,
    )


def _share(study: Study, timesteps: int) -> tuple[int, ...]:
    """`timesteps` shared among the trainings in the study's proportions, in whole rollouts."""
    total = study.total_timesteps
    if timesteps > total:
        raise UsageError(
            f"--timesteps {timesteps:,} is more than the study's {total:,}, where its schedules end",
            "raise its horizon: --set total_timesteps=N",
        )
    if timesteps == total:
        return tuple(t.total_timesteps for t in study.trainings)
    budgets = budgets_for(study, timesteps / total)
    if not any(budgets):
        least = max(t.rollout_steps for t in study.trainings)
        raise UsageError(f"--timesteps {timesteps} is less than one rollout", f"at least --timesteps {least}")
    return budgets


def _begin_or_resume(
    options: RunOptions, clock: Clock, order: Order, earlier: runs.Run | None
) -> tuple[runs.Run, Order, bool]:
    """The unfinished run of this study with its own budget, or a new run."""
    identity = store.digest(order.study)
    found = earlier or (None if options.fresh else runs.unfinished(options.working, identity))
    if found is None:
        _check(clock, order.study)
        return _begin(options, clock, order, identity), order, False
    if found.record.study_digest != identity:
        raise UsageError(f"run {found.record.id} is of another study", "leave out --run to begin a new one")
    if options.timesteps is None:
        order = Order(
            study=order.study,
            budgets=found.record.budgets,
            why=found.record.why,
            plan=order.plan,
            predicted=found.record.predicted,
            quota_s=order.quota_s,
        )
    return found, order, True


def _check(clock: Clock, study: Study) -> None:
    """Raise a `UsageError` if a training cannot be made here, before anything is written."""
    from arzbench.workloads.sb3 import SB3Workload

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
        host=host_info(first.device, first.torch_threads),
    )
    return runs.begin(options.working, record)


def _announce(console: Console, run: runs.Run, order: Order, *, resumed: bool) -> None:
    quota = "no quota" if order.quota_s is None else f"quota {format_duration(order.quota_s)}"
    lines = [
        f"{'resuming' if resumed else 'run'} {run.record.id}: {study_line(order.study)}",
        f"budget: {sum(order.budgets):,} steps ({order.why}), {quota}",
    ]
    if order.plan is None:
        lines.append("not calibrated: no prediction until prices are learned (arzbench calibrate)")
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
    options: RunOptions, clock: Clock, started: float, run: runs.Run, order: Order, console: Console
) -> RunOutcome:
    from arzbench.workloads.sb3 import SB3Workload

    request = RunRequest(
        study=order.study,
        budgets=order.budgets,
        quota_s=order.quota_s,
        plan=order.plan,
        run_id=run.record.id,
        run_folder=run.folder,
        checkpoint_folder=runs.checkpoints_folder(options.working, run.record.id),
        session_start=started,
        predict=predictor(order.plan, order.study, order.budgets),
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
                learned=1.0 if order.plan is None else math.exp(centre(order.plan.spread)),
            )
            profiles.record_prediction(options.working, run.record.host, said_then)
    lines += outcome.notes
    lines.append(f"report: {write_summary(run, run.summary())}")
    if not ended:
        lines.append(f"next: {_again(options, run, order)}")
    for line in lines:
        say(console, line)


def _again(options: RunOptions, run: runs.Run, order: Order) -> str:
    """The command that continues this run."""
    words = ["arzbench", "run", "--run", run.record.id]
    quota = options.quota
    if quota is None and options.platform is None and order.quota_s is not None:
        quota = f"{order.quota_s:.0f}s"  # the plan file's
    for flag, value in (("--quota", quota), ("--platform", options.platform)):
        if value is not None:
            words += [flag, value]
    if options.working != Path():
        words += ["--dir", str(options.working)]
    return shlex.join(words)

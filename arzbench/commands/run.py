"""`arzbench run`: a plan becomes a training that lands in time."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from arzbench.errors import ExitCode, UsageError, WillNotFitError
from arzbench.options import (
    AlgoOption,
    CheckpointsOption,
    ConfidenceOption,
    DeviceOption,
    DirOption,
    EnvOption,
    ExpiredOption,
    ForeignOption,
    FromOption,
    PlatformOption,
    QuotaOption,
    SetOption,
    StudyOption,
    count,
    switch,
    takes,
    value,
)

if TYPE_CHECKING:
    from arzbench.clock import Clock
    from arzbench.run.job import RunOutcome
    from arzbench.runs import Run
    from arzbench.saves.remote import Remote
    from arzbench.study import Study
    from arzbench.wiring.planning import Limits, Pricing
    from arzbench.wiring.run_spec import RunSpec


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)  # made at every start
class RunFlags:
    """The command line of `arzbench run`."""

    study: StudyOption = None
    env: EnvOption = None
    algo: AlgoOption = None
    changes: SetOption = None
    auto_budget: Annotated[bool, switch("--auto-budget", "Plan now, and train what fits the quota.")] = False
    plan_file: Annotated[Path | None, value("--plan", "FILE", "Carry out this plan file.")] = None
    timesteps: Annotated[int | None, count("--timesteps", "Train this many steps, planned or not.")] = None
    extend: Annotated[
        bool, switch("--extend", "Let --timesteps be more than before; schedules keep their horizon.")
    ] = False
    max_sessions: Annotated[int | None, count("--max-sessions", "Sessions this run may have in all.")] = None
    checkpoints: CheckpointsOption = None
    option: Annotated[str, value("--option", "A|B|C", "Which option of the plan.")] = "B"
    quota: QuotaOption = None
    platform: PlatformOption = None
    confidence: ConfidenceOption = 0.95
    source: FromOption = None
    allow_foreign: ForeignOption = False
    allow_expired: ExpiredOption = False
    device: DeviceOption = None
    run_id: Annotated[str | None, value("--run", "ID", "Continue this run.")] = None
    fresh: Annotated[bool, switch("--fresh", "Start anew even if a run can be resumed.")] = False
    log_period: Annotated[
        str | None, value("--log-period", "N|every|off|auto", "How often messages are written.")
    ] = None
    dry_run: Annotated[
        bool, switch("--dry-run", "Only simulate it at the plan's prices; nothing is written.")
    ] = False
    folder: DirOption = Path()
    as_json: Annotated[bool, switch("--json", "With --dry-run: print JSON instead of tables.")] = False

    @property
    def budgeted(self) -> bool:
        """Whether they say how much to train."""
        return self.auto_budget or self.plan_file is not None or self.timesteps is not None

    def check(self) -> None:
        """Raise a `UsageError` where flags contradict each other or say too little."""
        if self.auto_budget + (self.plan_file is not None) + (self.timesteps is not None) > 1:
            raise UsageError("--auto-budget, --plan and --timesteps exclude each other", "give one of them")
        if not self.budgeted and self.run_id is None and self.checkpoints is None:
            raise UsageError(
                "how much to train was not said",
                "--auto-budget (what fits the quota), --plan FILE, --timesteps N, or --run ID to continue",
            )
        if self.checkpoints is not None and self.fresh:
            raise UsageError(
                "--checkpoints goes on from what is at its URL and --fresh starts anew",
                "leave out --fresh: a URL without checkpoints begins a new run",
            )
        if self.run_id is not None and self.fresh:
            raise UsageError("--run continues a run and --fresh starts anew", "give one of them")
        if self.extend and (self.timesteps is None or self.fresh):
            raise UsageError(
                "--extend lets the budget of a run grow, and no new budget is given"
                if self.timesteps is None
                else "--extend lets the budget of a run grow and --fresh starts anew",
                "for example: arzbench run --run ID --timesteps N --extend",
            )
        if self.dry_run and (self.run_id is not None or self.checkpoints is not None):
            raise UsageError(
                "--dry-run simulates a run from its beginning", "leave out --run and --checkpoints"
            )
        if self.as_json and not self.dry_run:
            raise UsageError("--json belongs to --dry-run", "afterwards: arzbench report --json")
        if self.device is not None and self.study is None and self.env is None:
            raise UsageError(
                "--device changes a study, and none is named", "add --study NAME, or --env and --algo"
            )


@takes(RunFlags)
def run(flags: RunFlags) -> ExitCode:
    """Train: checkpointed, resumed by itself when started again, landed before the deadline."""
    from arzbench import runs
    from arzbench.clock import SystemClock, process_start
    from arzbench.facts import StopReason
    from arzbench.predict.landing import LEAVE_S
    from arzbench.run.signals import starting
    from arzbench.units import format_duration
    from arzbench.wiring.checks import on_device, require_training_stack
    from arzbench.wiring.planning import find_limits
    from arzbench.wiring.remote import open_remote, take_up
    from arzbench.workload import StopTraining

    if flags.log_period is not None:
        flags = replace(flags, changes=_with_log_period(flags, flags.log_period))
    clock = SystemClock()
    started = process_start(clock)
    flags.check()
    if flags.dry_run:
        return _dry_run(flags, clock)
    require_training_stack()
    remote = None if flags.checkpoints is None else open_remote(flags.checkpoints)
    earlier = runs.find(flags.folder, flags.run_id) if flags.run_id is not None else None
    if remote is not None:
        earlier = take_up(remote, flags.folder, earlier, _study(flags), budgeted=flags.budgeted)
    limits = find_limits(flags.folder, flags.quota, flags.platform, clock)
    spec = resolve(flags, clock, earlier, limits)
    require_training_stack(spec.study)
    on_device(spec.study, None)
    # a little before the deadline: an import is not interrupted at once
    left_s = None if spec.quota_s is None else started + 0.95 * spec.quota_s - LEAVE_S - clock.now()
    try:
        with starting(left_s):
            return _train(flags, clock, started, spec, earlier, remote)
    except StopTraining as stop:
        if stop.reason is not StopReason.DEADLINE:
            print("stopped by a signal, nothing was begun", file=sys.stderr)
            return ExitCode.MORE_TO_DO
        quota = format_duration(spec.quota_s or 0.0)
        raise WillNotFitError(
            f"the quota of {quota} is over before anything could be trained: {stop.detail}",
            "give it a longer one: --quota",
        ) from stop


def _train(
    flags: RunFlags, clock: Clock, started: float, spec: RunSpec, earlier: Run | None, remote: Remote | None
) -> ExitCode:
    from arzbench.report.console import make_console
    from arzbench.wiring import session

    console = make_console(lasting=True)
    begun, spec = session.begin_or_resume(spec, clock, earlier, console)
    outcome = session.carry_out(spec, clock, started, begun, console, remote)
    session.show_end(spec, clock, begun, outcome, console, _again(flags, spec, begun, outcome))
    return outcome.exit_code


def _dry_run(flags: RunFlags, clock: Clock) -> ExitCode:
    from arzbench.wiring.dry_run import dry_run
    from arzbench.wiring.planning import find_limits

    limits = find_limits(flags.folder, flags.quota, flags.platform, clock)
    dry_run(resolve(flags, clock, None, limits), as_json=flags.as_json)
    return ExitCode.OK


def resolve(flags: RunFlags, clock: Clock, earlier: Run | None, limits: Limits) -> RunSpec:
    """What `flags` amount to; `earlier` is the run they name.

    Raises:
        UsageError: they ask for what there is not, or for more than the study has.
    """
    from arzbench import store
    from arzbench.records import Plan
    from arzbench.wiring import run_spec
    from arzbench.wiring.planning import Pricing

    request = run_spec.Request(
        working=flags.folder,
        limits=limits,
        fresh=flags.fresh,
        extend=flags.extend,
        new_budget=flags.timesteps is not None,
        max_sessions=flags.max_sessions,
    )
    quota_s = limits.seconds
    if flags.plan_file is not None:
        plan = store.load(flags.plan_file, "arzbench/plan", Plan, "plan", "make one: arzbench plan")
        if flags.platform is None:
            request = replace(request, limits=replace(limits, platform=plan.platform))
        spec = run_spec.of_plan(request, plan, flags.option, plan.quota_s if quota_s is None else quota_s)
        if flags.checkpoints is not None and not plan.uploads:
            return replace(spec, why=f"{spec.why}; planned without --checkpoints")
        return spec
    pricing = Pricing(
        working=flags.folder,
        named=flags.source,
        allow_foreign=flags.allow_foreign,
        allow_expired=flags.allow_expired,
        confidence=flags.confidence,
        changes=tuple(flags.changes or ()),
        uploads=flags.checkpoints is not None,
    )
    study = earlier.record.study if earlier is not None else _study(flags)
    if flags.auto_budget:
        plan, _ = pricing.plan(study, clock, quota_s, limits.platform)
        return run_spec.of_plan(request, plan, flags.option, quota_s)
    study = study if study is not None else _newest_study(pricing)
    if flags.timesteps is None:
        assert earlier is not None
        return run_spec.of_budgets(
            request, study, run_spec.last_budgets(earlier), earlier.record.why, pricing, clock
        )
    budgets = run_spec.share(study, flags.timesteps, beyond=flags.extend)
    return run_spec.of_budgets(request, study, budgets, f"--timesteps {flags.timesteps:,}", pricing, clock)


def _study(flags: RunFlags) -> Study | None:
    """The study that `flags` name, with their changes; None where they name none."""
    from arzbench.choose_study import choose_study
    from arzbench.wiring.checks import on_device

    study = choose_study(
        flags.folder,
        study=flags.study,
        env=flags.env,
        algo=flags.algo,
        changes=flags.changes or (),
        timesteps=flags.timesteps,
    )
    return study if study is None else on_device(study, flags.device)


def _newest_study(pricing: Pricing) -> Study:
    """The study of the newest calibration, as `plan` takes it."""
    from arzbench.measure.host import host_info
    from arzbench.profiles import newest_calibration
    from arzbench.study_changes import change_study

    calibration = newest_calibration(pricing.working, host_info(), None, allow_foreign=True)[1]
    return change_study(calibration.study, pricing.changes)


def _with_log_period(flags: RunFlags, log_period: str) -> list[str]:
    from arzbench.wiring.log_period import logging_changes

    changes = flags.changes or ()
    return [*logging_changes(flags.folder, flags.study, flags.env, flags.algo, changes, log_period)]


def _again(flags: RunFlags, spec: RunSpec, begun: Run, outcome: RunOutcome) -> str:
    """The command that continues this run."""
    words = ["arzbench", "run", "--run", begun.record.id]
    quota = flags.quota
    if quota is None and flags.platform is None and spec.quota_s is not None:
        quota = f"{spec.quota_s:.0f}s"  # the plan file's
    sessions = flags.max_sessions
    if sessions is not None:
        sessions = max(sessions, outcome.session + 1)
    for flag, given in (
        ("--quota", quota),
        ("--from", flags.source),
        ("--platform", flags.platform),
        ("--max-sessions", sessions),
        ("--checkpoints", flags.checkpoints),
        ("--dir", None if flags.folder == Path() else flags.folder),
    ):
        if given is not None:
            words += [flag, str(given)]
    words += ["--allow-foreign"] * flags.allow_foreign + ["--allow-expired"] * flags.allow_expired
    return shlex.join(words)

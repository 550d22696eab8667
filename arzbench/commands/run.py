"""`arzbench run`: a plan becomes a training that lands in time."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec

from arzbench import options, runs, store
from arzbench.clock import Clock, SystemClock, process_start
from arzbench.digest import digest
from arzbench.errors import ExitCode, UsageError, WillNotFitError
from arzbench.facts import StopReason
from arzbench.limits import Limits, find_limits
from arzbench.logs.periodic import AUTO_SHARE, parse_period
from arzbench.measure.host import host_info, host_of
from arzbench.options import count, switch, takes, value
from arzbench.predict.landing import LEAVE_S
from arzbench.profiles import newest_calibration
from arzbench.records import Plan
from arzbench.report.console import make_console
from arzbench.report.message_sheets import auto_period
from arzbench.run.job import RunOutcome
from arzbench.run.signals import starting
from arzbench.saves.remote import Remote
from arzbench.study import Study
from arzbench.study_changes import change_study
from arzbench.units import format_duration
from arzbench.wiring import run_spec, session
from arzbench.wiring.checks import on_device, require_training_stack
from arzbench.wiring.describing import Naming, is_script
from arzbench.wiring.dry_run import dry_run
from arzbench.wiring.planning import Pricing
from arzbench.wiring.run_spec import RunSpec
from arzbench.workload import AbstractWorkload, StopTraining

#: where the envs' own messages go, beside the ledger
MESSAGES = "messages.log"


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The command line of `arzbench run`."""

    script: options.Script = None
    arguments: options.Arguments = None
    factory: options.Factory = None
    study: options.Study = None
    env: options.Env = None
    algo: options.Algo = None
    changes: options.Set = None
    auto_budget: Annotated[bool, switch("--auto-budget", "Plan now, and train what fits the quota.")] = False
    plan_file: Annotated[Path | None, value("--plan", "FILE", "Carry out this plan file.")] = None
    timesteps: Annotated[int | None, count("--timesteps", "Train this many steps, planned or not.")] = None
    extend: Annotated[
        bool, switch("--extend", "Let --timesteps be more than before; schedules keep their horizon.")
    ] = False
    max_sessions: Annotated[int | None, count("--max-sessions", "Sessions this run may have in all.")] = None
    checkpoints: options.Checkpoints = None
    option: Annotated[str, value("--option", "A|B|C", "Which option of the plan.")] = "B"
    quota: options.Quota = None
    platform: options.Platform = None
    confidence: options.Confidence = 0.95
    source: options.From = None
    allow_foreign: options.Foreign = False
    allow_expired: options.Expired = False
    device: options.Device = None
    run_id: Annotated[str | None, value("--run", "ID", "Continue this run.")] = None
    fresh: Annotated[bool, switch("--fresh", "Start anew even if a run can be resumed.")] = False
    log_period: Annotated[
        str | None, value("--log-period", "N|every|off|auto", "How often messages are written.")
    ] = None
    dry_run: Annotated[
        bool, switch("--dry-run", "Only simulate it at the plan's prices; nothing is written.")
    ] = False
    folder: options.Dir = Path()
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
        if self.device is not None and (self.script or self.factory) is not None:
            raise UsageError(
                "--device changes a study, and your own code builds the model", "change it there"
            )
        if self.device is not None and self.study is None and self.env is None:
            raise UsageError(
                "--device changes a study, and none is named", "add --study NAME, or --env and --algo"
            )


@takes(RunFlags)
def run(flags: RunFlags) -> ExitCode:
    """Train: checkpointed, resumed by itself when started again, landed before the deadline."""
    clock = SystemClock()
    started = process_start(clock)
    flags.check()
    if flags.log_period is not None:
        flags = replace(flags, changes=logging_changes(flags, flags.log_period))
    limits = find_limits(flags.folder, flags.quota, flags.platform, clock)
    if flags.dry_run:
        dry_run(resolve(flags, clock, None, limits), as_json=flags.as_json)
        return ExitCode.OK
    require_training_stack()
    remote = None if flags.checkpoints is None else Remote(flags.checkpoints)
    if remote is not None:
        remote.check()
    earlier = runs.find(flags.folder, flags.run_id) if flags.run_id is not None else None
    if remote is not None:
        earlier = take_up(remote, flags.folder, earlier, _study(flags), budgeted=flags.budgeted)
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
    flags: RunFlags,
    clock: Clock,
    started: float,
    spec: RunSpec,
    earlier: runs.Run | None,
    remote: Remote | None,
) -> ExitCode:
    console = make_console(lasting=True)
    if is_script(spec.study):
        from arzbench.wiring.scripts import carry_out

        begun, spec = session.begin_or_resume(spec, clock, earlier, console, None)
        outcome = carry_out(spec, clock, started, begun, console, remote)
    else:
        workload = workload_for(spec.study, clock)
        begun, spec = session.begin_or_resume(spec, clock, earlier, console, workload)
        if any(t.logging.mode != "off" for t in spec.study.trainings):
            workload = workload_for(spec.study, clock, begun.folder / MESSAGES)
        with session.opened(spec, clock, started, begun, console, remote, workload) as job:
            job.train_all()
            outcome = job.end()
    session.show_end(spec, clock, begun, outcome, console, _again(flags, spec, begun, outcome))
    if outcome.trace:
        print(f"in your code:\n{outcome.trace}", file=sys.stderr)
    return outcome.exit_code


def workload_for(study: Study, clock: Clock, log_path: Path | None = None) -> AbstractWorkload:
    """What trains `study` in this process; messages of its envs are appended to `log_path`."""
    if study.built:
        from arzbench.sb3.user_model import MixedWorkload

        return MixedWorkload(clock, log_path)
    from arzbench.sb3.loading import load

    load(study.trainings)
    from arzbench.sb3.workload import SB3Workload

    return SB3Workload(clock, log_path)


def resolve(flags: RunFlags, clock: Clock, earlier: runs.Run | None, limits: Limits) -> RunSpec:
    """What `flags` amount to; `earlier` is the run they name.

    Raises:
        UsageError: they ask for what there is not, or for more than the study has.
    """
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
    naming = Naming(
        script=flags.script,
        arguments=flags.arguments or (),
        factory=flags.factory,
        study=flags.study,
        env=flags.env,
        algo=flags.algo,
        changes=flags.changes or (),
        timesteps=flags.timesteps,
    )
    study = naming.find(flags.folder)
    return study if study is None else on_device(study, flags.device)


def _newest_study(pricing: Pricing) -> Study:
    """The study of the newest calibration, as `plan` takes it."""
    calibration = newest_calibration(pricing.working, host_info(), None, allow_foreign=True)[1]
    return change_study(calibration.study, pricing.changes)


def _again(flags: RunFlags, spec: RunSpec, begun: runs.Run, outcome: RunOutcome) -> str:
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


def logging_changes(flags: RunFlags, text: str) -> list[str]:
    """The changes of `flags` with those that make the study log as `text` says: N, every, off or auto.

    Auto is the smallest period under which messages add less than 1 % to a training step, as the newest
    calibration of this host measured it; off where there is none.

    Raises:
        UsageError: no such period, no study is named, or nothing was measured.
    """
    study = _study(flags)
    if study is None:
        raise UsageError(
            "--log-period changes a study, and none is named", "add --study NAME, or --env and --algo"
        )
    if text.strip().lower() == "auto":
        calls = _measured_period(flags.folder, study)
        mode = "off" if calls is None else "periodic"
    else:
        rule = parse_period(text)
        calls = None if rule is None else rule.calls
        if rule is not None and calls is None:
            raise UsageError(
                f"--log-period {text!r}: a run's messages go by calls", "1000, every, off or auto"
            )
        mode = "off" if calls is None else "every" if calls == 1 else "periodic"
    period = [] if calls is None else [f"logging.log_period={calls}"]
    return [*(flags.changes or ()), f"logging.mode={mode}", *period]


def _measured_period(working: Path, study: Study) -> int | None:
    first = study.trainings[0]
    _, calibration = newest_calibration(working, host_of(first), study, allow_foreign=False)
    samples = calibration.find(first.workload_digest())
    assert samples is not None
    if not any(":" in item.variant for item in samples.phases):
        raise UsageError(
            f"the calibration {calibration.id} did not measure what messages cost by where they go",
            f"measure it ({AUTO_SHARE:.0%} is the limit): arzbench calibrate --set logging.mode=periodic",
        )
    return auto_period(samples)


def take_up(
    remote: Remote, working: Path, named: runs.Run | None, study: Study | None, *, budgeted: bool
) -> runs.Run | None:
    """The run whose checkpoints are at the URL, not yet written down here; `named` where there is none.

    Raises:
        UsageError: it is another run, or of another study, than asked for, or nothing says what to train.
    """
    record = remote.run_record()
    if record is None:
        if named is None and not budgeted:
            raise UsageError(
                f"how much to train was not said, and {remote.url} holds no run to go on with",
                "--auto-budget (what fits the quota), --plan FILE or --timesteps N",
            )
        return named
    other = f"{remote.url} holds the checkpoints of run {record.id}"
    if named is not None and named.record.id != record.id:
        raise UsageError(f"{other}, not of {named.record.id}", "name another URL, or leave out --run")
    if study is not None and digest(study) != record.study_digest:
        raise UsageError(f"{other}, which is of another study", "name another URL for this study")
    here = [one for one in runs.newest_first(working) if one.record.id == record.id]
    taken = here[0] if here else runs.Run(folder=runs.reports_folder(working) / record.id, record=record)
    newest = remote.session()
    if newest is None or newest.run != record.id:
        return taken
    if len(newest.budgets) != len(record.budgets) or min(newest.sessions, *newest.budgets) < 0:
        raise UsageError(f"{remote.url}/session.json does not fit its run.json", "remove it")
    return msgspec.structs.replace(taken, sessions=newest.sessions, budgets=newest.budgets)

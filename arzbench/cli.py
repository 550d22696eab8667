"""The command line: options, errors and exit codes. What a command does is in `arzbench.commands`.

Nothing heavy is imported here: `arzbench --help` needs neither torch, numba nor gymnasium.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from arzbench import __version__
from arzbench.cli_checkpoint import checkpoint
from arzbench.cli_compare import compare
from arzbench.cli_validate import validate
from arzbench.errors import ArzbenchError, ExitCode, leave, tell, unknown
from arzbench.options import (
    AlgoOption,
    AutoBudgetOption,
    CheckpointsOption,
    ConfidenceOption,
    DeviceOption,
    DirOption,
    EnvOption,
    ExpiredOption,
    ExtendOption,
    ForeignOption,
    FromOption,
    JsonOption,
    LogPeriodOption,
    PlanFileOption,
    PlanOutputOption,
    PlatformOption,
    QuickOption,
    QuotaOption,
    RecordOption,
    SessionsOption,
    SetOption,
    StudyOption,
    TimestepsOption,
    optional_count,
    parse_count,
    parse_folder,
    parse_probability,
)

_EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 will not fit the quota, 4 stopped with more to do, "
    "5 the same, with no session left. "
    "Start with: arzbench calibrate, then arzbench plan --quota 12h."
)


class _Commands(TyperGroup):
    """An unknown command is told with the valid ones."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown("command", args[0], [n for n in self.commands if not n.startswith("_")])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="arzbench",
    cls=_Commands,
    help="Will this training fit, and if not, what will? Measure, plan, run and report a reinforcement-"
    "learning training under a wall-clock quota.",
    epilog=_EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"arzbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def calibrate(
    study: StudyOption = None,
    env: EnvOption = None,
    algo: AlgoOption = None,
    changes: SetOption = None,
    timesteps: Annotated[
        str | None, typer.Option("--timesteps", metavar="N", help="total_timesteps with --env and --algo.")
    ] = None,
    device: DeviceOption = None,
    steps: Annotated[
        str, typer.Option("--steps", metavar="N", help="Measure at least this many training steps.")
    ] = "100",
    repetitions: Annotated[
        str, typer.Option("--repetitions", metavar="N", help="Fresh processes; the first has cold caches.")
    ] = "4",
    max_time: Annotated[
        str, typer.Option("--max-time", metavar="TIME", help="Measure no longer than about this.")
    ] = "60s",
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Measure what each phase of a training costs here, with and without logging."""
    from arzbench.commands.calibrate import run_calibrate

    run_calibrate(
        working=parse_folder(folder),
        study=study,
        env=env,
        algo=algo,
        changes=changes or [],
        timesteps=optional_count("--timesteps", timesteps),
        device=device,
        steps=parse_count("--steps", steps),
        repetitions=parse_count("--repetitions", repetitions, least=2),
        max_time=max_time,
        as_json=as_json,
    )


@app.command()
def plan(
    study: StudyOption = None,
    env: EnvOption = None,
    algo: AlgoOption = None,
    changes: SetOption = None,
    quota: QuotaOption = None,
    platform: PlatformOption = None,
    confidence: ConfidenceOption = "0.95",
    source: FromOption = None,
    allow_foreign: ForeignOption = False,
    allow_expired: ExpiredOption = False,
    checkpoints: CheckpointsOption = None,
    folder: DirOption = Path(),
    output: PlanOutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what fits: wall times with intervals, a safe budget, and three ways to spend the quota."""
    from arzbench.commands.common import Prices
    from arzbench.commands.plan import run_plan

    run_plan(
        working=parse_folder(folder),
        study=study,
        env=env,
        algo=algo,
        changes=changes or [],
        quota=quota,
        platform=platform,
        confidence=parse_probability("--confidence", confidence),
        prices=Prices(named=source, allow_foreign=allow_foreign, allow_expired=allow_expired),
        checkpoints=checkpoints,
        output=output,
        as_json=as_json,
    )


@app.command()
def run(
    study: StudyOption = None,
    env: EnvOption = None,
    algo: AlgoOption = None,
    changes: SetOption = None,
    auto_budget: AutoBudgetOption = False,
    plan_file: PlanFileOption = None,
    timesteps: TimestepsOption = None,
    extend: ExtendOption = False,
    max_sessions: SessionsOption = None,
    checkpoints: CheckpointsOption = None,
    option: Annotated[str, typer.Option("--option", metavar="A|B|C", help="Which option of the plan.")] = "B",
    quota: QuotaOption = None,
    platform: PlatformOption = None,
    confidence: ConfidenceOption = "0.95",
    source: FromOption = None,
    allow_foreign: ForeignOption = False,
    allow_expired: ExpiredOption = False,
    device: DeviceOption = None,
    run_id: Annotated[str | None, typer.Option("--run", metavar="ID", help="Continue this run.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew even if a run can be resumed.")] = False,
    log_period: LogPeriodOption = None,
    folder: DirOption = Path(),
) -> None:
    """Train: checkpointed, resumed by itself when started again, landed before the deadline."""
    from arzbench.commands.common import Prices
    from arzbench.commands.resolve import RunOptions
    from arzbench.commands.run import run_run

    if log_period is not None:
        from arzbench.commands.logperiod import logging_changes

        changes = [*logging_changes(parse_folder(folder), study, env, algo, changes or [], log_period)]
    options = RunOptions(
        working=parse_folder(folder),
        study=study,
        env=env,
        algo=algo,
        changes=tuple(changes or ()),
        auto_budget=auto_budget,
        plan_file=plan_file,
        timesteps=optional_count("--timesteps", timesteps),
        extend=extend,
        max_sessions=optional_count("--max-sessions", max_sessions),
        checkpoints=checkpoints,
        option=option,
        quota=quota,
        platform=platform,
        confidence=parse_probability("--confidence", confidence),
        prices=Prices(named=source, allow_foreign=allow_foreign, allow_expired=allow_expired),
        device=device,
        run_id=run_id,
        fresh=fresh,
    )
    leave(run_run(options))


@app.command()
def report(
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Which run; else the newest.")
    ] = None,
    folder: DirOption = Path(),
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the Markdown here as well.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run did: predicted against actual, time per phase, evaluations, sessions."""
    from arzbench.commands.report import run_report

    run_report(working=parse_folder(folder), run_id=run_id, output=output, as_json=as_json)


@app.command()
def bench(
    device: DeviceOption = None,
    quick: QuickOption = False,
    output: RecordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the traffic engine against the most this core can compute."""
    from arzbench.commands.bench import run_bench

    run_bench(device=device or "cpu", quick=quick, output=output, as_json=as_json)


@app.command()
def logs(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Logs; - (or none) is standard input.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--pattern", metavar="REGEX", help="Of a line; groups time, tag, message, step, t."),
    ] = None,
    quota: QuotaOption = None,
    platform: PlatformOption = None,
    study: StudyOption = None,
    total_steps: Annotated[
        str | None, typer.Option("--total-steps", metavar="N", help="Env steps of the whole study.")
    ] = None,
    episode_steps: Annotated[
        str | None, typer.Option("--episode-steps", metavar="N", help="Env steps of an episode.")
    ] = None,
    eval_freq: Annotated[
        str | None, typer.Option("--eval-freq", metavar="N", help="Training steps between evaluations.")
    ] = None,
    eval_episodes: Annotated[
        str | None, typer.Option("--eval-episodes", metavar="N", help="Episodes of one evaluation.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on reading as the file grows.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw rates and phases.")
    ] = None,
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say from logs what happened: step times, floods, phases, the schedule, how it ended."""
    from arzbench.commands.logs import run_logs

    run_logs(
        working=parse_folder(folder),
        files=files or [],
        pattern=pattern,
        quota=quota,
        platform=platform,
        study=study,
        total_steps=optional_count("--total-steps", total_steps),
        episode_steps=optional_count("--episode-steps", episode_steps),
        eval_freq=optional_count("--eval-freq", eval_freq),
        eval_episodes=optional_count("--eval-episodes", eval_episodes),
        follow_file=follow,
        plot_file=plot,
        as_json=as_json,
    )


@app.command()
def watch(
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What to run.")] = None,
    quota: QuotaOption = None,
    total_steps: Annotated[
        str | None, typer.Option("--total-steps", metavar="N", help="Steps in all, for the ETA.")
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="How often to say how it goes.")
    ] = "10s",
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE", help="Write what was found as JSON.")
    ] = None,
) -> None:
    """Run a command, its output untouched; say its rate, floods and ETA on stderr."""
    from arzbench.commands.watch import run_watch

    steps = optional_count("--total-steps", total_steps)
    leave(run_watch(command or [], quota=quota, total_steps=steps, every=every, summary=summary))


@app.command()
def doctor(
    with_torch: Annotated[bool, typer.Option("--torch", help="Import torch, too, and ask it.")] = False,
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show host, threads, GPU, packages, folders, platform and quota, calibrations and their age."""
    from arzbench.commands.doctor import run_doctor

    run_doctor(working=parse_folder(folder), with_torch=with_torch, as_json=as_json)


@app.command()
def quota(
    platform: PlatformOption = None,
    used: Annotated[
        str | None, typer.Option("--add", metavar="TIME", help="Book time that was used elsewhere.")
    ] = None,
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show what is used, reserved and left of a platform's week."""
    from arzbench.commands.quota import run_quota

    run_quota(working=parse_folder(folder), platform=platform, used=used, as_json=as_json)


app.command()(compare)
app.command()(validate)
app.command()(checkpoint)


@app.command("_worker", hidden=True)
def _worker(task: Path, answer: Path) -> None:
    """Measure one repetition (started by calibrate)."""
    from arzbench.worker import run_worker

    leave(run_worker(task, answer))


def main() -> None:
    """The console script: every error becomes one message and an exit code."""
    try:
        code = app(standalone_mode=False)
    except ArzbenchError as error:
        tell(error.message, error.hint)
        code = error.exit_code
    except KeyboardInterrupt:
        tell("interrupted", "")
        code = 130
    except typer.Abort:
        code = ExitCode.FAILURE
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        tell(f"a name is too long for this system: {str(error.filename)[:60]}...", "shorten it")
        code = ExitCode.USAGE
    except Exception as error:
        # typer's own usage errors (its base class is not public)
        told = getattr(error, "format_message", None)
        if told is None:
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "arzbench"
        tell(told(), f"see {path} --help")
        code = ExitCode.USAGE
    if "torch" in sys.modules:  # an error may come just before a deadline, too
        leave(int(code or 0))
    sys.exit(int(code or 0))

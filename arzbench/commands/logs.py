"""`arzbench logs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from arzbench import options, store
from arzbench.choose_study import choose_study
from arzbench.clock import SystemClock
from arzbench.errors import UsageError
from arzbench.facts import EnvFacts
from arzbench.logs import plot as figure
from arzbench.logs.analyze import compare, forecast, read_log
from arzbench.logs.findings import LogContext, LogReport, LogReports
from arzbench.logs.follow import follow as follow_file
from arzbench.logs.formats import compile_pattern
from arzbench.logs.source import open_source
from arzbench.options import count, switch, value
from arzbench.predict.schedule import count_training, total_env_steps
from arzbench.profiles import find_platform
from arzbench.report.console import make_console, say, show
from arzbench.report.log_sheets import log_lines, log_sheets
from arzbench.study import Study
from arzbench.units import format_duration, parse_duration


def logs(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Logs; - (or none) is standard input.")
    ] = None,
    pattern: Annotated[
        str | None, value("--pattern", "REGEX", "Of a line; groups time, tag, message, step, t.")
    ] = None,
    quota: options.Quota = None,
    platform: options.Platform = None,
    study: options.Study = None,
    total_steps: Annotated[int | None, count("--total-steps", "Env steps of the whole study.")] = None,
    episode_steps: Annotated[int | None, count("--episode-steps", "Env steps of an episode.")] = None,
    eval_freq: Annotated[int | None, count("--eval-freq", "Training steps between evaluations.")] = None,
    eval_episodes: Annotated[int | None, count("--eval-episodes", "Episodes of one evaluation.")] = None,
    follow: Annotated[bool, switch("--follow", "Go on reading as the file grows.")] = False,
    plot: Annotated[Path | None, value("--plot", "FILE.png", "Draw rates and phases.")] = None,
    folder: options.Dir = Path(),
    as_json: options.Json = False,
) -> None:
    """Say from logs what happened: step times, floods, phases, the schedule, how it ended."""
    if not files:
        if sys.stdin.isatty():
            raise UsageError("no log is named", "arzbench logs FILE, or: command | arzbench logs")
        files = ["-"]
    chosen = choose_study(folder, study=study, env=None, algo=None, changes=())
    quota_s, limits = _limits(folder, quota, platform)
    context = LogContext(
        pattern=pattern,
        limits=limits,
        quota_s=quota_s,
        total_steps=total_steps,
        episode_steps=episode_steps,
        eval_freq=eval_freq if eval_freq is not None else _shared(chosen, "eval_freq"),
        eval_episodes=eval_episodes if eval_episodes is not None else _shared(chosen, "n_eval_episodes"),
    )
    if pattern is not None:
        compile_pattern(pattern)
    if plot is not None:
        figure.require_matplotlib()
    if follow:
        if len(files) != 1 or files[0] == "-":
            raise UsageError(
                "--follow takes one file", "a pipe is followed by itself: ... | arzbench watch -- cat"
            )
        reports = [follow_file(files[0], context, SystemClock(), sys.stderr)]
    else:
        reports = [read_log(open_source(file), context) for file in files]
    if chosen is not None:
        reports = [_with_study(report, chosen, context) for report in reports]
    if plot is not None:
        figure.plot(reports, plot)
    _show(reports, as_json)


def _limits(
    working: Path, quota: str | None, platform: str | None
) -> tuple[float | None, tuple[tuple[str, float], ...]]:
    """The quota in seconds, and the times at which a platform would have cut the log off."""
    session = find_platform(working, platform).session_s if platform is not None else None
    seconds = parse_duration(quota) if quota is not None else session
    limits = [(f"the quota of {format_duration(seconds)}", seconds)] if quota is not None and seconds else []
    if session is not None:
        limits.append((f"the session limit of {platform}", session))
    return seconds, tuple(limits)


def _shared(study: Study | None, name: str) -> int | None:
    """The setting of the evaluations, where all trainings of the study agree."""
    values = {getattr(t.evaluation, name) for t in study.trainings} if study is not None else set()
    value = values.pop() if len(values) == 1 else None
    return int(value) if value else None


def _with_study(report: LogReport, study: Study, context: LogContext) -> LogReport:
    """`report` with the forecast of the whole of `study`: its trainings, evaluations and baselines."""
    length = context.episode_steps or (report.cycle.length if report.cycle is not None else None)
    facts = EnvFacts(n_envs=1, max_episode_steps=length, episode_steps=(), eval_episode_steps=())
    total, _ = total_env_steps([count_training(t, facts) for t in study.trainings])
    how = f"study {study.name}, evaluations and baselines with "
    how += f"episodes of {length:,} steps" if length else "episodes of unknown length left out"
    whole = forecast(report.steps, round(total), context.quota_s, how)
    return msgspec.structs.replace(report, forecast=whole)


def _show(reports: Sequence[LogReport], as_json: bool) -> None:
    compared = compare(reports)
    if as_json:
        record = LogReports(logs=tuple(reports), compared=tuple(compared))
        sys.stdout.buffer.write(store.encode("arzbench/logs", record))
        return
    console = make_console()
    for report in reports:
        for line in log_lines(report):
            say(console, line)
        show(console, log_sheets(report))
    for line in compared:
        say(console, line)

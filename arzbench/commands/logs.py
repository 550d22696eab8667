"""`arzbench logs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from arzbench import store
from arzbench.choose_study import choose_study
from arzbench.clock import SystemClock
from arzbench.errors import UsageError
from arzbench.logs.analyze import compare, forecast, read_log
from arzbench.logs.findings import LogContext, LogReport, LogReports
from arzbench.logs.follow import follow
from arzbench.logs.formats import compile_pattern
from arzbench.logs.plot import plot, require_matplotlib
from arzbench.logs.source import open_source
from arzbench.predict.schedule import count_training, total_env_steps
from arzbench.profiles import find_platform
from arzbench.records import EnvFacts
from arzbench.report.console import make_console, say, show
from arzbench.report.log_sheets import log_lines, log_sheets
from arzbench.study import Study
from arzbench.units import format_duration, parse_duration


def run_logs(
    *,
    working: Path,
    files: Sequence[str],
    pattern: str | None,
    quota: str | None,
    platform: str | None,
    study: str | None,
    total_steps: int | None,
    episode_steps: int | None,
    eval_freq: int | None,
    eval_episodes: int | None,
    follow_file: bool,
    plot_file: Path | None,
    as_json: bool,
) -> None:
    """Read logs, say what happened."""
    if not files:
        if sys.stdin.isatty():
            raise UsageError("no log is named", "arzbench logs FILE, or: command | arzbench logs")
        files = ["-"]
    chosen = choose_study(working, study=study, env=None, algo=None, changes=[])
    quota_s, limits = _limits(working, quota, platform)
    options = LogContext(
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
    if plot_file is not None:
        require_matplotlib()
    if follow_file:
        if len(files) != 1 or files[0] == "-":
            raise UsageError(
                "--follow takes one file", "a pipe is followed by itself: ... | arzbench watch -- cat"
            )
        reports = [follow(files[0], options, SystemClock(), sys.stderr)]
    else:
        reports = [read_log(open_source(file), options) for file in files]
    if chosen is not None:
        reports = [_with_study(report, chosen, options) for report in reports]
    if plot_file is not None:
        plot(reports, plot_file)
    _tell(reports, as_json)


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


def _with_study(report: LogReport, study: Study, options: LogContext) -> LogReport:
    """`report` with the forecast of the whole of `study`: its trainings, evaluations and baselines."""
    length = options.episode_steps or (report.cycle.length if report.cycle is not None else None)
    facts = EnvFacts(n_envs=1, max_episode_steps=length, episode_steps=(), eval_episode_steps=())
    total, _ = total_env_steps([count_training(t, facts) for t in study.trainings])
    how = f"study {study.name}, evaluations and baselines with "
    how += f"episodes of {length:,} steps" if length else "episodes of unknown length left out"
    whole = forecast(report.steps, round(total), options.quota_s, how)
    return msgspec.structs.replace(report, forecast=whole)


def _tell(reports: Sequence[LogReport], as_json: bool) -> None:
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

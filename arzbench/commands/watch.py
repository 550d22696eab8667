"""`arzbench watch -- command ...`; without options `__main__` starts the command itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arzbench import options
from arzbench.clock import SystemClock
from arzbench.errors import UsageError, leave
from arzbench.options import count, value
from arzbench.units import parse_duration
from arzbench.wiring.watching import Observer, run_watched


def watch(
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What to run.")] = None,
    quota: options.Quota = None,
    total_steps: Annotated[int | None, count("--total-steps", "Steps in all, for the ETA.")] = None,
    every: Annotated[str, value("--every", "TIME", "How often to say how it goes.")] = "10s",
    summary: Annotated[Path | None, value("--summary", "FILE", "Write what was found as JSON.")] = None,
) -> None:
    """Run a command, its output untouched; say its rate, floods and ETA on stderr."""
    if not command:
        raise UsageError("watch needs a command", "arzbench watch -- python train.py")
    quota_s = parse_duration(quota) if quota is not None else None
    observer = Observer(SystemClock(), parse_duration(every), quota_s, total_steps)
    code = run_watched(command, observer)
    observer.finish(" ".join(command), summary)
    leave(code)

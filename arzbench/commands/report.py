"""`arzbench report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from arzbench import options, runs, store
from arzbench.options import value
from arzbench.report.console import make_console, say, show
from arzbench.report.summary import head_lines, run_record, run_sheets, write_summary
from arzbench.wiring.checks import ensure_file


def report(
    run_id: options.Run = None,
    folder: options.Dir = Path(),
    output: Annotated[Path | None, value("--output", "FILE", "Write the Markdown here as well.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show what a run did: predicted against actual, time per phase, evaluations, sessions."""
    run = runs.find(folder, run_id)
    summary, plan = run.summary(), run.plan()
    if output is not None:
        ensure_file(output, "--output")
    path = write_summary(run, summary, output)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/report", run_record(run.record, summary)))
        return
    console = make_console()
    for line in head_lines(run.record, summary):
        say(console, line)
    show(console, run_sheets(run.record, summary, plan))
    say(console, f"Markdown: {path}")

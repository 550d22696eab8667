"""`arzbench report`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from arzbench import runs, store
from arzbench.commands.common import ensure_file
from arzbench.records import Plan
from arzbench.report.console import make_console, say, show, to_markdown
from arzbench.report.summary import head_lines, run_sheets
from arzbench.run.ledger import Summary


def _plan_of(run: runs.Run) -> Plan | None:
    path = run.folder / "plan.json"
    return store.load(path, "arzbench/plan", Plan, "plan") if path.exists() else None


def run_report(*, working: Path, run_id: str | None, output: Path | None, as_json: bool) -> None:
    """Show a run on the terminal and write it as Markdown."""
    run = runs.find(working, run_id)
    summary = run.summary()
    if output is not None:
        ensure_file(output, "--output")
    path = write_summary(run, summary, output)
    if as_json:
        sys.stdout.buffer.write(_as_json(run, summary))
        return
    console = make_console()
    for line in head_lines(run.record, summary):
        say(console, line)
    show(console, run_sheets(run.record, summary, _plan_of(run)))
    say(console, f"Markdown: {path}")


def write_summary(run: runs.Run, summary: Summary, output: Path | None = None) -> Path:
    """Write summary.md into the run's folder, and to `output` as well; the path last written."""
    lines = [f"# {run.record.id}", "", *(f"- {line}" for line in head_lines(run.record, summary)), ""]
    text = "\n".join(
        [*lines, *(to_markdown(sheet) for sheet in run_sheets(run.record, summary, _plan_of(run)))]
    )
    path = run.folder / "summary.md"
    store.write_atomic(path, text.encode())
    if output is not None:
        store.write_atomic(output, text.encode())
        return output
    return path


def _as_json(run: runs.Run, summary: Summary) -> bytes:
    """Everything the tables are made of."""
    return store.encode(
        "arzbench/report",
        {
            "run": msgspec.to_builtins(run.record),
            "elapsed_s": summary.elapsed_s,
            "lost_s": summary.lost_s,
            "phases": {p.value: {"seconds": t.seconds, "units": t.units} for p, t in summary.phases.items()},
            "entries": msgspec.to_builtins(summary.entries),
        },
    )

"""`arzbench validate`: real trainings, each predicted from its own calibration first, then scored."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from arzbench import store
from arzbench.clock import Clock, SystemClock
from arzbench.commands.common import require_training_stack, undone
from arzbench.commands.validating import Bench
from arzbench.errors import ExitCode
from arzbench.measure.host import host_info
from arzbench.records import HostInfo, Record
from arzbench.report.console import make_console, say, show, to_markdown
from arzbench.report.sheets import Sheet
from arzbench.report.validatesheets import validation_lines, validation_sheets
from arzbench.saves.lock import LOCK, only_run
from arzbench.units import format_duration, parse_duration
from arzbench.validate.design import choose_pairs, expected_s, make_design
from arzbench.validate.result import Cell, Design, Outcome, Validation
from arzbench.validate.scores import criteria, own_error

#: what a folder of reports/ holds of a validation
DESIGN, LINES, RAW, SUMMARY, WORK = "design.json", "figures.jsonl", "raw.json", "summary.md", "work"


class Begun(Record, frozen=True, kw_only=True):
    """design.json: written first, so that a validation that was killed can go on."""

    created: str
    host: HostInfo
    load: float
    design: Design


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateOptions:
    """The command line of `arzbench validate`."""

    working: Path
    quick: bool
    duration: str | None
    neighbour: float
    pairs: str | None
    seed: int
    fresh: bool
    as_json: bool


def run_validate(options: ValidateOptions) -> int:
    """Plan the validation or go on with one that was killed, carry it out, score it; the exit code."""
    clock = SystemClock()
    planned_s = None if options.duration is None else parse_duration(options.duration)
    pairs = choose_pairs(options.pairs, quick=options.quick)
    design = make_design(
        pairs, neighbour=options.neighbour, seed=options.seed, quick=options.quick, planned_s=planned_s
    )
    require_training_stack()
    console = make_console(stderr=options.as_json)
    folder, begun = _folder(options, clock, design)
    with only_run(folder):
        validation = _carry_out(options.working, clock, console, folder, begun)
    sheets = validation_sheets(validation)
    store.save(folder / RAW, "arzbench/validation", validation)
    store.write_atomic(folder / SUMMARY, _markdown(validation, sheets).encode())
    shutil.rmtree(folder / WORK, ignore_errors=True)
    for name in (DESIGN, LINES, LOCK):  # all of it is in raw.json
        (folder / name).unlink(missing_ok=True)
    if options.as_json:
        sys.stdout.buffer.write(store.encode("arzbench/validation", validation))
    else:
        for line in validation_lines(validation):
            say(console, line)
        show(console, sheets)
        say(console, f"Markdown: {folder / SUMMARY}; raw values: {folder / RAW}")
    failed = any(c.passed is False for c in criteria(validation))
    return int(ExitCode.FAILURE if failed else ExitCode.OK)


def _folder(options: ValidateOptions, clock: Clock, design: Design) -> tuple[Path, Begun]:
    """The folder of the same validation, where one was left unfinished; else a new one."""
    reports = options.working / "reports"
    host = host_info()
    if not options.fresh:
        for path in sorted(reports.glob(f"validate-{host.key}-*/{DESIGN}"), reverse=True):
            begun = store.load(path, "arzbench/design", Begun, "design of a validation")
            if begun.design == design and not begun.host.differs_from(host):
                return path.parent, begun
    created = clock.wall()
    name = f"validate-{host.key}-{created:%Y-%m-%d}"
    folder = reports / name
    number = 1
    while folder.exists():
        number += 1
        folder = reports / f"{name}-{number}"
    begun = Begun(
        created=created.isoformat(timespec="seconds"), host=host, load=os.getloadavg()[0], design=design
    )
    with undone(folder):
        store.ensure_writable(folder)
    store.save(folder / DESIGN, "arzbench/design", begun)
    return folder, begun


def _carry_out(working: Path, clock: Clock, console: Console, folder: Path, begun: Begun) -> Validation:
    """Calibrate and run everything that is not done yet; each figure is kept as soon as it is there."""
    began, design, lines = clock.now(), begun.design, folder / LINES
    known: list[Cell | Outcome] = list(store.read_lines(lines, Cell | Outcome)) if lines.exists() else []  # type: ignore[arg-type]
    cells = {(c.pair, c.beside): c for c in known if isinstance(c, Cell)}
    runs = {(r.pair, r.beside, r.repetition): r for r in known if isinstance(r, Outcome)}
    _announce(console, design, begun.load, folder, len(runs))
    bench = Bench(working, folder / WORK, begun.host, design, clock)
    left_out = 0
    for pair, beside, repetition in (run for turn in design.rounds() for run in turn):
        if (pair.name, beside, repetition) in runs:
            continue
        usual = statistics.fmean(r.wall_s for r in runs.values()) if runs else design.target_s
        if design.planned_s is not None and clock.now() - began + usual > design.planned_s:
            left_out += 1
            continue
        with bench.neighbour(beside):
            if (pair.name, beside) not in cells:
                cell = cells[pair.name, beside] = bench.calibrate(pair, beside)
                store.append_line(lines, cell)
                say(console, _told_cell(cell))
            run = bench.run(pair, beside, repetition, cells[pair.name, beside])
        runs[pair.name, beside, repetition] = run
        store.append_line(lines, run)
        say(console, _told_run(run))
    if left_out:
        say(console, f"{left_out} run(s) left out: there was no time for them")
    return Validation(
        id=folder.name,
        created=begun.created,
        host=begun.host,
        versions=bench.versions(cells.values()),
        load=begun.load,
        took_s=clock.now() - began,
        design=design,
        cells=tuple(cells.values()),
        runs=tuple(runs.values()),
    )


def _announce(console: Console, design: Design, load: float, folder: Path, done: int) -> None:
    runs = design.alone + design.beside
    lines = [
        f"validating {len(design.pairs)} pair(s), {runs} runs each ({design.alone} alone, {design.beside} "
        f"beside a busy process) of about {format_duration(design.target_s)}: "
        f"about {format_duration(expected_s(design))} in all",
        f"figures: {folder}",
    ]
    if done:
        lines.append(f"going on: {done} run(s) are done")
    if load > 0.5:
        lines.append(f"warning: {load:.1f} other processes were busy in the last minute: not an idle machine")
    for line in lines:
        say(console, line)


def _where(pair: str, beside: bool) -> str:
    return f"{pair}{', beside a busy process' if beside else ''}"


def _told_cell(cell: Cell) -> str:
    return (
        f"  {_where(cell.pair, cell.beside)}: calibrated in {format_duration(cell.calibration_s)}, "
        f"{cell.timesteps:,} steps a run"
    )


def _told_run(run: Outcome) -> str:
    quota = "" if run.quota_s is None else f", quota {format_duration(run.quota_s)}"
    stopped = "" if run.finished else " (stopped before its end)"
    return (
        f"  {_where(run.pair, run.beside)}, run {run.repetition + 1}: predicted "
        f"{format_duration(run.quantiles['0.5'])} (P95 {format_duration(run.quantiles['0.95'])}), took "
        f"{format_duration(run.wall_s)}: {own_error(run):+.1%}{quota}{stopped}"
    )


def _markdown(validation: Validation, sheets: Sequence[Sheet]) -> str:
    lines = [f"# {validation.id}", "", *(f"- {line}" for line in validation_lines(validation)), ""]
    return "\n".join([*lines, *(to_markdown(sheet) for sheet in sheets)])

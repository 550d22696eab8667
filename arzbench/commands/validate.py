"""`arzbench validate`: real trainings, each predicted from its own calibration first, then scored."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from arzbench.errors import ExitCode
from arzbench.options import DirOption, JsonOption, count, parse_share, switch, value


def validate(
    quick: Annotated[bool, switch("--quick", "A few pairs and short runs: minutes, an impression.")] = False,
    duration: Annotated[
        str | None, value("--for", "TIME", "How long it may take: plans runs to fit (40m, 3h).")
    ] = None,
    busy_share: Annotated[
        float,
        typer.Option(
            "--neighbour",
            metavar="SHARE",
            parser=lambda value: parse_share("--neighbour", str(value)),
            help="Share of the runs beside a busy process.",
        ),
    ] = 0.5,
    pairs: Annotated[str | None, value("--pairs", "A,B", "Which pairs of env and algorithm.")] = None,
    seed: Annotated[int, count("--seed", "Of all trainings.", least=0)] = 0,
    fresh: Annotated[
        bool, switch("--fresh", "Begin anew even if the same validation was left unfinished.")
    ] = False,
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> ExitCode:
    """Run real trainings, each predicted first, and say how far off the predictions were."""
    import shutil

    from arzbench import store
    from arzbench.clock import SystemClock
    from arzbench.report.console import make_console, say, show, to_markdown
    from arzbench.report.validatesheets import validation_lines, validation_sheets
    from arzbench.saves.lock import LOCK, only_run
    from arzbench.units import parse_duration
    from arzbench.validate import scores
    from arzbench.validate.design import choose_pairs, make_design
    from arzbench.wiring import validation
    from arzbench.wiring.checks import require_packages, require_training_stack

    # ended from outside, it takes the processes it started with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    planned_s = None if duration is None else parse_duration(duration)
    chosen = choose_pairs(pairs, quick=quick)
    design = make_design(chosen, busy_share=busy_share, seed=seed, quick=quick, planned_s=planned_s)
    require_training_stack()
    require_packages("numba")
    console, clock = make_console(stderr=as_json), SystemClock()
    reports, begun = validation.open_folder(folder, clock, design, fresh=fresh)
    with only_run(reports):
        result = validation.carry_out(folder, clock, console, reports, begun)
    lines, sheets = validation_lines(result), validation_sheets(result)
    raw, markdown = reports / "raw.json", reports / "summary.md"
    store.save(raw, "arzbench/validation", result)
    head = [f"# {result.id}", "", *(f"- {line}" for line in lines), ""]
    store.write_atomic(markdown, "\n".join([*head, *map(to_markdown, sheets)]).encode())
    shutil.rmtree(reports / validation.WORK, ignore_errors=True)
    for name in (validation.DESIGN, validation.LINES, LOCK):  # all of it is in raw.json
        (reports / name).unlink(missing_ok=True)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/validation", result))
    else:
        for line in lines:
            say(console, line)
        show(console, sheets)
        say(console, f"Markdown: {markdown}; raw values: {raw}")
    failed = any(c.passed is False for c in scores.criteria(result))
    return ExitCode.FAILURE if failed else ExitCode.OK

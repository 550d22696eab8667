"""The options of `arzbench validate`; what it does is in `arzbench.commands.validate`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from arzbench.options import DirOption, JsonOption, parse_count, parse_folder, parse_share


def validate(
    quick: Annotated[
        bool, typer.Option("--quick", help="A few pairs and short runs: minutes, an impression.")
    ] = False,
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="How long it may take: plans runs to fit (40m, 3h)."),
    ] = None,
    neighbour: Annotated[
        str, typer.Option("--neighbour", metavar="SHARE", help="Share of the runs beside a busy process.")
    ] = "0.5",
    pairs: Annotated[
        str | None, typer.Option("--pairs", metavar="A,B", help="Which pairs of env and algorithm.")
    ] = None,
    seed: Annotated[str, typer.Option("--seed", metavar="N", help="Of all trainings.")] = "0",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew even if the same validation was left unfinished.")
    ] = False,
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Run real trainings, each predicted first, and say how far off the predictions were."""
    from arzbench.commands.validate import ValidateOptions, run_validate

    options = ValidateOptions(
        working=parse_folder(folder),
        quick=quick,
        duration=duration,
        neighbour=parse_share("--neighbour", neighbour),
        pairs=pairs,
        seed=parse_count("--seed", seed, least=0),
        fresh=fresh,
        as_json=as_json,
    )
    # ended from outside, it takes the processes it started with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    raise typer.Exit(run_validate(options))

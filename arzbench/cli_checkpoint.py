"""The options of `arzbench checkpoint`; what it does is in `arzbench.commands.checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arzbench.options import DirOption, JsonOption, parse_folder


def checkpoint(
    action: Annotated[str, typer.Argument(metavar="ls|verify|export", help="What to do.")] = "ls",
    where: Annotated[
        str | None, typer.Argument(metavar="WHERE", help="A folder of checkpoints or a URL; else the run's.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Which run; else the newest.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="STEP-...", help="Export this one; else the newest.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="Export the one of the best evaluation.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE.zip", help="Where the model is exported to.")
    ] = None,
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """List the checkpoints of a run, prove every byte of them, or make a model file of one."""
    from arzbench.commands.checkpoint import CheckpointOptions, run_checkpoint

    options = CheckpointOptions(
        action=action,
        where=where,
        run_id=run_id,
        name=name,
        best=best,
        output=output,
        working=parse_folder(folder),
        as_json=as_json,
    )
    raise typer.Exit(run_checkpoint(options))

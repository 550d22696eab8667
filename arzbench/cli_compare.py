"""The options of `arzbench compare`; what it does is in `arzbench.commands.compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arzbench.options import (
    AlgoOption,
    DirOption,
    EnvOption,
    JsonOption,
    SetOption,
    StudyOption,
    parse_count,
    parse_folder,
)


def compare(
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Models of this run; else of the newest.")
    ] = None,
    study: StudyOption = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="FILE.zip", help="This model; --study or --env and --algo tell its env."
        ),
    ] = None,
    env: EnvOption = None,
    algo: AlgoOption = None,
    changes: SetOption = None,
    training: Annotated[
        str | None, typer.Option("--training", metavar="NAME", help="Only this training's model.")
    ] = None,
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="N", help="Held-out episodes each policy plays.")
    ] = "50",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the comparison.")
    ] = None,
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Play held-out episodes under the baselines and the trained models; say who is better."""
    from arzbench.commands.compare import CompareOptions, run_compare

    run_compare(
        CompareOptions(
            working=parse_folder(folder),
            run_id=run_id,
            study=study,
            model=model,
            env=env,
            algo=algo,
            changes=tuple(changes or ()),
            training=training,
            seeds=parse_count("--seeds", seeds, least=2),
            plot=plot,
            as_json=as_json,
        )
    )

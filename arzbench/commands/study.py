"""`arzbench study`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from arzbench import store
from arzbench.errors import UsageError, unknown
from arzbench.options import value
from arzbench.report.console import make_console, say
from arzbench.rl_zoo import as_toml, import_zoo, read_zoo
from arzbench.wiring.checks import ensure_file

ACTIONS = ("import-zoo",)


def study(
    action: Annotated[str, typer.Argument(metavar="import-zoo", help="What to do.")] = "import-zoo",
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE.yml", help="Hyper-parameters of RL Zoo.")
    ] = None,
    env: Annotated[str | None, value("--env", "ID", "The env whose entry is taken.")] = None,
    algo: Annotated[
        str | None, value("--algo", "NAME", "The algorithm; else the file's name says it.")
    ] = None,
    out: Annotated[
        Path | None, value("--out", "FILE.toml", "Where the study is written; else it is printed.")
    ] = None,
) -> None:
    """Write a study from a file of hyper-parameters of RL Baselines3 Zoo."""
    if action not in ACTIONS:
        raise unknown("action", action, ACTIONS, "of arzbench study")
    if file is None:
        raise UsageError("no file was named", "arzbench study import-zoo ppo.yml --env CartPole-v1")
    if env is None:
        raise UsageError("--env is missing: which entry?", f"{file} has: {', '.join(read_zoo(file))}")
    imported = import_zoo(file, env, algo)
    name = re.sub(r"[^a-z0-9]+", "-", f"{imported.config.algo}-{env}".lower()).strip("-")
    text = as_toml(imported, name)
    if out is None:
        sys.stdout.write(text)
        return
    ensure_file(out, "--out")
    if out.exists() and out.read_bytes() != text.encode():
        raise UsageError(f"{out} is there, and holds something else", "give --out another name, or remove it")
    store.write_atomic(out, text.encode())
    say(make_console(), f"study {name} in {out}; next: arzbench calibrate --study {out}")

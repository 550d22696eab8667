"""The study a command is about: from a file, from `--env` and `--algo`, changed by `--set key=value`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from arzbench.errors import UsageError
from arzbench.profiles import find_study
from arzbench.study import ALGORITHMS, Study
from arzbench.study_changes import change_study
from arzbench.study_file import make_config

DEFAULT_STUDY = "incident"
DEFAULT_CONFIDENCE = 0.95
#: an ad-hoc training evaluates as often as SB3's EvalCallback does by default
AD_HOC: dict[str, Any] = {
    "total_timesteps": 100_000,
    "evaluation": {"eval_freq": 10_000, "n_eval_episodes": 5},
    "checkpoint": {"checkpoint_freq": 10_000},
}


def choose_study(
    working: Path,
    *,
    study: str | None,
    env: str | None,
    algo: str | None,
    changes: Sequence[str],
    timesteps: int | None = None,
) -> Study | None:
    """The study asked for, or None when nothing names one: `changes` are then left to the caller.

    Raises:
        UsageError: a contradictory request, an unknown name, or a change that does not fit.
    """
    if env is None and algo is None:
        if study is None:
            return None
        return _finite(change_study(find_study(working, study), changes), study)
    if study is not None:
        raise UsageError("--study and --env/--algo exclude each other", "--set env=... changes a study's env")
    if env is None or algo is None:
        lacking = "--env" if env is None else "--algo"
        raise UsageError(
            f"{lacking} is missing: an env and an algorithm are needed",
            f"algorithms: {', '.join(sorted(ALGORITHMS))}",
        )
    table = {"name": algo.lower(), "env": env, "algo": algo, **AD_HOC}
    if timesteps is not None:
        table["total_timesteps"] = timesteps
    config = make_config(table, "--env and --algo")
    name = re.sub(r"[^a-z0-9]+", "-", f"{algo}-{env}".lower()).strip("-")
    single = Study(name=name, trainings=(msgspec.structs.replace(config, name=name),))  # type: ignore[arg-type]
    return _finite(change_study(single, changes), "--env and --algo")


def _finite(study: Study, source: str) -> Study:
    """`study`, unless a value of it is nan or inf: a study must be the same written down and read again."""
    wrong = [w for t in study.trainings for w in _not_finite(msgspec.to_builtins(t), "")]
    if wrong:
        raise UsageError(f"{source}: {'; '.join(dict.fromkeys(wrong))}", "write an ordinary number")
    return study


def _not_finite(value: Any, place: str) -> list[str]:
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{place} = {value} is not a finite number"]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [w for key, inner in items for w in _not_finite(inner, f"{place}.{key}" if place else str(key))]

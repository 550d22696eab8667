"""The study a command is about: from a file, from `--env` and `--algo`, changed by `--set key=value`."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from arzbench.errors import UsageError
from arzbench.profiles import find_study
from arzbench.study import ALGORITHMS, AnyConfig, Study, TrainConfig, make_config

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
            f"{lacking} is missing: an env and an algorithm are needed", f"algorithms: {_algorithms()}"
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


def _algorithms() -> str:
    return ", ".join(sorted(ALGORITHMS))


def change_study(study: Study, changes: Sequence[str]) -> Study:
    """`study` with every `key=value` of `changes` applied to each of its trainings.

    `trainings=N` keeps the first N of them.
    """
    if not changes:
        return study
    pairs = [_parse(change) for change in changes]
    kept = study.trainings
    for path, value in pairs:
        if path == ["trainings"]:
            kept = _first(kept, value)
    pairs = [(path, value) for path, value in pairs if path != ["trainings"]]
    told = " ".join(f"--set {change}" for change in changes)
    changed = tuple(_change(config, pairs, told) if pairs else config for config in kept)
    return msgspec.structs.replace(study, trainings=changed)


def _first(trainings: tuple[AnyConfig, ...], count: object) -> tuple[AnyConfig, ...]:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= len(trainings):
        valid = f"the study has {len(trainings)}: 1 to {len(trainings)} can be kept"
        raise UsageError(f"--set trainings={count!r}: not a number of trainings", valid)
    return trainings[:count]


def _parse(change: str) -> tuple[list[str], Any]:
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"--set {change!r} is not key=value", "for example --set n_steps=512")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    return key.strip().split("."), value


def _change(config: TrainConfig, pairs: Sequence[tuple[list[str], Any]], source: str) -> TrainConfig:
    """Keys are a training's own, dotted for tables; anything else is a hyper-parameter."""
    table: dict[str, Any] = msgspec.to_builtins(config)
    hyper = {**table.pop("hyperparameters"), **{k: table.pop(k) for k in config.schedule_fields()}}
    table["hyperparameters"] = hyper
    for path, value in pairs:
        known = path[0] in TrainConfig.__struct_fields__ or path[0] == "algo"
        target = table if known else hyper
        for part in path[:-1]:
            inner = target.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UsageError(
                    f"--set {'.'.join(path)}: {part!r} is not a table", "see docs/reference/formats.md"
                )
            target = inner
        target[path[-1]] = value
        if path == ["algo"] and value != config.algo:
            raise UsageError("--set algo=... would drop the hyper-parameters", "use --env and --algo instead")
    return make_config(table, source)

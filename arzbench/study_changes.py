"""Changes of a study, as `--set key=value` and what-ifs make them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import msgspec

from arzbench.errors import UsageError
from arzbench.study import AnyConfig, Built, Factory, Study, TrainConfig
from arzbench.study_file import make_config


def change_study(study: Study, changes: Sequence[str]) -> Study:
    """`study` with every `key=value` of `changes` applied to each of its trainings.

    `trainings=N` keeps the first N of them.
    """
    if not changes:
        return study
    pairs = [_parse(change) for change in changes]
    trainings = study.trainings
    for path, value in pairs:
        if path == ["trainings"]:
            trainings = _first(trainings, value)
    pairs = [(path, value) for path, value in pairs if path != ["trainings"]]
    source = " ".join(f"--set {change}" for change in changes)
    changed = tuple(_change(config, pairs, source) if pairs else config for config in trainings)
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
    if isinstance(config, Built | Factory):
        return _change_users(config, pairs)
    table: dict[str, Any] = msgspec.to_builtins(config)
    hyper = {**table.pop("hyperparameters"), **{k: table.pop(k) for k in config.schedule_fields()}}
    table["hyperparameters"] = hyper
    for path, value in pairs:
        own = path[0] in TrainConfig.__struct_fields__ or path[0] == "algo"
        target = table if own else hyper
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


def _change_users(config: Built | Factory, pairs: Sequence[tuple[list[str], Any]]) -> Built | Factory:
    """What the user's code decides can be changed there alone."""
    table: dict[str, Any] = msgspec.to_builtins(config)
    for path, value in pairs:
        part = getattr(config, path[0], None) if path[0] in ("evaluation", "checkpoint") else None
        ours = path in (["env_errors"], ["fast"])
        ours = ours or (part is not None and len(path) > 1 and path[1] in part.__struct_fields__)
        if isinstance(config, Factory):
            ours = ours or path == ["total_timesteps"] or (path[0] == "kwargs" and len(path) == 2)
        if not ours:
            code = (
                config.factory if isinstance(config, Factory) else config.code.script or config.code.factory
            )
            raise UsageError(
                f"--set {'.'.join(path)}: {code} decides that",
                "change it there; --set changes fast, evaluation and checkpoint, as evaluation.eval_freq=500",
            )
        target = table if len(path) == 1 else table[path[0]]
        target[path[-1]] = value
    try:
        return msgspec.convert(table, type(config))
    except msgspec.ValidationError as error:
        raise UsageError(f"--set: {error}", "see docs/reference/formats.md") from error

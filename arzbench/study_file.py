"""Study files: what to train, written as TOML by people, checked at once and completely."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec

from arzbench import store
from arzbench.errors import UsageError, unknown
from arzbench.study import (
    ALGORITHMS,
    AnyConfig,
    Baseline,
    Checkpoints,
    Evaluation,
    Logging,
    LogMode,
    Study,
    TrainConfig,
)


def make_config(table: dict[str, Any], source: str) -> TrainConfig:
    """The `TrainConfig` of one TOML table; all its problems are reported at once.

    Raises:
        UsageError: unknown algorithm, keys or hyper-parameters, or values that do not fit.
    """
    table = dict(table)
    algo = table.pop("algo", None)
    if not isinstance(algo, str) or algo.lower() not in ALGORITHMS:
        error = unknown("algorithm", str(algo), ALGORITHMS)
        raise UsageError(f"{source}: {error.message}", error.hint)
    kind = ALGORITHMS[algo.lower()]
    problems: list[str] = []
    given = table.pop("hyperparameters", {})
    if not isinstance(given, dict):
        problems.append(f"hyperparameters = {given!r}: not a table")
        given = {}
    extra = {k: v for k, v in given.items() if k not in kind.schedule_fields()}
    counted = {k: v for k, v in given.items() if k not in extra}
    hints = []
    if any(k not in kind.EXTRA for k in extra):
        names = sorted({*kind.schedule_fields(), *kind.EXTRA})
        problems += [f"{algo} has no hyper-parameter {k!r}" for k in extra if k not in kind.EXTRA]
        hints.append(f"hyper-parameters of {algo}: {', '.join(names)}")
    unknown_keys, valid = _unknown_keys(table)
    misfits, defaults = _misfits(kind, {**table, **counted}, algo.lower())
    problems += unknown_keys + misfits
    if problems:
        raise UsageError(f"{source}: " + "; ".join(problems), "\n".join(hints + valid + defaults))
    data = {**table, **counted, "hyperparameters": extra, "algo": algo.lower()}
    config: TrainConfig = store.convert(data, AnyConfig, source)
    return config


_SUBTABLES: dict[str, type[msgspec.Struct]] = {
    "evaluation": Evaluation,
    "baseline": Baseline,
    "checkpoint": Checkpoints,
    "logging": Logging,
}


def _unknown_keys(table: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(problems, valid names) of the keys of a training and of its tables."""
    problems, valid = [], []
    own = TrainConfig.__struct_fields__
    if any(key not in own for key in table):
        problems += [f"unknown key {key!r}" for key in table if key not in own]
        valid.append(f"keys: {', '.join(sorted({'algo', *own}))}")
    for name, part in _SUBTABLES.items():
        inside = table.get(name)
        wrong = [k for k in inside if k not in part.__struct_fields__] if isinstance(inside, dict) else []
        if wrong:
            problems += [f"unknown key '{name}.{key}'" for key in wrong]
            valid.append(f"keys of {name}: {', '.join(part.__struct_fields__)}")
    return problems, valid


def _misfits(kind: type[TrainConfig], data: dict[str, Any], algo: str) -> tuple[list[str], list[str]]:
    """(each value that is missing, of another type, or out of range; the defaults of those with one)."""
    problems, defaults = [], []
    fitting: dict[str, Any] = {"env": "", "total_timesteps": 1, "algo": algo}
    for field in msgspec.structs.fields(kind):
        if field.name not in data:
            problems += [f"{field.name} is missing"] if field.required else []
            continue
        value = data[field.name]
        if field.name in _SUBTABLES and isinstance(value, dict):
            value = {k: v for k, v in value.items() if k in _SUBTABLES[field.name].__struct_fields__}
        try:
            msgspec.convert(value, field.type)
            fitting[field.name] = value
        except msgspec.ValidationError as error:
            problems.append(_message(error, field.name))
            if isinstance(field.default, str | int | float):
                defaults.append(f"the default: {field.name} = {field.default}")
    try:
        msgspec.convert(fitting, AnyConfig)
    except msgspec.ValidationError as error:
        problems.append(_message(error, ""))
    return problems, defaults


def _message(error: msgspec.ValidationError, name: str) -> str:
    """The error behind the place in the file where it is."""
    text, _, where = str(error).partition(" - at `$")
    place = f"{name}{where.rstrip('`')}"
    if place == "logging.mode":
        text += f" (valid: {', '.join(get_args(LogMode))})"
    return f"{place}: {text}" if place else text


def make_study(data: dict[str, Any], source: str) -> Study:
    """The `Study` of a parsed study file: each [[training]] inherits the file's own keys.

    Raises:
        UsageError: everything that is wrong with the file, at once.
    """
    body = store.check_schema(data, "arzbench/study", source)
    trainings = body.pop("training", None) or [{}]
    name = body.pop("name", None)
    description = body.pop("description", "")
    problems: list[UsageError] = []
    if not isinstance(name, str) or not name:
        problems.append(UsageError(f"{source}: a study needs a name", 'add: name = "my-study"'))
    elif {"/", "\0"} & set(name):
        problems.append(UsageError(f"{source}: {name!r} cannot be part of a file's name", "leave out the /"))
    if not isinstance(description, str):
        problems.append(UsageError(f"{source}: description: not a text"))
    if not isinstance(trainings, list) or not all(isinstance(t, dict) for t in trainings):
        problems.append(UsageError(f"{source}: training: not a list of tables", "write [[training]]"))
        trainings = []
    configs = []
    for number, table in enumerate(trainings, 1):
        merged = _inherit(body, table)
        merged.setdefault("name", f"{name}-{number}" if len(trainings) > 1 else name)
        try:
            configs.append(make_config(merged, f"{source}, training {number}"))
        except UsageError as error:
            problems.append(error)
    if problems:
        hints = dict.fromkeys(line for p in problems for line in p.hint.splitlines())
        raise UsageError("\n".join(p.message for p in problems), "\n".join(hints))
    return Study(name=name, description=description, trainings=tuple(configs))  # type: ignore[arg-type]


def _inherit(body: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """`table` over `body`; tables within are merged key by key."""
    merged = dict(body)
    for key, value in table.items():
        old = merged.get(key)
        merged[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def load_study(path: Path) -> Study:
    """The study in the TOML file `path`."""
    text = store.read_bytes(path, "study file")
    try:
        data = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "see docs/reference/formats.md") from error
    return make_study(data, str(path))

"""Study files: what to train, written as TOML by people, checked at once and completely."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from arzbench import store
from arzbench.errors import UsageError, unknown
from arzbench.study import (
    ALGORITHMS,
    ALIASES,
    Baseline,
    Checkpoints,
    Evaluation,
    Factory,
    Logging,
    LogMode,
    Study,
    TrainConfig,
)
from arzbench.study_values import value_problems


def make_config(table: dict[str, Any], source: str) -> TrainConfig:
    """The `TrainConfig` of one TOML table; all its problems are reported at once.

    Raises:
        UsageError: unknown algorithm, keys or hyper-parameters, or values that do not fit.
    """
    if "factory" in table:
        return _make_factory(table, source)
    algo = table.get("algo")
    tag = algo.lower() if isinstance(algo, str) else ""
    kind = ALGORITHMS.get(ALIASES.get(tag, tag))
    if kind is None:
        error = unknown("algorithm", str(algo), ALGORITHMS)
        raise UsageError(f"{source}: {error.message}", error.hint)
    problems: list[str] = []
    hints: list[str] = []
    given = table.get("hyperparameters", {})
    if not isinstance(given, dict):
        problems.append(f"hyperparameters = {given!r}: not a table")
        given = {}

    def check_names(keys: Iterable[str], valid: Sequence[str], problem: str, hint: str) -> None:
        if wrong := [key for key in keys if key not in valid]:
            problems.extend(problem.format(key) for key in wrong)
            hints.append(f"{hint}: {', '.join(valid)}")

    names, own = kind.schedule_fields(), TrainConfig.__struct_fields__
    valid = sorted({*names, *kind.EXTRA})
    check_names(given, valid, f"{algo} has no hyper-parameter '{{}}'", f"hyper-parameters of {algo}")
    check_names(table, sorted({"algo", *own}), "unknown key '{}'", "keys")
    for name, part in _SUBTABLES.items():
        inside = table.get(name)
        if isinstance(inside, dict):
            fields = part.__struct_fields__
            check_names(inside, fields, f"unknown key '{name}.{{}}'", f"keys of {name}")
    data = {k: v for k, v in table.items() if k in own} | {k: v for k, v in given.items() if k in names}
    data["hyperparameters"] = {k: v for k, v in given.items() if k not in names}
    config, misfits, defaults = _converted(kind, data)
    problems += value_problems(data["hyperparameters"], data.get("wrappers")) + misfits
    if config is None or problems:
        raise UsageError(f"{source}: " + "; ".join(problems), "\n".join(hints + defaults))
    return config


_SUBTABLES: dict[str, type[msgspec.Struct]] = {
    "evaluation": Evaluation,
    "baseline": Baseline,
    "checkpoint": Checkpoints,
    "logging": Logging,
}


#: found anew each time, which takes 2 ms
_fields = functools.cache(msgspec.structs.fields)


def _converted(
    kind: type[TrainConfig], data: dict[str, Any]
) -> tuple[TrainConfig | None, list[str], list[str]]:
    """(the config of what fits; each value that is missing or does not; the defaults of those with one)."""
    config, problems, defaults = None, [], []
    fitting: dict[str, Any] = {"env": "", "total_timesteps": 1, "algo": kind.__struct_config__.tag}
    for field in _fields(kind):
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
        config = msgspec.convert(fitting, kind)
    except msgspec.ValidationError as error:
        problems.append(_message(error, ""))
    return config, problems, defaults


def _make_factory(table: dict[str, Any], source: str) -> Factory:
    """A training whose model a function builds: what that decides has no place here."""
    if beside := sorted(
        set(table) - {"name", "factory", "kwargs", "total_timesteps", "evaluation", "checkpoint"}
    ):
        raise UsageError(
            f"{source}: {', '.join(beside)}: the factory {table['factory']} decides that",
            "leave it out, or give it to the function by kwargs",
        )
    try:
        return msgspec.convert(table, Factory)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {_message(error, '')}", 'factory = "module:function"') from error


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
    return make_study(store.load_toml(path, "study file"), str(path))

"""Hyper-parameters of RL Baselines3 Zoo as a study: its YAML files, one per algorithm, an entry per env.

Texts in it that RL Zoo evaluates as Python are parsed, never run.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from arzbench.errors import UsageError, unknown
from arzbench.study import ALGORITHMS, ALIASES, TrainConfig
from arzbench.study_file import make_config

#: how often rl_zoo3's train.py evaluates unless told otherwise [env steps], and on how many episodes
EVAL_FREQ, EVAL_EPISODES = 25_000, 5
#: keys that change nothing of what is learned
_LEFT_OUT = ("callback", "monitor_kwargs", "tensorboard_log", "verbose")
#: keys that RL Zoo writes as Python
_PYTHON = ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "normalize", "env_kwargs",
           "rollout_buffer_class", "rollout_buffer_kwargs", "train_freq")  # fmt: skip
#: names that RL Zoo's Python may use, and where they are from
_NAMES = {
    "HerReplayBuffer": "stable_baselines3:HerReplayBuffer",
    "RMSpropTFLike": "stable_baselines3.common.sb2_compat.rmsprop_tf_like:RMSpropTFLike",
}
_MODULES = {"nn": "torch.nn", "th": "torch", "torch": "torch", "sb3": "stable_baselines3"}


class Imported(NamedTuple):
    """A study of one training: as a table, checked, and what was left out or assumed."""

    table: dict[str, Any]
    config: TrainConfig
    notes: tuple[str, ...]


def read_zoo(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a file of RL Zoo, by env.

    Raises:
        UsageError: it is none, or PyYAML is not installed.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UsageError(
            "a file of RL Zoo is YAML, and PyYAML is not installed", 'pip install "arzbench[zoo]"'
        ) from error
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "a file of RL Zoo, as ppo.yml") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UsageError(f"{path} is no file of RL Zoo", "one has an entry of hyper-parameters for each env")
    return {str(env): entry for env, entry in entries.items()}


def import_zoo(path: Path, env: str, algo: str | None = None) -> Imported:
    """The study of `env` in the file `path`; the algorithm is the file's name, unless `algo` says it.

    Raises:
        UsageError: no such entry, or a value that a study cannot say.
    """
    entries = read_zoo(path)
    chosen = (algo or path.stem).lower()
    chosen = ALIASES.get(chosen, chosen)
    if chosen not in ALGORITHMS:
        valid = [*ALGORITHMS, *ALIASES]
        raise unknown("algorithm", algo or path.stem, valid, "--algo says what the file is of")
    key = env
    if env not in entries and "atari" in entries and env.startswith("ALE/") | ("NoFrameskip" in env):
        key = "atari"
    elif env not in entries and "default" in entries:
        key = "default"
    if key not in entries:
        raise unknown("env", env, entries, f"in {path}")
    notes = [f"{path.name}, {key!r}"] if key != env else []
    entry = dict(entries[key])
    notes += [f"left out: {name} = {entry.pop(name)!r}" for name in _LEFT_OUT if name in entry]
    try:
        table = _table(entry, env, chosen)
    except ValueError as error:
        hint = "write the study by hand: docs/guides/studies.md"
        raise UsageError(f"{path}, {key!r}: {error}", hint) from error
    return Imported(table, make_config(table, f"{path}, {key!r}"), tuple(notes))


def _table(entry: dict[str, Any], env: str, algo: str) -> dict[str, Any]:
    """The keys of a study for an entry.

    Raises:
        ValueError: a value that a study cannot say.
    """
    values = {name: _value(name, value) for name, value in entry.items() if value is not None}
    n_envs = values.pop("n_envs", 1)
    table: dict[str, Any] = {
        "env": env,
        "algo": algo,
        "policy": _reference(str(values.pop("policy", "MlpPolicy"))),
        "n_envs": n_envs,
        "total_timesteps": values.pop("n_timesteps", None),
        "vec_normalize": values.pop("normalize", False),
        "wrappers": list(_wrappers(values.pop("env_wrapper", []))),
        "frame_stack": values.pop("frame_stack", 0),
        "env_kwargs": values.pop("env_kwargs", {}),
    }
    table |= {name: values.pop(name) for name in ("device", "seed") if name in values}
    if "vec_env_wrapper" in values:
        raise ValueError(f"vec_env_wrapper = {values['vec_env_wrapper']!r}: a study has none of its own")
    if "noise_type" in values:
        kind = "normal" if "normal" in values.pop("noise_type") else "ornstein-uhlenbeck"
        values["action_noise"] = {"kind": kind, "sigma": values.pop("noise_std", 0.1)}
    if table["total_timesteps"] is None:
        raise ValueError("n_timesteps is missing")
    together = n_envs if isinstance(n_envs, int) and n_envs > 0 else 1
    evaluation = {"eval_freq": max(EVAL_FREQ // together, 1), "n_eval_episodes": EVAL_EPISODES}
    said = {name: value for name, value in table.items() if value not in (False, 0, [], {})}
    return {**said, "evaluation": evaluation, "hyperparameters": values}


def _value(name: str, value: Any) -> Any:
    """A value as a study has it: Python parsed, whole numbers whole.

    Raises:
        ValueError: a study has no such values.
    """
    if not _sayable(value):
        raise ValueError(f"{name} = {value!r}: a study has no such values")
    if isinstance(value, str):
        if name in _PYTHON:
            return _parse(name, value.strip())
        try:
            value = float(value)  # YAML takes 1e6 for a text
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() and name in _WHOLE else value


#: keys that RL Zoo writes as 1e6
_WHOLE = {"n_timesteps", "n_envs", "frame_stack"} | {
    name
    for kind in ALGORITHMS.values()
    for name in kind.schedule_fields()
    if not name.startswith("exploration")
}


def _sayable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _sayable(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_sayable, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int | str)


def _wrappers(value: Any) -> Iterator[Any]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict) and len(one) == 1:
            ((name, arguments),) = one.items()
            yield {"class": _reference(str(name)), **(arguments or {})}
        elif isinstance(one, str):
            yield _reference(one)
        else:
            raise ValueError(f"env_wrapper: {one!r} names no class")


def _reference(dotted: str) -> str:
    """`package.module.Class` as `package.module:Class`; a plain name as it is."""
    module, _, name = dotted.rpartition(".")
    return f"{module}:{name}" if module and ":" not in dotted else dotted


def _parse(key: str, text: str) -> Any:
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{key} = {text!r} is no Python expression") from None
    return _literal(tree, key)


def _is_text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _literal(node: ast.expr, key: str) -> Any:
    """What a node of an expression of literals, `dict(...)` and names of classes is.

    Raises:
        ValueError: anything else is in it.
    """
    match node:
        case ast.Constant(value=value) if _sayable(value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_literal(part, key) for part in parts]
        case ast.Dict(keys=[*names], values=parts) if all(_is_text(name) for name in names):
            return {name.value: _literal(part, key) for name, part in zip(names, parts, strict=True)}  # type: ignore[union-attr]
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs) if all(p.arg for p in pairs):
            return {str(pair.arg): _literal(pair.value, key) for pair in pairs}
        case ast.Name() | ast.Attribute():
            dotted = ast.unparse(node)
            first, _, rest = dotted.partition(".")
            if dotted in _NAMES:
                return _NAMES[dotted]
            if first in _MODULES and rest:
                return _reference(f"{_MODULES[first]}.{rest}")
            raise ValueError(f"{key}: where {dotted!r} is from is not known")
    raise ValueError(f"{key}: {ast.unparse(node)!r} is neither a value nor the name of a class")


def as_toml(imported: Imported, name: str) -> str:
    """The study file of what was imported."""
    table = {"schema": "arzbench/study", "version": 1, "name": name, **imported.table}
    lines = [f"# {note}" for note in imported.notes]
    lines += [f"{key} = {_toml(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]"]
            lines += [f"{_toml_key(inner)} = {_toml(v)}" for inner, v in value.items()]
    return "\n".join([*lines, ""])


def _toml(value: Any) -> str:
    """A value of JSON's types, other than null, as TOML writes it within a line."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml_key(k)} = {_toml(v)}" for k, v in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _toml_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)

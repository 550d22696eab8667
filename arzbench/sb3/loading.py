"""Imports what trains a study, without what no training of it uses. Nothing here imports torch by itself."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterable
from typing import Any

import gymnasium
import msgspec

from arzbench.sb3.deferred import COMPILER, SHAPES, defer
from arzbench.sb3.plugins import register_plugins
from arzbench.study import TrainConfig

#: envs that use torch as the library does, or not at all
_KNOWN = ("arzbench.", "gymnasium.envs.")
_resting = False


def load(trainings: Iterable[TrainConfig]) -> None:
    """Import what carries out `trainings`, in a process that runs nothing else.

    The user's own code, and envs of other packages, find all of torch that it has for tensors without data.
    Garbage is not collected before `loaded` is called, and never looked for in what is imported here: that
    would be done again and again, and takes a seventh of the way to the first step.
    """
    global _resting
    _resting = gc.isenabled()
    gc.disable()
    register_plugins()
    known = [_is_known(msgspec.to_builtins(config)) for config in trainings]
    defer(COMPILER, *(SHAPES if all(known) else ()))
    importlib.import_module("arzbench.sb3.workload")
    if _resting:
        gc.freeze()  # before an env or a model is made, which may be large and is to be freed


def loaded() -> None:
    """The training begins: garbage is collected again, if it was before `load`."""
    global _resting
    if _resting:
        gc.enable()
    _resting = False


def _is_known(config: dict[str, Any]) -> bool:
    """Whether a training runs no code but the library's, Gymnasium's and ours."""
    spec = gymnasium.registry.get(config["env"])
    maker = None if spec is None else spec.entry_point
    return isinstance(maker, str) and maker.startswith(_KNOWN) and not _names_code(config)


def _names_code(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_names_code, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and ":" in value

"""What users name as `module:attribute`: installed, in the working folder, or beside the study file."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from arzbench.errors import UsageError
from arzbench.study import is_reference

#: an environment variable, so that processes started from here look there, too
_FOLDERS = "ARZBENCH_MODULES"


def also_from(folder: Path) -> None:
    """Let users' modules be found in `folder`, too."""
    known = [text for text in os.environ.get(_FOLDERS, "").split(os.pathsep) if text]
    path = str(folder.resolve())
    if path not in known:
        os.environ[_FOLDERS] = os.pathsep.join([*known, path])


def import_module(name: str) -> ModuleType:
    """The module `name`; what is installed comes before a file of that name in a user's folder.

    Raises:
        Exception: whatever importing it raises.
    """
    for folder in (*os.environ.get(_FOLDERS, "").split(os.pathsep), os.getcwd()):
        if folder and folder not in sys.path:
            sys.path.append(folder)
    return importlib.import_module(name)


def users_function(reference: str, key: str) -> Any:
    """What `module:name` or `path/file.py:name`, the value of `key`, names.

    Raises:
        UsageError: it cannot be imported.
    """
    file, _, name = reference.rpartition(":")
    if file.endswith(".py"):
        path = Path(file)
        if not path.is_file():
            raise UsageError(f"{key} = {reference!r}: no file {file!r}", "for example train.py:make_model")
        also_from(path.parent)
        reference = f"{path.stem}:{name}"
    if not is_reference(reference):
        raise UsageError(f"{key} = {reference!r}", "write module:function or file.py:function")
    return resolved(reference, key)


def resolved(value: Any, key: str) -> Any:
    """`value` with each `module:attribute` in it, at any depth, replaced by what it names.

    Raises:
        UsageError: one that cannot be imported; the message names its place below `key`.
    """
    if isinstance(value, dict):
        return {name: resolved(inner, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(resolved(inner, f"{key}[{index}]") for index, inner in enumerate(value))
    return _imported(value, key) if is_reference(value) else value


def named_module(module: str, key: str, text: str) -> ModuleType:
    """The module that `text`, the value of `key`, names.

    Raises:
        UsageError: it cannot be imported.
    """
    try:
        return import_module(module)
    except Exception as error:
        reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{key} = {text!r} cannot be imported: {reason}",
            "modules are looked for among what is installed, in this folder, in that of --dir and beside the "
            "study file",
        ) from error


def _imported(text: str, key: str) -> Any:
    module, _, name = text.partition(":")
    found: Any = named_module(module, key, text)
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{key} = {text!r}: {module} has no {name!r}", "write module:attribute")
        found = getattr(found, part)
    return found

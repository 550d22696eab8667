"""The library's own files of a model: whole under their names, or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from arzbench.errors import UsageError


def write_aside(model: Any, path: Path) -> list[tuple[Path, Path]]:
    """Write `model`, and the statistics of its VecNormalize, to files beside their final names.

    Returns (file, final name) of each, on the disk and to be renamed.

    Raises:
        UsageError: they cannot be written.
    """
    normalize = model.get_vec_normalize_env()
    finals = [path]
    if normalize is not None:
        finals.append(path.with_name(f"{path.stem}_vecnormalize.pkl"))
    pairs = [(p.with_name(f".{p.name}.{os.getpid()}.tmp"), p) for p in finals]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pairs[0][0].open("wb") as file:
            model.save(file)
        if normalize is not None:
            normalize.save(str(pairs[1][0]))
        for aside, _ in pairs:
            with aside.open("rb") as file:
                os.fsync(file.fileno())
    except BaseException as error:
        for aside, _ in pairs:
            with contextlib.suppress(OSError):
                aside.unlink()
        if isinstance(error, OSError):
            raise UsageError(f"cannot save to {path}: {error.strerror}", "name another save_path") from error
        raise
    return pairs

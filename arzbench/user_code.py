"""The user's own Python files: told apart from what they were before, and their frames from a library's."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
import traceback
import types
from collections.abc import Mapping
from pathlib import Path

#: packages whose frames in a traceback say nothing to a user
_LIBRARIES = frozenset(
    {"arzbench", "stable_baselines3", "sb3_contrib", "gymnasium", "torch", "numpy", "typer", "click"}
)
_OURS = str(Path(__file__).parent)


def users_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    """`trace` cut to the frames of the user's own code; None where there are none."""
    frames = []
    while trace is not None:
        if not _of_library(trace.tb_frame):
            frames.append(trace)
        trace = trace.tb_next
    cut = None
    for frame in reversed(frames):
        cut = types.TracebackType(cut, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return cut


def _of_library(frame: types.FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return (
        name in _LIBRARIES
        or name in sys.stdlib_module_names
        or frame.f_code.co_filename.startswith((_OURS, "<frozen"))
    )


def users_trace(error: BaseException | None) -> str:
    """Where in the user's own code `error`, or what it came of, was raised; empty where it was not."""
    while error is not None:
        cut = users_frames(error.__traceback__)
        if cut is not None:
            lines = traceback.format_list(traceback.extract_tb(cut))
            if type(error).__module__ != "arzbench.errors":  # its message is shown already
                lines += traceback.format_exception_only(error)
            return "".join(lines).rstrip()
        error = error.__cause__ or error.__context__
    return ""


def loaded_sources(script: str) -> dict[str, str]:
    """SHA-256 of `script` (may be empty) and of each source file below the current folder that was imported.

    By relative path; what is installed is left out.
    """
    here = Path.cwd()
    installed = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")]
    found = {script: source_digest(Path(script))} if script else {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        path = Path(file).absolute() if isinstance(file, str) else None
        if path is None or path.suffix != ".py" or not path.is_relative_to(here):
            continue
        if not any(path.is_relative_to(folder) for folder in (*installed, Path(__file__).parent)):
            found[str(path.relative_to(here))] = source_digest(path)
    return found


def source_digest(path: Path) -> str:
    """The SHA-256 of a file; empty where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def changed_sources(sources: Mapping[str, str]) -> list[str]:
    """Those of `sources` that are not as they were."""
    return [name for name, digest in sources.items() if source_digest(Path(name)) != digest]

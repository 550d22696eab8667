"""The user's own Python files: imported from where they lie, and told apart from what they were before."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path


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

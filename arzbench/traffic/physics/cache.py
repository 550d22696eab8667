"""Keys for Numba's cache on disk."""

import hashlib
from pathlib import Path


def source_tag(*modules: str) -> int:
    """Return a number that changes when any of these modules of this package does.

    Numba recompiles a cached function when its own file changes, not when the files do that it
    takes functions or constants from. What a function closes over is part of its key, so one
    that closes over this number is recompiled then too.
    """
    digest = hashlib.sha256()
    for module in modules:
        digest.update((Path(__file__).parent / f"{module}.py").read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")

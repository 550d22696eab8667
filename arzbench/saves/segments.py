"""The rows of a ring buffer in files of about a megabyte, so that a save writes only what is new.

Rows are cut at fixed places, whatever the moment of the save: a segment that is full never changes and is
shared with later checkpoints by a hard link; the last, unfinished one is written anew each time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from arzbench.saves.arrays import SUFFIX, Array, Outline
from arzbench.training_state import Ring

#: bytes of a full segment, and how many there are at most: beyond, they grow
SEGMENT_BYTES, MAX_SEGMENTS = 1 << 20, 1024
_NAME = re.compile(r"rows-([0-9]{12,18})-([0-9]{12,18})\.\w+")


def name_of(start: int, stop: int) -> str:
    """The file of the rows from `start` to before `stop`."""
    return f"rows-{start:012d}-{stop:012d}{SUFFIX}"


def span(name: str) -> tuple[int, int]:
    """The rows in the segment file `name`: the first, and the one after the last.

    Raises:
        ValueError: it is not the name of a segment.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name[:80]!r} is not a segment")
    return int(match[1]), int(match[2])


def cut(ring: Ring) -> list[tuple[int, int]]:
    """The rows of each segment, oldest first."""
    if not ring.length:
        return []
    row_bytes = sum(array.nbytes for array in ring.arrays.values()) / ring.length
    rows = max(1, int(SEGMENT_BYTES // max(1.0, row_bytes)), math.ceil(ring.length / MAX_SEGMENTS))
    first, total = ring.first, ring.total
    ends = [*range((first // rows + 1) * rows, total, rows), total] if first < total else []
    return list(zip([first, *ends[:-1]], ends, strict=True)) if ends else []


def consecutive(names: Sequence[str], total: int | None, suffix: str) -> bool:
    """Whether `names` are segment files with `suffix` that follow one another up to row `total`."""
    if not total or not names:
        return not total and not names
    try:
        spans = [span(name) for name in names]
    except ValueError:
        return False
    ends = [spans[0][0], *(stop for _, stop in spans)]
    return (
        all(name.endswith(suffix) for name in names)
        and all(start == end and start < stop for (start, stop), end in zip(spans, ends, strict=False))
        and ends[-1] == total
    )


def check(outlines: Mapping[str, Mapping[str, Outline]]) -> None:
    """Raise a `ValueError` unless the segments (name -> its arrays) hold the same arrays and their rows."""
    kinds = None
    for name, arrays in outlines.items():
        start, stop = span(name)
        if any(shape[:1] != (stop - start,) for shape, _ in arrays.values()):
            raise ValueError(f"{name}: it does not hold {stop - start} rows")
        row = {key: (shape[1:], dtype) for key, (shape, dtype) in arrays.items()}
        if kinds is not None and row != kinds:
            raise ValueError(f"{name}: other arrays than in the segment before")
        kinds = row


def joined(parts: Iterable[dict[str, Array]], origin: int, total: int) -> Ring:
    """The ring whose segments are `parts`, in order, from row `origin`."""
    arrays: dict[str, Array] = {}
    at = 0
    for part in parts:
        for name, rows in part.items():
            if name not in arrays:
                arrays[name] = np.empty((total - origin, *rows.shape[1:]), rows.dtype)
            arrays[name][at : at + len(rows)] = rows
        at += max((len(rows) for rows in part.values()), default=0)
    return Ring(arrays=arrays, total=total, origin=origin)

"""Parses and formats durations and sizes."""

from __future__ import annotations

import math
import re

from arzbench.errors import UsageError

_UNIT_S = {
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hr", "hour"), 3600.0),
    **dict.fromkeys(("d", "day"), 86400.0),
    **dict.fromkeys(("w", "week"), 604800.0),
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_SLURM = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")
_LONGEST_S = 36525 * 86400.0
_HINT = "write a number with a unit (45s, 90m, 11h30m, 2d) or a Slurm walltime (1-06:00:00, 12:00:00)"


def parse_duration(text: str) -> float:
    """Parse "12h", "11h30m", "90 min", or a Slurm walltime "1-06:00:00" to seconds.

    Raises:
        UsageError: no unit, an unknown unit, not greater than zero, or longer than a century.
    """
    value = text.strip().lower()
    seconds = _walltime(value) if ":" in value or "-" in value else _with_units(value)
    if seconds is None:
        raise UsageError(f"{text!r} is not a duration", _HINT)
    if seconds > _LONGEST_S:
        raise UsageError(f"the duration {text!r} is longer than a century", _HINT)
    if seconds <= 0:
        raise UsageError(f"the duration {text!r} is not greater than zero", _HINT)
    return seconds


def _with_units(value: str) -> float | None:
    if _PART.sub("", value).strip():
        return None
    total = 0.0
    for number, name in _PART.findall(value):
        unit = _UNIT_S.get(name) or _UNIT_S.get(name.rstrip("s"))
        if unit is None:
            return None
        total += float(number) * unit
    return total if value else None


def _walltime(value: str) -> float | None:
    """Parse Slurm's forms: MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS (sbatch --time)."""
    match = _SLURM.fullmatch(value)
    if match is None:
        return None
    parts = [float(p) for p in match["clock"].split(":")]
    missing = [0.0] * (3 - len(parts))
    hours, minutes, seconds = missing + parts if match["days"] is None else parts + missing
    return float(match["days"] or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def format_duration(seconds: float) -> str:
    """Format `seconds` with the units that matter: 850 us, 3.2 s, 4 min 10 s, 13 h 05 min, 2 d 03 h."""
    if seconds != seconds:
        return "not measured"
    if math.isinf(seconds):
        return "for ever"
    sign = "-" if seconds < 0 else ""
    value = abs(seconds)
    if value == 0:
        return "0 s"
    if value < 0.9995e-3:  # what rounds to 1000 is shown in the next unit
        return f"{sign}{value * 1e6:.3g} us"
    if value < 0.9995:
        return f"{sign}{value * 1e3:.3g} ms"
    if value < 99.95:
        return f"{sign}{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{sign}{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{sign}{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{sign}{whole // 86400} d {whole % 86400 // 3600:02d} h"


def format_bytes(count: float) -> str:
    """Format `count` bytes in decimal units."""
    for name, scale in (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 999.5 * scale:
            return f"{count / scale:.3g} {name}"
    return f"{count / 1e12:.3g} TB"

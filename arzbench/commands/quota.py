"""`arzbench quota`: the weekly ledger of the platforms that have one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec

from arzbench import options
from arzbench.clock import SystemClock
from arzbench.errors import UsageError
from arzbench.options import value
from arzbench.profiles import find_platform, names
from arzbench.quota import Week, add, ledger_path, week
from arzbench.report.console import make_console, show
from arzbench.report.sheets import Sheet
from arzbench.units import format_duration, parse_duration


def quota(
    platform: options.Platform = None,
    used: Annotated[str | None, value("--add", "TIME", "Book time that was used elsewhere.")] = None,
    folder: options.Dir = Path(),
    as_json: options.Json = False,
) -> None:
    """Show what is used, reserved and left of a platform's week."""
    now = SystemClock().wall()
    asked = names(folder, "platforms") if platform is None else [platform]
    limits = {place.name: place.weekly_s for place in (find_platform(folder, name) for name in asked)}
    weekly = {name: seconds for name, seconds in limits.items() if seconds is not None}
    if not weekly:
        raise UsageError(
            f"{platform or 'no platform here'} has no weekly limit",
            "weekly_s = 108000 in profiles/platforms/NAME.toml gives one 30 h",
        )
    if used is not None:
        if platform is None:
            raise UsageError("--add books hours of a platform, and none is named", "add --platform NAME")
        path = ledger_path(folder, next(iter(weekly)))
        add(path, f"by hand {now:%Y%m%dT%H%M%S.%fZ}", now, parse_duration(used))
    weeks = {name: week(ledger_path(folder, name), limit, now) for name, limit in weekly.items()}
    if as_json:
        rows = [
            {
                "platform": name,
                **asdict(one),
                "left_s": one.left_s,
                "reset": None if one.reset is None else one.reset.isoformat(timespec="seconds"),
            }
            for name, one in weeks.items()
        ]
        sys.stdout.buffer.write(msgspec.json.encode(rows) + b"\n")
        return
    show(make_console(), [_sheet(weeks)])


def _sheet(weeks: dict[str, Week]) -> Sheet:
    rows = []
    for name, one in weeks.items():
        times = [format_duration(s) for s in (one.limit_s, one.used_s, one.reserved_s, one.left_s)]
        reset = "-" if one.reset is None else f"{one.reset:%Y-%m-%d %H:%M} UTC"
        rows.append((name, *times, str(one.sessions), reset))
    return Sheet(
        title="the last seven days",
        columns=("platform", "a week", "used", "reserved", "left", "sessions", "reset"),
        align="lrrrrrr",
        rows=tuple(rows),
        notes=(
            "reserved: by sessions that have not told their end, each its whole limit until that has passed",
            "reset: when the oldest session no longer counts; the platform's own week may end earlier",
        ),
    )

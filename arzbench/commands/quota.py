"""`arzbench quota`: the weekly ledger of the platforms that have one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from arzbench import quota
from arzbench.clock import SystemClock
from arzbench.errors import UsageError
from arzbench.profiles import find_platform, names
from arzbench.quota import Week
from arzbench.records import Platform
from arzbench.report.console import make_console, show
from arzbench.report.sheets import Sheet
from arzbench.units import format_duration, parse_duration


def run_quota(*, working: Path, platform: str | None, used: str | None, as_json: bool) -> None:
    """Show each week (None: of all platforms with a weekly limit); `used` is booked first."""
    clock = SystemClock()
    now = clock.wall()
    chosen = _chosen(working, platform)
    if used is not None:
        if platform is None:
            raise UsageError("--add books hours of a platform, and none is named", "add --platform NAME")
        path = quota.ledger_path(working, chosen[0].name)
        quota.add(path, f"by hand {now:%Y%m%dT%H%M%S.%fZ}", now, parse_duration(used))
    weeks = [
        (place, quota.week(quota.ledger_path(working, place.name), _limit(place), now)) for place in chosen
    ]
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode([_as_json(place, week) for place, week in weeks]) + b"\n")
        return
    show(make_console(), [_sheet(weeks)])


def _chosen(working: Path, platform: str | None) -> list[Platform]:
    """The platform named, or all that have a weekly limit."""
    wanted = names(working, "platforms") if platform is None else [platform]
    found = [find_platform(working, name) for name in wanted]
    weekly = [place for place in found if place.weekly_s is not None]
    if not weekly:
        raise UsageError(
            f"{platform or 'no platform here'} has no weekly limit",
            "weekly_s = 108000 in profiles/platforms/NAME.toml gives one 30 h",
        )
    return weekly


def _limit(place: Platform) -> float:
    assert place.weekly_s is not None
    return place.weekly_s


def _as_json(place: Platform, week: Week) -> dict[str, object]:
    return {
        "platform": place.name,
        "limit_s": week.limit_s,
        "used_s": week.used_s,
        "reserved_s": week.reserved_s,
        "left_s": week.left_s,
        "reset": None if week.reset is None else week.reset.isoformat(timespec="seconds"),
        "sessions": week.sessions,
    }


def _sheet(weeks: Sequence[tuple[Platform, Week]]) -> Sheet:
    rows = []
    for place, week in weeks:
        times = [format_duration(s) for s in (week.limit_s, week.used_s, week.reserved_s, week.left_s)]
        reset = "-" if week.reset is None else f"{week.reset:%Y-%m-%d %H:%M} UTC"
        rows.append((place.name, *times, str(week.sessions), reset))
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

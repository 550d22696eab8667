"""`arzbench quota`: the weekly ledger of the platforms that have one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from arzbench.errors import UsageError
from arzbench.options import DirOption, JsonOption, PlatformOption, value

if TYPE_CHECKING:
    from arzbench.quota import Week
    from arzbench.report.sheets import Sheet


def quota(
    platform: PlatformOption = None,
    used: Annotated[str | None, value("--add", "TIME", "Book time that was used elsewhere.")] = None,
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show what is used, reserved and left of a platform's week."""
    import sys

    import msgspec

    from arzbench.clock import SystemClock
    from arzbench.profiles import find_platform, names
    from arzbench.quota import add, ledger_path, week
    from arzbench.report.console import make_console, show
    from arzbench.units import parse_duration

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
        rows = [_as_json(name, one) for name, one in weeks.items()]
        sys.stdout.buffer.write(msgspec.json.encode(rows) + b"\n")
        return
    show(make_console(), [_sheet(weeks)])


def _as_json(name: str, week: Week) -> dict[str, object]:
    return {
        "platform": name,
        "limit_s": week.limit_s,
        "used_s": week.used_s,
        "reserved_s": week.reserved_s,
        "left_s": week.left_s,
        "reset": None if week.reset is None else week.reset.isoformat(timespec="seconds"),
        "sessions": week.sessions,
    }


def _sheet(weeks: dict[str, Week]) -> Sheet:
    from arzbench.report.sheets import Sheet
    from arzbench.units import format_duration

    rows = []
    for name, week in weeks.items():
        times = [format_duration(s) for s in (week.limit_s, week.used_s, week.reserved_s, week.left_s)]
        reset = "-" if week.reset is None else f"{week.reset:%Y-%m-%d %H:%M} UTC"
        rows.append((name, *times, str(week.sessions), reset))
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

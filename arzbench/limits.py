"""What time there is: a quota that was given, or what is left of this session."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from arzbench.clock import Clock, boot_time
from arzbench.errors import UsageError
from arzbench.measure.host import ask_system, gpu_name
from arzbench.predict.plan import LOCAL
from arzbench.profiles import find_platform
from arzbench.quota import Surroundings, detect, ledger_path, session_left, week
from arzbench.records import Platform
from arzbench.units import format_duration, parse_duration

#: the quota that is looked up
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds there are (None: no limit), whose limits count, and where they were detected, how."""

    seconds: float | None
    platform: Platform
    how: str = ""


def find_limits(working: Path, quota: str | None, platform: str | None, clock: Clock) -> Limits:
    """`quota` wins over the platform's session limit; "auto" is what is left of this session.

    Raises:
        UsageError: a quota longer than a session of the platform, or "auto" where nothing tells.
    """
    if quota == AUTO:
        return _detected_limits(working, platform, surroundings(clock))
    chosen = find_platform(working, platform or LOCAL)
    seconds = chosen.session_s if quota is None else parse_duration(quota)
    if seconds is not None and chosen.session_s is not None and seconds > chosen.session_s:
        limit = int(chosen.session_s)
        raise UsageError(
            f"--quota {quota} is longer than a session of {chosen.name} ({limit} s)",
            f"at most --quota {limit}s, or another --platform",
        )
    return Limits(seconds=seconds, platform=chosen)


def surroundings(clock: Clock) -> Surroundings:
    """What tells of a platform here."""
    return Surroundings(
        environ=os.environ, now=clock.wall(), uptime_s=boot_time(), gpu=gpu_name(), ask=ask_system
    )


def _detected_limits(working: Path, platform: str | None, here: Surroundings) -> Limits:
    detected = detect(here)
    chosen = find_platform(working, platform or (detected.platform if detected is not None else "") or LOCAL)
    left, how = session_left(detected, chosen, here)
    if chosen.weekly_s is not None:
        left_of_week = week(ledger_path(working, chosen.name), chosen.weekly_s, here.now).left_s
        if left_of_week <= 0:
            raise UsageError(
                f"--quota auto: nothing is left of the week on {chosen.name}", "see arzbench quota"
            )
        if left_of_week < left:
            left, how = left_of_week, "what is left of the week: arzbench quota"
    return Limits(seconds=left, platform=chosen, how=f"{format_duration(left)} left: {how}")

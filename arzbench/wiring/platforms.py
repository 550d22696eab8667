"""`arzbench plan --platform a,b,c`: the same study and prices under the limits of each."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from arzbench import store
from arzbench.clock import Clock
from arzbench.errors import UsageError, WillNotFitError
from arzbench.profiles import find_platform
from arzbench.records import Plan, Platform
from arzbench.report.console import make_console, say, show
from arzbench.report.sheets import Sheet
from arzbench.study import Study
from arzbench.units import format_duration, parse_duration
from arzbench.wiring.planning import AUTO, Pricing


def compare_platforms(
    pricing: Pricing,
    study: Study | None,
    quota: str | None,
    names: Sequence[str],
    clock: Clock,
    *,
    as_json: bool,
) -> None:
    """Show one line a platform; with `as_json`, all plans as a JSON array.

    Raises:
        UsageError: an unknown platform, or nothing that prices can come from.
    """
    if quota == AUTO:
        raise UsageError("--quota auto is of one platform, the one here", "leave it out: each has its limit")
    places = [find_platform(pricing.working, name) for name in dict.fromkeys(n.strip() for n in names)]
    quota_s = None if not quota else parse_duration(quota)
    plans = [(place, _plan(pricing, study, quota_s, place, clock)) for place in places]
    made = [plan for _, plan in plans if plan is not None]
    if as_json:
        texts = [store.encode("arzbench/plan", plan).strip() for plan in made]
        sys.stdout.buffer.write(b"[" + b",".join(texts) + b"]\n")
        return
    console = make_console()
    if made:
        first = made[0]
        say(console, f"study {first.study.name}: {first.study.total_timesteps:,} training steps")
        say(console, f"prices: {first.calibration_path}")
        say(console, "the limits are each platform's; the prices were measured on "
            f"{first.host.name} ({first.host.device}) alone")  # fmt: skip
    show(console, [_sheet(plans)])


def _plan(
    pricing: Pricing, study: Study | None, quota_s: float | None, place: Platform, clock: Clock
) -> Plan | None:
    """None where not one rollout fits. A quota longer than a session counts as one session."""
    limits = [s for s in (place.session_s, quota_s) if s]
    try:
        return pricing.plan(study, clock, min(limits, default=None), place)[0]
    except WillNotFitError:
        return None


def _sheet(plans: Sequence[tuple[Platform, Plan | None]]) -> Sheet:
    return Sheet(
        title="the whole study on each platform",
        columns=(
            "platform",
            "session",
            "a week",
            "P50",
            "P90",
            "P99",
            "P(fits)",
            "",
            "safe steps",
            "sessions",
        ),
        align="lrrrrrrlrr",
        rows=tuple(_cells(place, plan) for place, plan in plans),
        notes=("safe: training steps that fit a session; sessions: of the whole study, resuming included",),
    )


def _cells(place: Platform, plan: Plan | None) -> tuple[str, ...]:
    weekly = "-" if place.weekly_s is None else format_duration(place.weekly_s)
    if plan is None:
        limit = "-" if place.session_s is None else format_duration(place.session_s)
        return (place.name, limit, weekly, "-", "-", "-", "0%", "too short", "0", "-")
    limit = "-" if plan.quota_s is None else format_duration(plan.quota_s)
    whole = plan.rows[-1]
    estimate = whole.estimate
    times = [format_duration(s) for s in (estimate.p50_s, estimate.p90_s, estimate.p99_s)]
    chance = "-" if whole.probability is None else f"{whole.probability:.0%}"
    verdict = "-" if whole.verdict is None else whole.verdict.value
    safe = "-" if plan.safe_timesteps is None else f"{plan.safe_timesteps:,}"
    entire = [o for o in plan.options if o.budgets == tuple(t.total_timesteps for t in plan.study.trainings)]
    sessions = str(entire[-1].sessions) if entire else "-"
    return (place.name, limit, weekly, *times, chance, verdict, safe, sessions)

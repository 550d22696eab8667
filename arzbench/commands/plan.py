"""`arzbench plan`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from arzbench import options, store
from arzbench.choose_study import DEFAULT_CONFIDENCE
from arzbench.clock import Clock, SystemClock
from arzbench.errors import UsageError, WillNotFitError
from arzbench.limits import AUTO, find_limits
from arzbench.options import as_flags, value
from arzbench.predict.whatif import Question, what_ifs
from arzbench.profiles import find_platform, names, of_machine
from arzbench.records import Calibration, Plan, Platform
from arzbench.report.console import make_console, say, show
from arzbench.report.message_sheets import logging_columns
from arzbench.report.sheets import Sheet, forecast_cells, plan_lines, plan_sheets
from arzbench.study import Study
from arzbench.units import format_duration, parse_duration
from arzbench.wiring.checks import ensure_file, undone
from arzbench.wiring.describing import Naming, is_script
from arzbench.wiring.planning import Pricing


def plan(
    script: options.Script = None,
    arguments: options.Arguments = None,
    factory: options.Factory = None,
    study: options.Study = None,
    env: options.Env = None,
    algo: options.Algo = None,
    changes: options.Set = None,
    quota: options.Quota = None,
    platform: options.Platform = None,
    confidence: options.Confidence = 0.95,
    source: options.From = None,
    allow_foreign: options.Foreign = False,
    allow_expired: options.Expired = False,
    checkpoints: options.Checkpoints = None,
    folder: options.Dir = Path(),
    output: Annotated[Path | None, value("--output", "FILE", "Where to write the plan file.")] = None,
    as_json: options.Json = False,
) -> None:
    """Say what fits: wall times with intervals, a safe budget, and three ways to spend the quota."""
    changes, clock = changes or [], SystemClock()
    naming = Naming(
        script=script,
        arguments=arguments or (),
        factory=factory,
        study=study,
        env=env,
        algo=algo,
        changes=changes,
    )
    chosen = naming.find(folder)
    pricing = Pricing(
        working=folder,
        named=source,
        allow_foreign=allow_foreign,
        allow_expired=allow_expired,
        confidence=confidence,
        changes=tuple(changes),
        uploads=checkpoints is not None,
    )
    named = [("factory", factory), ("study", study), ("env", env), ("algo", algo)]
    named += [("set", change) for change in changes]
    place = [("dir", str(folder))] if folder != Path() else []
    words = [*named[:4], ("quota", quota), ("platform", platform), *named[4:]]
    words += [("confidence", str(confidence))] if confidence != DEFAULT_CONFIDENCE else []
    flags = as_flags([*words, ("from", source), ("checkpoints", checkpoints), *place])
    flags += " --allow-foreign" * allow_foreign + " --allow-expired" * allow_expired
    if chosen is not None and is_script(chosen):
        assert chosen.code is not None
        flags += f" {chosen.code.command}"  # behind all options: its own come last
    if platform is not None and "," in platform:
        if output is not None:
            raise UsageError("--output keeps one plan, and several platforms are compared", "name one")
        compare_platforms(pricing, chosen, quota, platform.split(","), clock, as_json=as_json)
        return
    limits = find_limits(folder, quota, platform, clock)
    made, calibration = pricing.plan(chosen, clock, limits.seconds, limits.platform, flags)
    if made.study.name in names(folder, "studies") and not (study or env):
        named.insert(0, ("study", made.study.name))  # other commands do not take the newest calibration's
    question = Question(
        plan=made,
        calibration=calibration,
        others=of_machine(folder, calibration.host),
        flags=flags,
        study_flags=as_flags([*named, *place]),
    )
    how = (f"quota: {limits.how}",) if limits.how else ()
    made = msgspec.structs.replace(made, what_ifs=what_ifs(question), warnings=(*how, *made.warnings))
    path = _save(made, folder, output)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/plan", made))
        return
    _show(made, calibration, path)


def _show(made: Plan, calibration: Calibration, path: Path) -> None:
    console = make_console()
    for line in plan_lines(made):
        say(console, line)
    show(console, [*plan_sheets(made), *logging_columns(made, calibration)])
    say(console, f"plan file: {path}")


def _save(made: Plan, folder: Path, output: Path | None) -> Path:
    path = output or folder / "reports" / "plans" / f"{made.id}.json"
    with undone(path.parent):
        ensure_file(path, "--dir" if output is None else "--output")
        store.save(path, "arzbench/plan", made)
    return path


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
    safe = "-" if plan.safe_timesteps is None else f"{plan.safe_timesteps:,}"
    entire = [o for o in plan.options if o.budgets == tuple(t.total_timesteps for t in plan.study.trainings)]
    sessions = str(entire[-1].sessions) if entire else "-"
    return (place.name, limit, weekly, *forecast_cells(plan.rows[-1]), safe, sessions)

"""`arzbench plan`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from arzbench import store
from arzbench.choose_study import DEFAULT_CONFIDENCE, choose_study
from arzbench.clock import SystemClock
from arzbench.commands.common import (
    Prices,
    ensure_file,
    find_limits,
    plan_now,
    save_plan_path,
    undone,
)
from arzbench.commands.platforms import PlatformsAsked, compare_platforms
from arzbench.errors import UsageError
from arzbench.predict.whatif import Question, what_ifs
from arzbench.profiles import names, of_machine
from arzbench.records import Plan
from arzbench.report.console import make_console, say, show
from arzbench.report.message_sheets import logging_columns
from arzbench.report.sheets import plan_lines, plan_sheets


def run_plan(
    *,
    working: Path,
    study: str | None,
    env: str | None,
    algo: str | None,
    changes: Sequence[str],
    quota: str | None,
    platform: str | None,
    confidence: float,
    prices: Prices,
    checkpoints: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Plan, write the plan file, show it; several platforms are compared."""
    chosen = choose_study(working, study=study, env=env, algo=algo, changes=changes)
    clock = SystemClock()
    words = [("study", study), ("env", env), ("algo", algo), ("quota", quota), ("platform", platform)]
    words += [("set", change) for change in changes]
    words += [("confidence", str(confidence))] if confidence != DEFAULT_CONFIDENCE else []
    words += [("from", prices.named), ("checkpoints", checkpoints)]
    words += [("dir", str(working))] if working != Path() else []
    flags = _as_flags(words)
    flags += " --allow-foreign" * prices.allow_foreign + " --allow-expired" * prices.allow_expired
    if platform is not None and "," in platform:
        if output is not None:
            raise UsageError("--output keeps one plan, and several platforms are compared", "name one")
        asked = PlatformsAsked(
            working=working,
            study=chosen,
            changes=changes,
            quota=quota,
            platforms=[name.strip() for name in platform.split(",")],
            confidence=confidence,
            prices=prices,
            uploads=checkpoints is not None,
        )
        compare_platforms(asked, clock, as_json=as_json)
        return
    limits = find_limits(working, quota, platform, clock)
    plan, _, calibration = plan_now(
        working,
        chosen,
        clock,
        quota_s=limits.seconds,
        platform=limits.platform,
        confidence=confidence,
        prices=prices,
        flags=flags,
        changes=changes,
        uploads=checkpoints is not None,
    )
    question = Question(
        plan=plan,
        calibration=calibration,
        others=of_machine(working, calibration.host),
        flags=flags,
        study_flags=_as_flags(_naming(words, working, plan)),
    )
    how = (f"quota: {limits.how}",) if limits.how else ()
    plan = msgspec.structs.replace(plan, what_ifs=what_ifs(question), warnings=(*how, *plan.warnings))
    path = output or save_plan_path(working, plan)
    with undone(path.parent):
        ensure_file(path, "--dir" if output is None else "--output")
        store.save(path, "arzbench/plan", plan)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/plan", plan))
        return
    console = make_console()
    for line in plan_lines(plan):
        say(console, line)
    columns = logging_columns(plan, calibration)
    show(console, [*plan_sheets(plan), *([columns] if columns is not None else [])])
    say(console, f"plan file: {path}")


def _as_flags(words: Sequence[tuple[str, str | None]]) -> str:
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in words if value is not None)


def _naming(
    words: Sequence[tuple[str, str | None]], working: Path, plan: Plan
) -> list[tuple[str, str | None]]:
    """The words that name the study, for a command that does not take the newest calibration's."""
    kept = [w for w in words if w[0] in ("study", "env", "algo", "set", "dir")]
    if plan.study.name in names(working, "studies") and not any(
        w[0] in ("study", "env") and w[1] for w in kept
    ):
        kept.insert(0, ("study", plan.study.name))
    return kept

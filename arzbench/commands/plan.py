"""`arzbench plan`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from arzbench import store
from arzbench.clock import SystemClock
from arzbench.commands.common import (
    Prices,
    ensure_file,
    plan_now,
    quota_and_platform,
    save_plan_path,
    undone,
)
from arzbench.profiles import of_machine
from arzbench.report.logsheets import logging_columns
from arzbench.report.render import make_console, say, show
from arzbench.report.sheets import plan_lines, plan_sheets
from arzbench.settings import DEFAULT_CONFIDENCE, choose_study
from arzbench.whatif import Question, what_ifs


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
    output: Path | None,
    as_json: bool,
) -> None:
    """Plan, write the plan file, show it."""
    quota_s, place = quota_and_platform(working, quota, platform)
    chosen = choose_study(working, study=study, env=env, algo=algo, changes=changes)
    words = [("study", study), ("env", env), ("algo", algo), ("quota", quota), ("platform", platform)]
    words += [("set", change) for change in changes]
    words += [("confidence", str(confidence))] if confidence != DEFAULT_CONFIDENCE else []
    words += [("from", prices.named)]
    words += [("dir", str(working))] if working != Path() else []
    flags = _as_flags(words)
    flags += " --allow-foreign" * prices.allow_foreign + " --allow-expired" * prices.allow_expired
    plan, _, calibration = plan_now(
        working,
        chosen,
        SystemClock(),
        quota_s=quota_s,
        platform=place,
        confidence=confidence,
        prices=prices,
        flags=flags,
        changes=changes,
    )
    question = Question(
        plan=plan,
        calibration=calibration,
        others=of_machine(working, calibration.host),
        flags=flags,
        study_flags=_as_flags([w for w in words if w[0] in ("study", "env", "algo", "set", "dir")]),
    )
    plan = msgspec.structs.replace(plan, what_ifs=what_ifs(question))
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

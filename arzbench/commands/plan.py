"""`arzbench plan`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from arzbench.errors import UsageError
from arzbench.options import (
    AlgoOption,
    CheckpointsOption,
    ConfidenceOption,
    DirOption,
    EnvOption,
    ExpiredOption,
    ForeignOption,
    FromOption,
    JsonOption,
    PlatformOption,
    QuotaOption,
    SetOption,
    StudyOption,
    value,
)

if TYPE_CHECKING:
    from arzbench.records import Calibration, Plan

_Flags = Sequence[tuple[str, str | None]]


def plan(
    study: StudyOption = None,
    env: EnvOption = None,
    algo: AlgoOption = None,
    changes: SetOption = None,
    quota: QuotaOption = None,
    platform: PlatformOption = None,
    confidence: ConfidenceOption = 0.95,
    source: FromOption = None,
    allow_foreign: ForeignOption = False,
    allow_expired: ExpiredOption = False,
    checkpoints: CheckpointsOption = None,
    folder: DirOption = Path(),
    output: Annotated[Path | None, value("--output", "FILE", "Where to write the plan file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what fits: wall times with intervals, a safe budget, and three ways to spend the quota."""
    import sys

    import msgspec

    from arzbench import store
    from arzbench.choose_study import DEFAULT_CONFIDENCE, choose_study
    from arzbench.clock import SystemClock
    from arzbench.predict.whatif import Question, what_ifs
    from arzbench.profiles import names, of_machine
    from arzbench.wiring.planning import Pricing, find_limits

    changes, clock = changes or [], SystemClock()
    chosen = choose_study(folder, study=study, env=env, algo=algo, changes=changes)
    pricing = Pricing(
        working=folder,
        named=source,
        allow_foreign=allow_foreign,
        allow_expired=allow_expired,
        confidence=confidence,
        changes=tuple(changes),
        uploads=checkpoints is not None,
    )
    naming = [("study", study), ("env", env), ("algo", algo), *(("set", c) for c in changes)]
    place = [("dir", str(folder))] if folder != Path() else []
    words = [*naming[:3], ("quota", quota), ("platform", platform), *naming[3:]]
    words += [("confidence", str(confidence))] if confidence != DEFAULT_CONFIDENCE else []
    flags = _as_flags([*words, ("from", source), ("checkpoints", checkpoints), *place])
    flags += " --allow-foreign" * allow_foreign + " --allow-expired" * allow_expired
    if platform is not None and "," in platform:
        if output is not None:
            raise UsageError("--output keeps one plan, and several platforms are compared", "name one")
        from arzbench.wiring.platforms import compare_platforms

        compare_platforms(pricing, chosen, quota, platform.split(","), clock, as_json=as_json)
        return
    limits = find_limits(folder, quota, platform, clock)
    made, calibration = pricing.plan(chosen, clock, limits.seconds, limits.platform, flags)
    if made.study.name in names(folder, "studies") and not (study or env):
        naming.insert(0, ("study", made.study.name))  # other commands do not take the newest calibration's
    question = Question(
        plan=made,
        calibration=calibration,
        others=of_machine(folder, calibration.host),
        flags=flags,
        study_flags=_as_flags([*naming, *place]),
    )
    how = (f"quota: {limits.how}",) if limits.how else ()
    made = msgspec.structs.replace(made, what_ifs=what_ifs(question), warnings=(*how, *made.warnings))
    path = _save(made, folder, output)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/plan", made))
        return
    _show(made, calibration, path)


def _show(made: Plan, calibration: Calibration, path: Path) -> None:
    from arzbench.report.console import make_console, say, show
    from arzbench.report.message_sheets import logging_columns
    from arzbench.report.sheets import plan_lines, plan_sheets

    console = make_console()
    for line in plan_lines(made):
        say(console, line)
    show(console, [*plan_sheets(made), *logging_columns(made, calibration)])
    say(console, f"plan file: {path}")


def _save(made: Plan, folder: Path, output: Path | None) -> Path:
    from arzbench import store
    from arzbench.wiring.checks import ensure_file, undone

    path = output or folder / "reports" / "plans" / f"{made.id}.json"
    with undone(path.parent):
        ensure_file(path, "--dir" if output is None else "--output")
        store.save(path, "arzbench/plan", made)
    return path


def _as_flags(words: _Flags) -> str:
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in words if value is not None)

"""What `arzbench calibrate --tune` found, as a table and the answer in words."""

from __future__ import annotations

from collections.abc import Sequence

from arzbench.records import TunedSetting, Tuning
from arzbench.report.sheets import Sheet
from arzbench.units import format_duration


def tuning_sheets(tuning: Tuning) -> list[Sheet]:
    """All candidates, the fastest first; their commands and what they change below."""
    rows, notes = [], []
    for number, setting in enumerate(tuning.settings, 1):
        rows.append((str(number), setting.title, *_cells(setting)))
        reason = setting.note or setting.why
        notes.append(f"{number}: {setting.command}{f'   ({reason})' if reason else ''}")
    noise = (
        "how much processes of one candidate differ was not measured"
        if tuning.noise is None
        else f"processes of one candidate differed by {tuning.noise:.1%}"
    )
    return [
        Sheet(
            title=f"the whole study {tuning.study.name} ({tuning.study.total_timesteps:,} training steps)",
            columns=("", "settings", "P50", "95 % of runs", "saves", "95 %", "results", "processes", ""),
            align="llrrrrlrl",
            rows=tuple(rows),
            notes=(
                f"saves: against the study as written; intervals for all comparisons together; {noise}",
                *notes,
            ),
        )
    ]


def _cells(setting: TunedSetting) -> tuple[str, ...]:
    processes = str(setting.processes or "-")
    if setting.estimate is None:
        return ("-", "-", "-", "-", setting.results, processes, setting.verdict)
    between = _range(setting.low_s, setting.high_s)
    saved = "-" if setting.saved_s is None else format_duration(setting.saved_s)
    saved_between = _range(setting.saved_low_s, setting.saved_high_s)
    p50 = format_duration(setting.estimate.p50_s)
    return (p50, between, saved, saved_between, setting.results, processes, setting.verdict)


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{format_duration(low)}, {format_duration(high)}]"


def tuning_lines(tuning: Tuning) -> list[str]:
    """The answer: what to run, or that nothing is clearly faster."""
    lines = [f"took {format_duration(tuning.took_s)}"]
    if tuning.interrupted:
        lines.append("interrupted: what was measured until then is kept, and was judged")
    by_title = {setting.title: setting for setting in tuning.settings}
    if not tuning.recommended:
        return [*lines, _nothing(tuning), "next: arzbench plan --quota 12h"]
    lines += _recommendation("fastest", by_title[tuning.recommended], tuning.equal)
    if tuning.recommended != tuning.same_training:
        lines += (
            _recommendation("fastest that learns the same", by_title[tuning.same_training], ())
            if tuning.same_training
            else ["nothing that learns the same is clearly faster than the study as written"]
        )
    return lines


def _recommendation(what: str, setting: TunedSetting, equal: Sequence[str]) -> list[str]:
    assert setting.estimate is not None
    assert setting.saved_s is not None
    lines = [
        f"{what}: {setting.title}, {format_duration(setting.estimate.p50_s)} for the whole study, "
        f"saves {format_duration(setting.saved_s)} "
        f"{_range(setting.saved_low_s, setting.saved_high_s)}; results: {setting.results}"
        + (f" ({setting.why})" if setting.why else "")
    ]
    if equal:
        names = "; ".join([setting.title, *equal])
        lines.append(f"  no clear winner among {names}: shown is the one that changes the least")
    return [*lines, f"  {setting.command}"]


def _nothing(tuning: Tuning) -> str:
    judged = [s for s in tuning.settings if s.processes > 1]
    equal = [s.title for s in judged if s.verdict in ("equal", "as written")]
    if len(equal) > 1:
        return f"no clear winner among {'; '.join(equal)}: keep the study as written"
    return "nothing measured is clearly faster than the study as written: keep it"

"""What a run did, as sheets: predicted against actual, time per phase, evaluations, sessions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from arzbench import store
from arzbench.facts import Phase
from arzbench.records import CostModel, LedgerEntry, Plan, RunRecord
from arzbench.report.console import to_markdown
from arzbench.report.sheets import Sheet, host_line, study_line
from arzbench.run.ledger import Summary
from arzbench.runs import Run
from arzbench.units import format_duration
from arzbench.workload import FIRST, LAST


def head_lines(record: RunRecord, summary: Summary) -> list[str]:
    """What stands above the tables."""
    stop = summary.stop
    if stop is None:
        ended = "no end recorded: it is running, or was killed" if summary.sessions else "not begun"
    else:
        detail = stop.data.get("detail")
        ended = f"{stop.data.get('said', 'ended')}{f' ({detail})' if detail else ''}"
    return [
        f"run {record.id}: {ended}",
        f"study {study_line(record.study)}",
        f"budget: {sum(record.budgets):,} steps ({record.why})",
        f"host: {host_line(record.host)}",
    ]


def write_summary(run: Run, summary: Summary, output: Path | None = None) -> Path:
    """Write summary.md into the run's folder, and to `output` as well; the path last written."""
    lines = [f"# {run.record.id}", "", *(f"- {line}" for line in head_lines(run.record, summary)), ""]
    sheets = run_sheets(run.record, summary, run.plan())
    text = "\n".join([*lines, *(to_markdown(sheet) for sheet in sheets)])
    path = run.folder / "summary.md"
    store.write_atomic(path, text.encode())
    if output is not None:
        store.write_atomic(output, text.encode())
        return output
    return path


def run_record(record: RunRecord, summary: Summary) -> dict[str, object]:
    """Everything the tables are made of, for JSON."""
    return {
        "run": msgspec.to_builtins(record),
        "elapsed_s": summary.elapsed_s,
        "lost_s": summary.lost_s,
        "phases": {p.value: {"seconds": t.seconds, "units": t.units} for p, t in summary.phases.items()},
        "entries": summary.entries,
    }


def run_sheets(record: RunRecord, summary: Summary, plan: Plan | None) -> list[Sheet]:
    """All tables of a run; those with nothing to tell are left out."""
    sheets = [_prediction_sheet(record, summary), _phase_sheet(record, summary, plan)]
    evaluations = _evaluation_sheet(record, summary)
    if evaluations.rows:
        sheets.append(evaluations)
    sheets.append(_session_sheet(summary))
    return sheets


def steps_done(summary: Summary) -> int:
    """Training env steps of the whole job."""
    last: dict[int, int] = {}
    for entry in summary.kept:
        if entry.kind != "session":
            last[entry.training] = max(last.get(entry.training, 0), entry.step)
    return sum(last.values())


def _prediction_sheet(record: RunRecord, summary: Summary) -> Sheet:
    actual = summary.elapsed_s
    steps = steps_done(summary)
    rows = [("training steps", f"{sum(record.budgets):,}", f"{steps:,}", _ratio(steps, sum(record.budgets)))]
    notes = []
    if record.predicted is not None:
        middle = record.predicted.p50_s
        rows.append(
            ("wall time (P50)", format_duration(middle), format_duration(actual), _ratio(actual, middle))
        )
        within = "within" if actual <= record.predicted.p90_s else "beyond"
        notes.append(
            f"predicted P90 {format_duration(record.predicted.p90_s)}, P99 "
            f"{format_duration(record.predicted.p99_s)}: the actual time lies {within} the P90"
        )
        if len(summary.sessions) > 1 or steps < sum(record.budgets):
            notes.append("the prediction was for the whole budget in one session, uninterrupted")
    else:
        rows.append(("wall time", "not predicted", format_duration(actual), "-"))
    if summary.lost_s > 0:
        notes.append(f"{format_duration(summary.lost_s)} of work was lost to kills and done again")
    return Sheet(
        title="predicted against actual",
        columns=("", "predicted", "actual", "actual/predicted"),
        align="lrrr",
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _ratio(actual: float, predicted: float) -> str:
    return f"{actual / predicted:.2f}" if predicted else "-"


def _phase_sheet(record: RunRecord, summary: Summary, plan: Plan | None) -> Sheet:
    models = {m.workload: m for m in plan.models} if plan is not None else {}
    model = models.get(record.study.trainings[0].workload_digest())
    total = summary.elapsed_s
    rows = []
    accounted = 0.0
    for phase in Phase:
        done = summary.phases.get(phase)
        if done is None or not done.units:
            continue
        accounted += done.seconds
        planned, ratio = _planned(model, phase, done.mean_s)
        share = f"{done.seconds / total:.1%}" if total else "-"
        cells = (phase.value, f"{done.units:,}", format_duration(done.seconds), share)
        rows.append((*cells, format_duration(done.mean_s), planned, ratio))
    return Sheet(
        title="where the time went",
        columns=("phase", "n", "time", "share", "per unit", "calibrated", "ratio"),
        align="lrrrrrr",
        rows=tuple(rows),
        notes=(
            f"{format_duration(max(0.0, total - accounted))} of {format_duration(total)} is in no phase "
            "(the guard, the display, the ledger, and what a kill left unreported)",
            *_how(record, summary),
        ),
    )


def _how(record: RunRecord, summary: Summary) -> list[str]:
    """How policies and updates were computed, of all trainings at once where it is the same."""
    said: dict[str, dict[str, None]] = {}
    for entry in summary.of_kind("computed"):
        name = record.study.trainings[entry.training].name
        said.setdefault(str(entry.data.get("said")), {})[name] = None
    if len(said) == 1:
        return [f"policy and updates: {text}" for text in said]
    return [f"policy and updates of {', '.join(names)}: {text}" for text, names in said.items()]


def _planned(model: CostModel | None, phase: Phase, actual: float) -> tuple[str, str]:
    """The calibrated price of a phase with one price, and actual / calibrated."""
    price = model.get(phase) if model is not None else None
    if price is None or price.per_size_s or phase is Phase.JIT or not price.fixed_s:
        return "-", "-"
    return format_duration(price.fixed_s), f"{actual / price.fixed_s:.2f}"


def _evaluation_sheet(record: RunRecord, summary: Summary) -> Sheet:
    rows = []
    for entry in _shown(summary.of_kind("evaluation")):
        returns = [float(r) for r in entry.data.get("returns", ())]
        lengths = [float(n) for n in entry.data.get("lengths", ())]
        if not returns:
            continue
        spread = statistics.stdev(returns) if len(returns) > 1 else 0.0
        name = record.study.trainings[entry.training].name
        step = int(entry.data.get("num_timesteps", entry.step))
        cells = (name, str(entry.data.get("evaluation", "evaluation")), f"{step:,}", str(len(returns)))
        rows.append(
            (*cells, f"{statistics.fmean(returns):.5g}", f"{spread:.3g}", f"{statistics.fmean(lengths):.0f}")
        )
    return Sheet(
        title="evaluations",
        columns=("training", "kind", "step", "episodes", "mean return", "std", "mean length"),
        align="llrrrrr",
        rows=tuple(rows),
        notes=tuple(_how_evaluated(record, summary)),
    )


def _how_evaluated(record: RunRecord, summary: Summary) -> Iterator[str]:
    """How many of each training's periodic evaluations were played beside it, and why others were not."""
    for index, training in enumerate(record.study.trainings):
        told = [e.data for e in summary.of_kind("evaluation", index)]
        beside = [float(data["beside_s"]) for data in told if "beside_s" in data]
        reasons = [str(data["inline"]) for data in told if "inline" in data]
        waits = dict.fromkeys(why for why in reasons if why not in (FIRST, LAST))
        if beside:
            took, whole = format_duration(sum(beside)), len(beside) + len(reasons)
            yield f"{training.name}: {len(beside)} of {whole} beside the training, {took} on another core"
        if waits:
            yield f"{training.name} waited for {'some' if beside else 'evaluations'}: {'; '.join(waits)}"


def _shown(entries: Sequence[LedgerEntry], most: int = 12) -> list[LedgerEntry]:
    """At most `most` entries, evenly chosen, first and last among them."""
    if len(entries) <= most:
        return list(entries)
    return [entries[round(i * (len(entries) - 1) / (most - 1))] for i in range(most)]


def _session_sheet(summary: Summary) -> Sheet:
    rows = []
    began = 0.0
    entries: dict[int, list[LedgerEntry]] = {}
    for entry in summary.entries:
        entries.setdefault(entry.session, []).append(entry)
    for session in summary.sessions:
        own = entries[session.session]
        stop = next((e for e in own if e.kind == "stop"), None)
        reason = (
            stop.data.get("said", "") if stop is not None else "no end recorded (killed, or still running)"
        )
        slack = stop.data.get("slack_s") if stop is not None else None
        resumed = session.data.get("resumed_from") or "the beginning"
        tiers = {str(e.data.get("tier")) for e in own if e.kind == "resumed"}
        resumed = f"{resumed} ({', '.join(sorted(tiers))})" if tiers else resumed
        took, began = own[-1].elapsed_s - began, own[-1].elapsed_s
        shown = "-" if slack is None else format_duration(float(slack))
        rows.append((str(session.session), str(resumed), format_duration(took), shown, str(reason)))
    return Sheet(
        title="sessions",
        columns=("", "from", "took", "left of its quota", "ended"),
        align="llrrl",
        rows=tuple(rows),
    )

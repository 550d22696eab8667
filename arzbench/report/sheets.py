"""Tables without a medium: rows of text built from records, rendered by `render`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from arzbench.facts import Phase
from arzbench.predict.beside import beside_share
from arzbench.predict.costmodel import fit, models_for, phase_seconds, priced
from arzbench.predict.schedule import count_training, total_env_steps
from arzbench.records import (
    Calibration,
    CostModel,
    HostInfo,
    Plan,
    TableRow,
    TrainSchedule,
    Verdict,
    WhatIf,
    WorkloadSamples,
)
from arzbench.study import Study
from arzbench.units import format_bytes, format_duration


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """A titled table; `align` holds one of l, r per column; `notes` stand below it."""

    title: str
    columns: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def count_range(pair: tuple[float, float]) -> str:
    """A count, or its range where an episode's length is only known within bounds."""
    low, high = round(pair[0]), round(pair[1])
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def host_line(host: HostInfo) -> str:
    """One line that names a machine; what an imported calibration does not tell is left out."""
    parts = [f"{host.cores} cores"] if host.cores else []
    parts += [format_bytes(host.memory_bytes)] if host.memory_bytes else []
    parts += [f"device {host.device}"]
    parts += [f"{host.torch_threads} torch thread(s)"] if host.torch_threads else []
    return f"{host.name}: " + ", ".join(
        [f"CPU {host.cpu}" if not host.cores else host.cpu, *parts, f"Python {host.python}"]
    )


def calibration_sheets(calibration: Calibration) -> list[Sheet]:
    """Per workload: what each phase costs and its share of the study."""
    sheets = []
    for samples in calibration.workloads:
        model = fit(samples)
        same = [t for t in calibration.study.trainings if t.workload_digest() == samples.workload]
        schedules = [count_training(t, model.facts, state_bytes=model.state_bytes) for t in same]
        sheets.append(_phase_sheet(samples, model, schedules, calibration))
    return sheets


def _phase_sheet(
    samples: WorkloadSamples, model: CostModel, schedules: Sequence[TrainSchedule], calibration: Calibration
) -> Sheet:
    shares = phase_seconds(model, schedules)
    total = sum(shares.values())
    rows = []
    for phase in Phase:
        for variant in ("cold", "warm") if phase is Phase.JIT else ("",):
            values, units = _measured(samples, phase, variant)
            if not values:
                continue
            label = f"{phase.value} ({variant})" if variant else phase.value
            middle, high = (format_duration(float(np.percentile(values, p))) for p in (50, 95))
            share = shares.get(phase, 0.0) if variant != "cold" else 0.0
            shown = f"{share / total:.1%}" if total and share else "-"
            rows.append((label, f"{units:,}", middle, high, shown))
    length, bound = model.facts.eval_length()
    notes = [
        f"shares of the planned {sum(s.total_timesteps for s in schedules):,} training steps "
        f"({count_range(total_env_steps(schedules))} env steps in all)",
        f"between processes the price of a training step varied by {calibration.drift:.0%}",
        *samples.notes,
    ]
    if price := model.beside:
        notes.append(
            f"beside an evaluation a training step takes {price.slow_down:.2f} times as long "
            f"(standard error {price.error:.2f}, {price.n:,} steps); beginning one and taking its result "
            f"takes {format_duration(price.start_s)}"
        )
    if bound > length * 1.001:
        notes.append(f"evaluation episodes: {length:.0f} steps here, {bound:.0f} at most")
    config = samples.config
    return Sheet(
        title=f"{config.algo.upper()} on {config.env}: seconds per unit of each phase",
        columns=("phase", "n", "median", "p95", "share of the run"),
        align="lrrrr",
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _measured(samples: WorkloadSamples, phase: Phase, variant: str) -> tuple[list[float], int]:
    """Seconds per unit of single measurements (warm-ups left out), and how many units they hold."""
    if phase is Phase.FIRST:
        excess = [p for p in fit(samples).coefficients if p.phase is phase]
        return [p.fixed_s for p in excess], sum(p.n for p in excess)
    own = [i for i in priced(samples, samples.config.logging.mode) if i.phase is phase]
    items = [i for i in own if not variant or i.variant == variant]
    return [v for i in items for v in i.per_unit()], sum(i.count for i in items)


def plan_sheets(plan: Plan) -> list[Sheet]:
    """The wall-time table and the three options; where the study does not fit, what would make it."""
    sheets = [_wall_time_sheet(plan), _option_sheet(plan)]
    if plan.what_ifs and plan.rows[-1].verdict in (Verdict.AT_RISK, Verdict.TIMES_OUT):
        sheets.append(_what_if_sheet(plan))
    return sheets


def forecast_cells(row: TableRow | WhatIf) -> tuple[str, ...]:
    """P50, P90, P99, the chance that it fits, and the verdict; "-" for what is not there."""
    end = row.estimate
    times = ("-",) * 3 if end is None else map(format_duration, (end.p50_s, end.p90_s, end.p99_s))
    chance = "-" if row.probability is None else f"{row.probability:.0%}"
    return (*times, chance, "-" if row.verdict is None else row.verdict.value)


def _wall_time_sheet(plan: Plan) -> Sheet:
    quota = "no quota" if plan.quota_s is None else format_duration(plan.quota_s)
    return Sheet(
        title=f"wall time on {plan.platform.name} ({quota})",
        columns=("steps", "trained", "hidden", "P50", "P90", "P99", "P(fits)", ""),
        align="lrrrrrrl",
        rows=tuple(
            (row.label, f"{row.total_timesteps:,}", count_range(row.hidden_steps), *forecast_cells(row))
            for row in plan.rows
        ),
        notes=(
            "trained: in whole rollouts; hidden: env steps of evaluations and baselines; "
            "rows with a number alone: the study's first training",
            *plan.rows[-1].estimate.notes,
        ),
    )


def _option_sheet(plan: Plan) -> Sheet:
    rows = []
    for option in plan.options:
        chance = "-" if option.probability is None else f"{option.probability:.0%}"
        cells = (option.key, option.title, f"{option.total_timesteps:,}", str(option.sessions))
        rows.append((*cells, format_duration(option.estimate.p50_s), chance))
    return Sheet(
        title="ways to spend it",
        columns=("", "option", "steps", "sessions", "P50", "P(fits)"),
        align="llrrrr",
        rows=tuple(rows),
        notes=tuple(f"{o.key}: {o.command}" for o in plan.options),
    )


def _what_if_sheet(plan: Plan) -> Sheet:
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for number, item in enumerate(plan.what_ifs, 1):
        saved = "not measured" if item.saved_s is None else format_duration(item.saved_s)
        rows.append((str(number), item.title, saved, *forecast_cells(item)))
        words = "; ".join(filter(None, (item.results, item.note)))
        notes.append(f"{number}: {item.command}{f'   ({words})' if words else ''}")
    return Sheet(
        title="what would make it fit: the whole study with one change",
        columns=("", "change", "saves", "P50", "P90", "P99", "P(fits)", ""),
        align="llrrrrrl",
        rows=tuple(rows),
        notes=tuple(notes),
    )


def plan_lines(plan: Plan) -> list[str]:
    """What stands above the tables: what the figures rest on, and the answer."""
    trained = plan.study.total_timesteps
    low, high = total_env_steps(plan.schedules)
    hidden = (low - trained, high - trained)
    lines = [
        f"study {plan.study.name}: {trained:,} training steps in {len(plan.study.trainings)} training(s), "
        f"{count_range((low, high))} env steps in all ({hidden[1] / high:.1%} of them hidden)",
        f"prices: {plan.calibration_path}",
        f"host: {host_line(plan.host)}",
        f"spread: {plan.spread.source}",
    ]
    if plan.foreign:
        lines.append(f"not measured here: the calibration's host differs in {', '.join(plan.foreign)}")
    lines += _evaluation_line(plan)
    if plan.quota_s is not None and plan.safe_timesteps is not None:
        lines.append(
            f"safe budget: {plan.safe_timesteps:,} steps end within {format_duration(plan.quota_s)} "
            f"in {plan.confidence:.0%} of such runs"
        )
    return [*lines, *plan.warnings]


def _evaluation_line(plan: Plan) -> list[str]:
    """Evaluation's share of the env steps: during the trainings, and with the episodes after them."""
    pairs = list(zip(plan.study.trainings, plan.schedules, strict=True))
    _, whole = total_env_steps(plan.schedules)
    evaluated = sum(s.get(Phase.EVAL_STEP).high for _, s in pairs)
    if not evaluated:
        return []
    after = 0.0
    for config, schedule in pairs:
        during = schedule.evaluations * config.evaluation.n_eval_episodes
        episodes = during + config.evaluation.final_episodes
        after += schedule.get(Phase.EVAL_STEP).high * config.evaluation.final_episodes / max(1, episodes)
    within = evaluated - after
    line = f"evaluation: {within / whole:.1%} of the env steps ({within:,.0f}) during the trainings"
    line += f", {evaluated / whole:.1%} ({evaluated:,.0f}) with the episodes after them" if after else ""
    models = models_for(plan.study, {model.workload: model for model in plan.models})
    shares = [beside_share(m, s) for m, s in zip(models, plan.schedules, strict=True) if m.beside is not None]
    number, pays_s, takes_s = (sum(column) for column in zip((0, 0.0, 0.0), *shares, strict=True))
    if not number:
        return [line]
    evaluations = sum(schedule.evaluations for schedule in plan.schedules)
    played = f"{number:,} of {evaluations:,} evaluations are played beside the training"
    return [line, f"{played}, which pays for {pays_s / takes_s:.0%} of their time"]


def study_line(study: Study) -> str:
    """One line that names a study."""
    kinds = sorted({f"{t.algo.upper()} on {t.env}" for t in study.trainings})
    return f"{study.name}: {', '.join(kinds)}, {study.total_timesteps:,} training steps"

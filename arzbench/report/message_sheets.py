"""What messages cost: by sink as calibrated, and what that makes of a plan's wall times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
import numpy as np

from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.logs.periodic import AUTO_SHARE, smallest_period
from arzbench.predict.costmodel import fit, seconds_per_step
from arzbench.predict.plan import STEPS, planner_for
from arzbench.records import Calibration, CostModel, Plan, WorkloadSamples
from arzbench.report.sheets import Sheet
from arzbench.study import Study
from arzbench.units import format_duration

_SINKS = ("null", "file", "pipe", "terminal")
_DRAWS = 2000


def messages_measured(samples: WorkloadSamples) -> bool:
    """Whether there is anything to say of messages: the env has its own, or the study logs."""
    return samples.config.logging.mode != "off" or any(":" in item.variant for item in samples.phases)


def message_sheets(calibration: Calibration) -> list[Sheet]:
    """Per workload with messages: what they cost by mode, and by where they go."""
    sheets: list[Sheet] = []
    for samples in filter(messages_measured, calibration.workloads):
        sheets += [_mode_sheet(samples), *_sink_sheet(samples)]
    return sheets


def _mode_sheet(samples: WorkloadSamples) -> Sheet:
    base = seconds_per_step(samples, "off")
    names = {
        "off": "off",
        "periodic": f"one call in {samples.config.logging.log_period:,}",
        "every": "every call",
    }
    rows = []
    for mode, name in names.items():
        value = seconds_per_step(samples, mode)
        shown = format_duration(value) if value is not None else "not measured"
        rows.append((name, shown, f"x{value / base:.2f}" if value is not None and base else "not measured"))
    return Sheet(
        title="what the env's messages cost (written nowhere, but all put together)",
        columns=("logging", "sec/step", "against off"),
        align="lrr",
        rows=tuple(rows),
        notes=("measured in interleaved blocks of the same trainings, updates included",),
    )


def _sink_sheet(samples: WorkloadSamples) -> list[Sheet]:
    """The ratio of a training step with messages to one without, for each sink measured."""
    base = seconds_per_step(samples, "off")
    if base is None:
        return []
    rows = []
    for sink in _SINKS:
        cells = [_ratio(base, added(samples, mode, sink)) for mode in ("periodic", "every")]
        if all(cells):
            rows.append((sink, format_duration(base), *(str(cell) for cell in cells)))
    if not rows:
        return []
    period = auto_period(samples)
    smallest = f"one call in {period:,}" if period is not None else "none: counting the calls alone is more"
    return [
        Sheet(
            title="what the env's messages cost by where they go (a training step against one without; 95 %)",
            columns=("to", "off", f"one call in {samples.config.logging.log_period:,}", "every call"),
            align="lrrr",
            rows=tuple(rows),
            notes=(f"smallest period that adds less than {AUTO_SHARE:.0%}, written to a file: {smallest}",),
        )
    ]


def added(samples: WorkloadSamples, mode: str, sink: str) -> list[float]:
    """Seconds that messages add to an env step: one value a round, against the block without just before."""
    differences: list[float] = []
    for repetition in sorted({i.repetition for i in samples.phases}):
        off, on = (_blocks(samples, f"{m}:{sink}", repetition) for m in ("off", mode))
        differences += [b - a for a, b in zip(off, on, strict=False)]
    return differences


def _blocks(samples: WorkloadSamples, variant: str, repetition: int) -> list[float]:
    items = (
        i for i in samples.phases if (i.phase, i.variant, i.repetition) == (Phase.LOG, variant, repetition)
    )
    return [v for item in items for v in item.per_unit()]


def _ratio(base: float, extra: Sequence[float]) -> str:
    """The ratio and its 95 % interval (bootstrap over rounds)."""
    if len(extra) < 3:
        return ""
    values = np.asarray(extra)
    draws = np.random.default_rng(0).choice(values, (_DRAWS, len(values))).mean(axis=1)
    low, high = (1 + np.percentile(draws, (2.5, 97.5)) / base).tolist()
    return f"x{1 + float(values.mean()) / base:.2f} [{low:.2f}, {high:.2f}]"


def auto_period(samples: WorkloadSamples, sink: str = "file") -> int | None:
    """The smallest logging period under which messages add less than 1 % to a training step.

    None: there is none, or nothing was measured.
    """
    base = seconds_per_step(samples, "off")
    periodic, every = added(samples, "periodic", sink), added(samples, "every", sink)
    if base is None or not periodic or not every:
        return None
    return smallest_period(
        off_s=base,
        periodic_s=base + statistics.median(periodic),
        period=samples.config.logging.log_period,
        every_s=base + statistics.median(every),
    )


def logging_columns(plan: Plan, calibration: Calibration) -> list[Sheet]:
    """Wall times (P50) without the env's messages and with every one of them, where they were measured."""
    if not any(map(messages_measured, calibration.workloads)):
        return []
    try:
        without, with_ = (_p50_s(plan, calibration, mode) for mode in ("off", "every"))
        labels = [*(f"{steps:,}" for steps in STEPS), f"study {plan.study.name}"]
        rows = [
            (label, format_duration(quiet), format_duration(loud), f"x{loud / quiet:.2f}")
            for label, quiet, loud in zip(labels, without, with_, strict=True)
        ]
    except (UsageError, KeyError, ZeroDivisionError):
        return []
    return [
        Sheet(
            title="wall time (P50) without and with the env's messages",
            columns=("steps", "without logging", "every call logged", ""),
            align="lrrr",
            rows=tuple(rows),
            notes=("messages go nowhere but are all put together, as measured; by sink: arzbench calibrate",),
        )
    ]


def _p50_s(plan: Plan, calibration: Calibration, mode: str) -> list[float]:
    """Under one logging mode: of each of `STEPS` in the first training, then of the whole study."""
    fitted = {w.workload: _fit(w, mode) for w in calibration.workloads}
    planner = planner_for(plan, _logged(plan.study, mode), fitted)
    jobs = [*(planner.for_first().job((steps,)) for steps in STEPS), planner.job(planner.full)]
    return [job.estimate().p50_s for job in jobs]


def _fit(samples: WorkloadSamples, mode: str) -> CostModel:
    """Prices under `mode`; of phases that did not occur under it, as calibrated."""
    usual, special = fit(samples), fit(samples, mode)
    if special.get(Phase.ENV_STEP) is None:
        raise UsageError(f"no step was measured with logging {mode}")
    rest = tuple(c for c in usual.coefficients if special.get(c.phase) is None)
    return msgspec.structs.replace(special, coefficients=(*special.coefficients, *rest))


def _logged(study: Study, mode: str) -> Study:
    trainings = tuple(
        msgspec.structs.replace(t, logging=msgspec.structs.replace(t.logging, mode=mode))
        for t in study.trainings
    )
    return msgspec.structs.replace(study, trainings=trainings)

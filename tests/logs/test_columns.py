"""Wall times without and with messages beside each other, from what was measured."""

from pathlib import Path

import msgspec

from arzbench import store
from arzbench.facts import Phase
from arzbench.profiles import load_calibration
from arzbench.records import Calibration, Plan
from arzbench.report.message_sheets import logging_columns

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def plan() -> Plan:
    return store.load(GOLDEN / "plan-1.json", "arzbench/plan", Plan, "plan")


def measured(**factors: float) -> Calibration:
    """The golden calibration with env steps that cost `factors` times as much under each mode."""
    whole = load_calibration(GOLDEN / "calibration-1.json")
    workloads = []
    for samples in whole.workloads:
        extra = [
            msgspec.structs.replace(i, variant=mode, seconds=tuple(s * factor for s in i.seconds))
            for i in samples.phases
            if i.phase is Phase.ENV_STEP
            for mode, factor in factors.items()
        ]
        workloads.append(msgspec.structs.replace(samples, phases=(*samples.phases, *extra)))
    return msgspec.structs.replace(whole, workloads=tuple(workloads))


def test_both_columns_and_their_ratio() -> None:
    (sheet,) = logging_columns(plan(), measured(off=1.0, every=10.0))
    assert sheet.columns[1:3] == ("without logging", "every call logged")
    assert len(sheet.rows) == 7
    ratios = [float(row[3].lstrip("x")) for row in sheet.rows]
    assert all(ratio > 1 for ratio in ratios)
    assert ratios[:6] == sorted(ratios[:6])  # start-up counts less and less


def test_no_column_for_what_was_not_measured() -> None:
    assert logging_columns(plan(), measured(off=1.0)) == []

"""What messages cost: the tables of it, and the `--log-period` that measurements choose."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from arzbench import store
from arzbench.commands import run
from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.profiles import load_calibration
from arzbench.records import Calibration, PhaseSamples, Plan
from arzbench.report.message_sheets import logging_columns, message_sheets
from arzbench.study import Logging

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "calibration-1.json"


def plan() -> Plan:
    return store.load(GOLDEN.with_name("plan-1.json"), "arzbench/plan", Plan, "plan")


def calibration(off_s: float, periodic_s: float, every_s: float) -> Calibration:
    """The golden one with messages measured to a file."""
    whole = load_calibration(GOLDEN)
    *others, samples = whole.workloads  # of the study's first training
    sinks = [
        PhaseSamples(
            phase=Phase.LOG, repetition=r, variant=f"{mode}:file", seconds=(s, s * 1.01, s), units=(1, 1, 1)
        )
        for mode, s in (("off", off_s), ("periodic", periodic_s), ("every", every_s))
        for r in (0, 1)
    ]
    env_step = next(i for i in samples.phases if i.phase is Phase.ENV_STEP)
    plain = PhaseSamples(
        phase=Phase.ENV_STEP, repetition=0, variant="off", seconds=env_step.seconds, units=env_step.units
    )
    samples = msgspec.structs.replace(samples, phases=(*samples.phases, plain, *sinks))
    return msgspec.structs.replace(whole, workloads=(*others, samples))


def changes(text: str, monkeypatch: pytest.MonkeyPatch, found: Calibration) -> list[str]:
    def newest(*_: Any, **__: Any) -> tuple[Path, Calibration]:
        return GOLDEN, found

    monkeypatch.setattr(run, "newest_calibration", newest)
    monkeypatch.setattr(run.Naming, "find", lambda *_: found.study)
    return run.logging_changes(run.RunFlags(study="x", changes=["seed=1"]), text)


def test_periods_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    found = calibration(1.0, 1.0, 2.0)
    said = {text: changes(text, monkeypatch, found)[1:] for text in ("500", "every", "off")}
    assert said == {
        "500": ["logging.mode=periodic", "logging.log_period=500"],
        "every": ["logging.mode=every", "logging.log_period=1"],
        "off": ["logging.mode=off"],
    }


def test_the_period_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = changes("auto", monkeypatch, calibration(1e-3, 1e-3, 1e-3))
    dear = changes("auto", monkeypatch, calibration(1e-3, 1e-3, 60.0))
    assert cheap[1:] == ["logging.mode=periodic", "logging.log_period=1"]
    assert int(dear[2].partition("=")[2]) > 100
    assert changes("auto", monkeypatch, calibration(1e-3, 60.0, 60.0))[1:] == ["logging.mode=off"]


def test_the_table_of_sinks() -> None:
    _, sheet = message_sheets(calibration(1e-3, 1e-3, 2e-3))[-2:]
    assert [row[0] for row in sheet.rows] == ["file"]
    assert all("[" in cell for cell in sheet.rows[0][2:])


@pytest.mark.parametrize("text", ["5s", "0", "often"])
def test_what_is_no_period_of_a_run_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError):
        changes(text, monkeypatch, load_calibration(GOLDEN))


def test_without_a_study_or_a_measurement_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="none is named"):
        run.logging_changes(run.RunFlags(), "auto")
    with pytest.raises(UsageError, match="did not measure"):
        changes("auto", monkeypatch, load_calibration(GOLDEN))


def test_an_env_without_messages_has_no_table_of_their_cost() -> None:
    whole = load_calibration(GOLDEN)
    workloads = []
    for samples in whole.workloads:
        config = msgspec.structs.replace(samples.config, logging=Logging())
        workloads.append(msgspec.structs.replace(samples, config=config))
    silent = msgspec.structs.replace(whole, workloads=tuple(workloads))
    assert message_sheets(silent) == []
    assert logging_columns(plan(), silent) == []
    assert message_sheets(whole) != []  # its study logs


def measured(**factors: float) -> Calibration:
    """The golden calibration with env steps that cost `factors` times as much under each mode."""
    whole = load_calibration(GOLDEN)
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

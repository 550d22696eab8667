"""`--log-period`: how often a run's messages are written, chosen by measurement where asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arzbench.choose_study import choose_study
from arzbench.errors import UsageError
from arzbench.logs.periodic import AUTO_SHARE, parse_period
from arzbench.measure.host import host_of
from arzbench.profiles import newest_calibration
from arzbench.report.message_sheets import auto_period

AUTO = "auto"


def logging_changes(
    working: Path, study: str | None, env: str | None, algo: str | None, changes: Sequence[str], text: str
) -> tuple[str, ...]:
    """`changes` with those that make the study log as `text` says: N, every, off or auto.

    Auto is the smallest period under which messages add less than 1 % to a training step, as the newest
    calibration of this host measured it; off where there is none.

    Raises:
        UsageError: no such period, no study is named, or nothing was measured.
    """
    if study is None and env is None:
        raise UsageError(
            "--log-period changes a study, and none is named", "add --study NAME, or --env and --algo"
        )
    if text.strip().lower() == AUTO:
        period = _measured(working, study, env, algo, changes)
        return (*changes, *_settings("periodic" if period else "off", period))
    rule = parse_period(text)
    if rule is None:
        return (*changes, *_settings("off", None))
    if rule.calls is None:
        raise UsageError(f"--log-period {text!r}: a run's messages go by calls", "1000, every, off or auto")
    return (*changes, *_settings("every" if rule.calls == 1 else "periodic", rule.calls))


def _settings(mode: str, period: int | None) -> tuple[str, ...]:
    """As `--set` takes them; the period of a study is at least 1."""
    return (f"logging.mode={mode}", *([f"logging.log_period={period}"] if period else []))


def _measured(
    working: Path, study: str | None, env: str | None, algo: str | None, changes: Sequence[str]
) -> int | None:
    chosen = choose_study(working, study=study, env=env, algo=algo, changes=changes)
    assert chosen is not None
    first = chosen.trainings[0]
    _, calibration = newest_calibration(working, host_of(first), chosen, allow_foreign=False)
    samples = calibration.find(first.workload_digest())
    assert samples is not None
    if not any(":" in item.variant for item in samples.phases):
        raise UsageError(
            f"the calibration {calibration.id} did not measure what messages cost by where they go",
            f"measure it ({AUTO_SHARE:.0%} is the limit): arzbench calibrate --set logging.mode=periodic",
        )
    return auto_period(samples)

"""Prices: a plan by what was calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arzbench.clock import Clock
from arzbench.errors import UsageError
from arzbench.measure.host import host_info, host_of
from arzbench.predict.plan import make_plan
from arzbench.profiles import expired, named_calibration, newest_calibration, past_runs
from arzbench.records import Calibration, HostInfo, Plan, Platform
from arzbench.study import Study
from arzbench.study_changes import change_study


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """How a plan is made: which calibration it may rest on, how sure it must be, a study's changes."""

    working: Path
    named: str | None = None  # --from: this calibration, wherever it was measured
    allow_foreign: bool = False
    allow_expired: bool = False
    confidence: float = 0.95
    changes: tuple[str, ...] = ()
    uploads: bool = False  # checkpoints are copied elsewhere

    def plan(
        self, study: Study | None, clock: Clock, quota_s: float | None, platform: Platform, flags: str = ""
    ) -> tuple[Plan, Calibration]:
        """A plan of `study` and its prices; without a study, of the calibration's own under `changes`.

        Raises:
            UsageError: there is no calibration, or the one named is too old.
        """
        host = _host_for(study)
        path, calibration = self._calibration(host, study, clock)
        if study is None:
            study = change_study(calibration.study, self.changes)
            if any(calibration.find(t.workload_digest()) is None for t in study.trainings):
                raise UsageError(
                    "--set changes a study, and none is named: the calibrated one was not measured so",
                    "add --study NAME, or --env and --algo, as in arzbench calibrate",
                )
            host = _host_for(study)
        plan = self.plan_by(calibration, path, study, host, clock, quota_s, platform, flags)
        return plan, calibration

    def plan_by(
        self,
        calibration: Calibration,
        path: Path,
        study: Study,
        host: HostInfo,
        clock: Clock,
        quota_s: float | None,
        platform: Platform,
        flags: str = "",
    ) -> Plan:
        """A plan of `study` on `host` by the prices of `calibration`, which is kept at `path`."""
        return make_plan(
            study,
            calibration,
            str(path),
            platform,
            host=host,
            past=past_runs(self.working, host),
            quota_s=quota_s,
            confidence=self.confidence,
            created=clock.wall(),
            command=f"arzbench run --auto-budget{flags}",
            named=self.named is not None,
            uploads=self.uploads,
        )

    def _calibration(self, host: HostInfo, study: Study | None, clock: Clock) -> tuple[Path, Calibration]:
        now = None if self.allow_expired else clock.wall()
        if self.named is None:
            return newest_calibration(self.working, host, study, allow_foreign=self.allow_foreign, now=now)
        path, calibration = named_calibration(self.working, self.named)
        old = expired(calibration, now) if now is not None else ""
        if old:
            raise UsageError(
                f"calibration {calibration.id} has {old}",
                "measure again: arzbench calibrate\nor use it all the same with --allow-expired",
            )
        return path, calibration


def _host_for(study: Study | None) -> HostInfo:
    return host_info() if study is None else host_of(study.trainings[0])

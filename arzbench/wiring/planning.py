"""Limits and prices: what time there is, and a plan by what was calibrated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from arzbench.clock import Clock, boot_time
from arzbench.errors import UsageError
from arzbench.measure.host import ask_system, gpu_name, host_info, host_of
from arzbench.predict.plan import LOCAL, make_plan
from arzbench.profiles import expired, find_platform, named_calibration, newest_calibration, past_runs
from arzbench.quota import Surroundings, detect, ledger_path, session_left, week
from arzbench.records import Calibration, HostInfo, Plan, Platform
from arzbench.study import Study
from arzbench.study_changes import change_study
from arzbench.units import format_duration, parse_duration

#: the quota that is looked up
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds there are (None: no limit), whose limits count, and where they were detected, how."""

    seconds: float | None
    platform: Platform
    how: str = ""


def find_limits(working: Path, quota: str | None, platform: str | None, clock: Clock) -> Limits:
    """`quota` wins over the platform's session limit; "auto" is what is left of this session.

    Raises:
        UsageError: a quota longer than a session of the platform, or "auto" where nothing tells.
    """
    if quota == AUTO:
        return _detected_limits(working, platform, surroundings(clock))
    chosen = find_platform(working, platform or LOCAL)
    seconds = chosen.session_s if quota is None else parse_duration(quota)
    if seconds is not None and chosen.session_s is not None and seconds > chosen.session_s:
        limit = int(chosen.session_s)
        raise UsageError(
            f"--quota {quota} is longer than a session of {chosen.name} ({limit} s)",
            f"at most --quota {limit}s, or another --platform",
        )
    return Limits(seconds=seconds, platform=chosen)


def surroundings(clock: Clock) -> Surroundings:
    """What tells of a platform here."""
    return Surroundings(
        environ=os.environ, now=clock.wall(), uptime_s=boot_time(), gpu=gpu_name(), ask=ask_system
    )


def _detected_limits(working: Path, platform: str | None, here: Surroundings) -> Limits:
    detected = detect(here)
    chosen = find_platform(working, platform or (detected.platform if detected is not None else "") or LOCAL)
    left, how = session_left(detected, chosen, here)
    if chosen.weekly_s is not None:
        left_of_week = week(ledger_path(working, chosen.name), chosen.weekly_s, here.now).left_s
        if left_of_week <= 0:
            raise UsageError(
                f"--quota auto: nothing is left of the week on {chosen.name}", "see arzbench quota"
            )
        if left_of_week < left:
            left, how = left_of_week, "what is left of the week: arzbench quota"
    return Limits(seconds=left, platform=chosen, how=f"{format_duration(left)} left: {how}")


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
        plan = make_plan(
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
        return plan, calibration

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

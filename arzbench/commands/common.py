"""What the commands share."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from arzbench import store
from arzbench.clock import Clock, boot_time
from arzbench.errors import UsageError, unknown
from arzbench.measure.host import devices, gpu_name, host_info, host_of
from arzbench.predict.plan import LOCAL, make_plan
from arzbench.profiles import expired, find_platform, named_calibration, newest_calibration, past_runs
from arzbench.quota import Surroundings, ask_system, detect, ledger_path, session_left, week
from arzbench.records import Calibration, HostInfo, Plan, Platform
from arzbench.study import Study
from arzbench.study_changes import change_study
from arzbench.units import format_duration, parse_duration

#: the quota that is looked up
AUTO = "auto"
DEVICES = ("auto", "cpu", "cuda")
_STACK = ("torch", "stable_baselines3", "gymnasium")


def on_device(study: Study, device: str | None) -> Study:
    """`study` on `device` (None: as it says).

    Raises:
        UsageError: an unknown device, or cuda where no GPU is found.
    """
    if device is not None:
        if device not in DEVICES:
            raise unknown("device", device, DEVICES)
        study = change_study(study, [f'device="{device}"'])
    for config in study.trainings:
        asked_for = devices(config)
        for asked in asked_for:
            if asked not in DEVICES:
                raise unknown("device", asked, DEVICES, f"in training {config.name!r}")
        if "cuda" in asked_for:
            require_gpu()
        if "cuda" in asked_for[1:]:
            require_numba_cuda()
    return study


def require_gpu() -> None:
    """Raise a `UsageError` unless an NVIDIA GPU is found."""
    if gpu_name() is None:
        message = "device 'cuda': no NVIDIA GPU was found on this machine"
        raise UsageError(message, "use --device cpu (or auto)")


def require_numba_cuda() -> None:
    """Raise a `UsageError` unless what runs the traffic model on a GPU is installed."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise UsageError(
            "device 'cuda': the traffic model needs numba-cuda there, and it is not installed",
            'pip install "arzbench[cuda]"\nor leave the env on the CPU: --set env_kwargs.device=cpu',
        )


def require_training_stack(*more: str) -> None:
    """Raise a `UsageError` unless what trains, and `more`, is installed; nothing is imported."""
    missing = [name for name in (*_STACK, *more) if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"this command trains, and {', '.join(missing)} cannot be found", 'pip install "arzbench[train]"'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds there are (None: no limit), whose limits count, and how that is known where it was found."""

    seconds: float | None
    platform: Platform
    how: str = ""


def find_limits(working: Path, quota: str | None, platform: str | None, clock: Clock) -> Limits:
    """`quota` wins over the platform's session limit; "auto" is what is left of this session.

    Raises:
        UsageError: a quota longer than a session of the platform, or "auto" where nothing tells.
    """
    if quota == AUTO:
        return _found_limits(working, platform, surroundings(clock))
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


def _found_limits(working: Path, platform: str | None, here: Surroundings) -> Limits:
    found = detect(here)
    chosen = find_platform(working, platform or (found.platform if found is not None else "") or LOCAL)
    left, how = session_left(found, chosen, here)
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
class Prices:
    """Which calibration a plan may rest on."""

    named: str | None = None  # --from: this one, wherever it was measured
    allow_foreign: bool = False
    allow_expired: bool = False

    def find(
        self, working: Path, host: HostInfo, study: Study | None, clock: Clock
    ) -> tuple[Path, Calibration]:
        """The calibration and its path.

        Raises:
            UsageError: there is none, or the one named is too old.
        """
        now = None if self.allow_expired else clock.wall()
        if self.named is None:
            return newest_calibration(working, host, study, allow_foreign=self.allow_foreign, now=now)
        path, calibration = named_calibration(working, self.named)
        old = expired(calibration, now) if now is not None else ""
        if old:
            raise UsageError(
                f"calibration {calibration.id} has {old}",
                "measure again: arzbench calibrate\nor use it all the same with --allow-expired",
            )
        return path, calibration


def plan_now(
    working: Path,
    study: Study | None,
    clock: Clock,
    *,
    quota_s: float | None,
    platform: Platform,
    confidence: float,
    prices: Prices,
    flags: str,
    changes: Sequence[str] = (),
    uploads: bool = False,
) -> tuple[Plan, Path, Calibration]:
    """A plan by `prices`; without a study, the calibration's own under `changes`.

    `uploads`: checkpoints are copied elsewhere.
    """
    host = _host_for(study)
    path, calibration = prices.find(working, host, study, clock)
    if study is None:
        study = change_study(calibration.study, changes)
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
        past=past_runs(working, host),
        quota_s=quota_s,
        confidence=confidence,
        created=clock.wall(),
        command=f"arzbench run --auto-budget{flags}",
        named=prices.named is not None,
        uploads=uploads,
    )
    return plan, path, calibration


def _host_for(study: Study | None) -> HostInfo:
    return host_info() if study is None else host_of(study.trainings[0])


def save_plan_path(working: Path, plan: Plan) -> Path:
    """Where a plan is written when no file is named."""
    return working / "reports" / "plans" / f"{plan.id}.json"


@contextlib.contextmanager
def undone(folder: Path) -> Iterator[None]:
    """A block that fails leaves no empty folder: those it made, `folder` or above it, are removed."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def ensure_file(path: Path, flag: str) -> None:
    """Raise a `UsageError` unless `path` can be written as a file; `flag` is what chooses it."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", f"name a file with {flag}")
    store.ensure_writable(path.parent, flag)

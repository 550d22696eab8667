"""What the commands share."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from arzbench import store
from arzbench.clock import Clock
from arzbench.errors import UsageError, unknown
from arzbench.measure.host import gpu_name, host_info
from arzbench.plan import make_plan
from arzbench.profiles import expired, find_platform, named_calibration, newest_calibration, past_ratios
from arzbench.records import Calibration, HostInfo, Plan, Platform
from arzbench.settings import change_study
from arzbench.study import Study
from arzbench.units import parse_duration

DEVICES = ("auto", "cpu", "cuda")
_STACK = ("torch", "stable_baselines3", "gymnasium", "numba")


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
        if config.device not in DEVICES:
            raise unknown("device", config.device, DEVICES, f"in training {config.name!r}")
        if config.device == "cuda" and gpu_name() is None:
            raise UsageError("device 'cuda': no NVIDIA GPU was found on this machine", "use --device cpu")
    return study


def require_training_stack() -> None:
    """Raise a `UsageError` unless what trains is installed; nothing is imported."""
    missing = [name for name in _STACK if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"this command trains, and {', '.join(missing)} cannot be found", 'pip install "arzbench[train]"'
        )


def quota_and_platform(
    working: Path, quota: str | None, platform: str | None
) -> tuple[float | None, Platform]:
    """Seconds there are, and whose limits count: `quota` wins over the platform's session limit."""
    chosen = find_platform(working, platform or "local")
    seconds = chosen.session_s if quota is None else parse_duration(quota)
    if seconds is not None and chosen.session_s is not None and seconds > chosen.session_s:
        limit = int(chosen.session_s)
        raise UsageError(
            f"--quota {quota} is longer than a session of {chosen.name} ({limit} s)",
            f"at most --quota {limit}s, or another --platform",
        )
    return seconds, chosen


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
) -> tuple[Plan, Path, Calibration]:
    """A plan by `prices`; without a study, the calibration's own under `changes`."""
    host = host_info(*_device_of(study))
    path, calibration = prices.find(working, host, study, clock)
    if study is None:
        study = change_study(calibration.study, changes)
        if any(calibration.find(t.workload_digest()) is None for t in study.trainings):
            raise UsageError(
                "--set changes a study, and none is named: the calibrated one was not measured so",
                "add --study NAME, or --env and --algo, as in arzbench calibrate",
            )
        host = host_info(*_device_of(study))
    plan = make_plan(
        study,
        calibration,
        str(path),
        platform,
        host=host,
        ratios=past_ratios(working, host),
        quota_s=quota_s,
        confidence=confidence,
        created=clock.wall(),
        command=f"arzbench run --auto-budget{flags}",
        named=prices.named is not None,
    )
    return plan, path, calibration


def _device_of(study: Study | None) -> tuple[str, int]:
    first = study.trainings[0] if study is not None else None
    return (first.device, first.torch_threads) if first is not None else ("cpu", 1)


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

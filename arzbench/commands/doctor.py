"""`arzbench doctor`: what is here, and what is missing."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from arzbench import __version__, limits, options, profiles
from arzbench.clock import Clock, SystemClock
from arzbench.errors import ArzbenchError, UsageError
from arzbench.measure.host import host_info
from arzbench.options import switch
from arzbench.quota import detect
from arzbench.records import HostInfo
from arzbench.report.console import make_console, say, show
from arzbench.report.sheets import Sheet, host_line
from arzbench.units import format_bytes, format_duration

#: distribution -> what needs it
PACKAGES = {
    "numpy": "",
    "torch": "calibrate and run",
    "stable-baselines3": "calibrate and run",
    "gymnasium": "calibrate and run",
    "numba": "the traffic model",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Finding(NamedTuple):
    """One thing looked for; `fix` says what to do where it is missing."""

    what: str
    found: str
    missing: bool = False
    fix: str = ""


def doctor(
    with_torch: Annotated[bool, switch("--torch", "Import torch, too, and ask it.")] = False,
    folder: options.Dir = Path(),
    as_json: options.Json = False,
) -> None:
    """Show host, threads, GPU, packages, folders, platform and quota, calibrations and their age."""
    findings = list(examine(folder, SystemClock(), with_torch=with_torch))
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode([f._asdict() for f in findings]) + b"\n")
        return
    console = make_console()
    rows = tuple((f.what, f.found, "missing" if f.missing else "") for f in findings)
    fixes = tuple(f"{f.what}: {f.fix}" for f in findings if f.fix)
    show(
        console, [Sheet(title="what is here", columns=("", "found", ""), align="lll", rows=rows, notes=fixes)]
    )
    if not any(f.missing for f in findings):
        say(console, "nothing is missing")


def examine(working: Path, clock: Clock, *, with_torch: bool) -> Iterator[Finding]:
    """Everything, in the order it is shown."""
    host = host_info("auto")
    yield Finding("arzbench", f"{__version__}, Python {host.python}")
    yield Finding("host", host_line(host))
    yield _threads(host)
    gpu = host.device if host.device != "cpu" else None
    yield Finding("GPU", gpu or "none (by nvidia-smi)")
    yield from (_package(name, need) for name, need in PACKAGES.items())
    yield _numba_cuda(gpu)
    if with_torch:
        yield _torch()
    yield from (_folder(working / name) for name in ("profiles", "reports", "checkpoints"))
    yield from _platform_and_quota(working, clock)
    yield from _calibrations(working, host, clock)


def _threads(host: HostInfo) -> Finding:
    caps = [f"{name}={os.environ[name]}" for name in THREADS if name in os.environ]
    shown = ", ".join(caps) or "no limit set"
    return Finding("threads", f"{host.cores} usable cores; {shown}; trainings set their own")


def _package(name: str, need: str) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", True, f'{need} need it: pip install "arzbench[train]"')


def _numba_cuda(gpu: str | None) -> Finding:
    """What takes the traffic model to a GPU: missing only where there is one."""
    finding = _package("numba-cuda", "")
    if not finding.missing:
        return finding
    if gpu is None:
        return Finding("numba-cuda", "not installed; only a GPU needs it")
    fix = f'the traffic model needs it on the {gpu}: pip install "arzbench[cuda]"'
    return Finding("numba-cuda", "not installed", True, fix)


def _torch() -> Finding:
    """What torch itself says; importing it takes seconds."""
    try:
        torch = importlib.import_module("torch")
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device"
        return Finding("torch says", f"{torch.__version__}, {torch.get_num_threads()} threads, {gpu}")
    except Exception as error:  # whatever is wrong with it, the rest is still worth telling
        message = f"{type(error).__name__}: {error}"
        return Finding("torch says", message, True, 'pip install "arzbench[train]"')


def _folder(path: Path) -> Finding:
    """Whether files can be made there, and the space left; nothing is made to find out."""
    above = next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        return Finding(f"{path.name}/", f"cannot write in {above}", True, "--dir another folder")
    free = format_bytes(shutil.disk_usage(above).free)
    return Finding(f"{path.name}/", f"{path} can be written, {free} free")


def _platform_and_quota(working: Path, clock: Clock) -> Iterator[Finding]:
    try:
        place = detect(limits.surroundings(clock))
    except UsageError:
        place = None  # a job without a known end: the quota below says so
    yield Finding("platform", "local" if place is None else place.platform or "Slurm")
    try:
        yield Finding("quota", limits.find_limits(working, limits.AUTO, None, clock).how)
    except ArzbenchError as error:
        yield Finding("quota", error.message.removeprefix("--quota auto: "), fix=error.hint)


def _calibrations(working: Path, host: HostInfo, clock: Clock) -> Iterator[Finding]:
    """Those of this machine with their age, the number of the others, and the imported ones."""
    own, others = 0, 0
    for path in sorted(profiles.calibrations_folder(working).glob("*/*.json")):
        try:
            record = profiles.load_calibration(path)
        except ArzbenchError as error:
            yield Finding("calibration", error.message, True, "measure it again")
            continue
        if set(record.host.differs_from(host)) - {"device", "torch_threads"}:
            others += 1
            continue
        own += 1
        now = clock.wall()
        days = profiles.age_days(record, now)
        age = format_duration(days * 86400) if 0 <= days < float("inf") else "of an unknown age"
        old = bool(profiles.expired(record, now))
        note = f", older than {profiles.EXPIRES_DAYS} days" if old else ""
        fix = f"{record.id} is too old: arzbench calibrate" if old else ""
        yield Finding("calibration", f"{record.id}, {age} old{note}", missing=old, fix=fix)
    if not own:
        yield Finding("calibration", "none of this machine", True, "measure: arzbench calibrate")
    if others:
        yield Finding("of other machines", f"{others} (plan --from ID, or --allow-foreign)")
    yield Finding("imported", ", ".join(profiles.names(working, "imported")) or "none")

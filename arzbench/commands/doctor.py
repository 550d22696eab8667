"""`arzbench doctor`: what is here, and what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from arzbench import __version__
from arzbench.clock import Clock, SystemClock
from arzbench.commands.common import AUTO, find_limits, surroundings
from arzbench.errors import ArzbenchError, UsageError
from arzbench.measure.host import host_info
from arzbench.profiles import (
    EXPIRES_DAYS,
    age_days,
    calibrations_folder,
    expired,
    imported_names,
    load_calibration,
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked for; `fix` says what to do where it is missing."""

    what: str
    found: str
    missing: bool = False
    fix: str = ""


def run_doctor(*, working: Path, with_torch: bool, as_json: bool) -> None:
    """Look, and say what was found; nothing is written, and nothing missing is an error."""
    findings = list(examine(working, SystemClock(), with_torch=with_torch))
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode([asdict(f) for f in findings]) + b"\n")
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
    yield Finding(what="arzbench", found=f"{__version__}, Python {host.python}")
    yield Finding(what="host", found=host_line(host))
    yield _threads(host)
    gpu = host.device if host.device != "cpu" else None
    yield Finding(what="GPU", found=gpu or "none (by nvidia-smi)")
    yield from (_package(name, need) for name, need in PACKAGES.items())
    yield _numba_cuda(gpu)
    if with_torch:
        yield _torch()
    yield from (_folder(working / name) for name in ("profiles", "reports", "checkpoints"))
    yield from _platform_and_quota(working, clock)
    yield from _calibrations(working, host, clock)


def _threads(host: HostInfo) -> Finding:
    told = [f"{name}={os.environ[name]}" for name in THREADS if name in os.environ]
    shown = ", ".join(told) or "no limit set"
    return Finding(what="threads", found=f"{host.cores} usable cores; {shown}; trainings set their own")


def _package(name: str, need: str) -> Finding:
    try:
        return Finding(what=name, found=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        fix = f'{need} need it: pip install "arzbench[train]"'
        return Finding(what=name, found="not installed", missing=True, fix=fix)


def _numba_cuda(gpu: str | None) -> Finding:
    """What takes the traffic model to a GPU: missing only where there is one."""
    finding = _package("numba-cuda", "")
    if not finding.missing:
        return finding
    if gpu is None:
        return Finding(what="numba-cuda", found="not installed; only a GPU needs it")
    fix = f'the traffic model needs it on the {gpu}: pip install "arzbench[cuda]"'
    return Finding(what="numba-cuda", found="not installed", missing=True, fix=fix)


def _torch() -> Finding:
    """What torch itself says; importing it takes seconds."""
    try:
        torch = importlib.import_module("torch")
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device"
        return Finding(
            what="torch says", found=f"{torch.__version__}, {torch.get_num_threads()} threads, {gpu}"
        )
    except Exception as error:  # whatever is wrong with it, the rest is still worth telling
        fix = 'pip install "arzbench[train]"'
        return Finding(what="torch says", found=f"{type(error).__name__}: {error}", missing=True, fix=fix)


def _folder(path: Path) -> Finding:
    """Whether files can be made there, and the space left; nothing is made to find out."""
    above = next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        return Finding(
            what=f"{path.name}/", found=f"cannot write in {above}", missing=True, fix="--dir another folder"
        )
    free = format_bytes(shutil.disk_usage(above).free)
    return Finding(what=f"{path.name}/", found=f"{path} can be written, {free} free")


def _platform_and_quota(working: Path, clock: Clock) -> Iterator[Finding]:
    try:
        found = detect(surroundings(clock))
    except UsageError:
        found = None  # a job without a known end: the quota tells
    name = found.platform or "Slurm" if found is not None else "local"
    yield Finding(what="platform", found=name)
    try:
        yield Finding(what="quota", found=find_limits(working, AUTO, None, clock).how)
    except ArzbenchError as error:
        yield Finding(what="quota", found=error.message.removeprefix("--quota auto: "), fix=error.hint)


def _calibrations(working: Path, host: HostInfo, clock: Clock) -> Iterator[Finding]:
    """Those of this machine with their age, the number of the others, and the imported ones."""
    own, others = 0, 0
    for path in sorted(calibrations_folder(working).glob("*/*.json")):
        try:
            record = load_calibration(path)
        except ArzbenchError as error:
            yield Finding(what="calibration", found=error.message, missing=True, fix="measure it again")
            continue
        if set(record.host.differs_from(host)) - {"device", "torch_threads"}:
            others += 1
            continue
        own += 1
        now = clock.wall()
        days = age_days(record, now)
        age = format_duration(days * 86400) if 0 <= days < float("inf") else "of an unknown age"
        old = bool(expired(record, now))
        note = f", older than {EXPIRES_DAYS} days" if old else ""
        fix = f"{record.id} is too old: arzbench calibrate" if old else ""
        yield Finding(what="calibration", found=f"{record.id}, {age} old{note}", missing=old, fix=fix)
    if not own:
        fix = "measure: arzbench calibrate"
        yield Finding(what="calibration", found="none of this machine", missing=True, fix=fix)
    if others:
        yield Finding(what="of other machines", found=f"{others} (plan --from ID, or --allow-foreign)")
    yield Finding(what="imported", found=", ".join(imported_names(working)) or "none")

"""`arzbench doctor`: what is here, and what is missing."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from arzbench import __version__
from arzbench.errors import ArzbenchError, UsageError
from arzbench.options import DirOption, JsonOption, switch

if TYPE_CHECKING:
    from arzbench.clock import Clock
    from arzbench.records import HostInfo

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
    folder: DirOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show host, threads, GPU, packages, folders, platform and quota, calibrations and their age."""
    import msgspec

    from arzbench.clock import SystemClock
    from arzbench.report.console import make_console, say, show
    from arzbench.report.sheets import Sheet

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
    from arzbench.measure.host import host_info
    from arzbench.report.sheets import host_line

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
    limits = [f"{name}={os.environ[name]}" for name in THREADS if name in os.environ]
    shown = ", ".join(limits) or "no limit set"
    return Finding(what="threads", found=f"{host.cores} usable cores; {shown}; trainings set their own")


def _package(name: str, need: str) -> Finding:
    from importlib import metadata

    try:
        return Finding(what=name, found=metadata.version(name))
    except metadata.PackageNotFoundError:
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
    import shutil

    from arzbench.units import format_bytes

    above = next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        return Finding(
            what=f"{path.name}/", found=f"cannot write in {above}", missing=True, fix="--dir another folder"
        )
    free = format_bytes(shutil.disk_usage(above).free)
    return Finding(what=f"{path.name}/", found=f"{path} can be written, {free} free")


def _platform_and_quota(working: Path, clock: Clock) -> Iterator[Finding]:
    from arzbench.quota import detect
    from arzbench.wiring import planning

    try:
        place = detect(planning.surroundings(clock))
    except UsageError:
        place = None  # a job without a known end: the quota below says so
    name = place.platform or "Slurm" if place is not None else "local"
    yield Finding(what="platform", found=name)
    try:
        yield Finding(what="quota", found=planning.find_limits(working, planning.AUTO, None, clock).how)
    except ArzbenchError as error:
        yield Finding(what="quota", found=error.message.removeprefix("--quota auto: "), fix=error.hint)


def _calibrations(working: Path, host: HostInfo, clock: Clock) -> Iterator[Finding]:
    """Those of this machine with their age, the number of the others, and the imported ones."""
    from arzbench import profiles
    from arzbench.units import format_duration

    own, others = 0, 0
    for path in sorted(profiles.calibrations_folder(working).glob("*/*.json")):
        try:
            record = profiles.load_calibration(path)
        except ArzbenchError as error:
            yield Finding(what="calibration", found=error.message, missing=True, fix="measure it again")
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
        yield Finding(what="calibration", found=f"{record.id}, {age} old{note}", missing=old, fix=fix)
    if not own:
        fix = "measure: arzbench calibrate"
        yield Finding(what="calibration", found="none of this machine", missing=True, fix=fix)
    if others:
        yield Finding(what="of other machines", found=f"{others} (plan --from ID, or --allow-foreign)")
    yield Finding(what="imported", found=", ".join(profiles.names(working, "imported")) or "none")

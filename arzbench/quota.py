"""What is left of a quota: of this session by the platform, of the week by a ledger in reports/quota."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from arzbench import store
from arzbench.clock import Clock
from arzbench.errors import UsageError
from arzbench.records import Platform
from arzbench.units import format_duration, parse_duration

WEEK_S = 7 * 86400.0
_NOTEBOOKS = {
    "Kaggle": ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_CONTAINER_NAME"),
    "Colab": ("COLAB_RELEASE_TAG", "COLAB_GPU"),
}
_CLOCK = re.compile(r"(?:\d+-)?\d+(?::\d+){1,2}")
Ask = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """All that detection looks at; an argument, so that a test can set it."""

    environ: Mapping[str, str]
    now: datetime.datetime
    uptime_s: float | None  # of the machine
    gpu: str | None  # its name
    ask: Ask  # what a command prints; None where it cannot be run


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """A platform, what is left of its session, and the source of that."""

    platform: str  # a profile's name; empty where none fits
    left_s: float | None  # None: the profile's limit less the uptime
    how: str


def detect(here: Surroundings) -> Detected | None:
    """Detect the platform of this machine, None where nothing shows one."""
    job = here.environ.get("SLURM_JOB_ID")
    if job:
        return _slurm(here, job)
    for name, variables in _NOTEBOOKS.items():
        seen = next((v for v in variables if v in here.environ), None)
        if seen is not None:
            platform = _kaggle_kind(here) if name == "Kaggle" else "colab-free"
            return Detected(platform=platform, left_s=None, how=f"{name} by {seen}")
    return None


def _kaggle_kind(here: Surroundings) -> str:
    if here.gpu is not None:
        return "kaggle-p100" if "P100" in here.gpu else "kaggle-t4x2"
    return "kaggle-tpu" if "TPU_NAME" in here.environ else "kaggle-cpu"


def _slurm(here: Surroundings, job: str) -> Detected:
    """Read the job's end from SLURM_JOB_END_TIME, or else from scontrol, or else from squeue.

    Raises:
        UsageError: none of them says, or the job has no limit.
    """
    how = f"Slurm job {job} by"
    end = here.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdigit():
        left = int(end) - here.now.timestamp()
        return Detected(platform="", left_s=left, how=f"{how} SLURM_JOB_END_TIME")
    shown = here.ask(["scontrol", "show", "job", job]) or ""
    fields = dict(re.findall(r"\b(RunTime|TimeLimit)=(\S+)", shown))
    limit, run = (_seconds(fields.get(name, "")) for name in ("TimeLimit", "RunTime"))
    if limit is not None and run is not None:
        return Detected(platform="", left_s=limit - run, how=f"{how} scontrol: TimeLimit - RunTime")
    left_s = _seconds((here.ask(["squeue", "-h", "-j", job, "-o", "%L"]) or "").strip())
    if left_s is not None:
        return Detected(platform="", left_s=left_s, how=f"{how} squeue: time left")
    raise UsageError(
        f"--quota auto: neither SLURM_JOB_END_TIME nor scontrol nor squeue tells when job {job} ends"
        f"{' (TimeLimit=' + fields['TimeLimit'] + ')' if 'TimeLimit' in fields else ''}",
        "give it: --quota 12h, or the --time of the job",
    )


def _seconds(text: str) -> float | None:
    """Parse Slurm's D-HH:MM:SS; None for UNLIMITED, INVALID and the like."""
    if _CLOCK.fullmatch(text) is None:
        return None
    return 0.0 if not text.strip("0:-") else parse_duration(text)


def session_left(detected: Detected | None, platform: Platform, here: Surroundings) -> tuple[float, str]:
    """Return the seconds left of this session of `platform`, and the source of that.

    Raises:
        UsageError: nothing says so, or nothing is left.
    """
    if detected is None:
        raise UsageError(
            "--quota auto: nothing tells of a limit here (no Slurm job, no Kaggle or Colab session)",
            "give it: --quota 12h",
        )
    left, how = detected.left_s, detected.how
    if left is None:
        if platform.session_s is None or here.uptime_s is None:
            lacking = "has no session limit" if platform.session_s is None else "gives no uptime"
            raise UsageError(f"--quota auto: {platform.name} {lacking}", "give it: --quota 12h")
        left = platform.session_s - here.uptime_s
        how += (
            f": {format_duration(platform.session_s)} of {platform.name} less the machine's uptime "
            f"of {format_duration(here.uptime_s)}"
        )
    if left <= 0:
        raise UsageError(f"--quota auto: nothing is left ({how})", "give what there is: --quota 1h")
    return left, how


# ---------------------------------------------------------------- the week


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a platform's ledger: a session begins and reserves `seconds`, or ends having used them."""

    kind: Literal["begin", "end"]
    session: str
    at: str  # when it was written, ISO
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """The last seven days of a platform, in seconds."""

    limit_s: float
    used_s: float
    reserved_s: float  # by sessions that may still run: each its whole limit
    reset: datetime.datetime | None  # when the oldest session counted stops counting; None: none counts
    sessions: int

    @property
    def left_s(self) -> float:
        """What a new session may count on."""
        return max(0.0, self.limit_s - self.used_s - self.reserved_s)


def ledger_path(working: Path, platform: str) -> Path:
    """The ledger of a platform."""
    return working / "reports" / "quota" / f"{platform}.jsonl"


def book(
    path: Path, kind: Literal["begin", "end"], session: str, now: datetime.datetime, seconds: float
) -> None:
    """Record that a session begins, and may use all of `seconds` until its end, or ends having used them."""
    at = now.isoformat(timespec="seconds")
    store.append_line(path, LedgerLine(kind=kind, session=session, at=at, seconds=max(0.0, seconds)))


def add(path: Path, session: str, now: datetime.datetime, used_s: float) -> None:
    """Record `used_s` up to now that were used outside arzbench."""
    book(path, "begin", session, now - datetime.timedelta(seconds=used_s), used_s)
    book(path, "end", session, now, used_s)


@contextlib.contextmanager
def reserved(path: Path, session: str, clock: Clock, started: float, limit_s: float) -> Iterator[None]:
    """Reserve `limit_s` while the block runs, for a session that began at `started` (of `clock.now()`)."""
    already = clock.now() - started
    book(path, "begin", session, clock.wall() - datetime.timedelta(seconds=already), limit_s)
    try:
        yield
    finally:
        book(path, "end", session, clock.wall(), clock.now() - started)


def week(path: Path, limit_s: float, now: datetime.datetime) -> Week:
    """Sum up the seven days before `now` by the ledger.

    A session without a recorded end reserves its whole limit, and has used it once the limit passed.

    Raises:
        UsageError: a broken line that is not the last.
    """
    lines = list(store.read_lines(path, LedgerLine)) if path.exists() else []
    ended = {line.session: line.seconds for line in lines if line.kind == "end"}
    since = now - datetime.timedelta(seconds=WEEK_S)
    used = reserved = 0.0
    until: list[datetime.datetime] = []
    for line in lines:
        if line.kind != "begin":
            continue
        began = datetime.datetime.fromisoformat(line.at)
        took = ended.get(line.session, line.seconds)
        over = began + datetime.timedelta(seconds=took)
        counted = min(took, max(0.0, (over - since).total_seconds()))
        if not counted:
            continue
        until.append(over + datetime.timedelta(seconds=WEEK_S))
        if line.session not in ended and over > now:
            reserved += counted
        else:
            used += counted
    return Week(
        limit_s=limit_s,
        used_s=used,
        reserved_s=reserved,
        reset=min(until, default=None),
        sessions=len(until),
    )

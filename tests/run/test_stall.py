"""No step for long: reported once, with what every thread was doing."""

import threading
from pathlib import Path

import pytest

from arzbench.clock import SystemClock, VirtualClock
from arzbench.run import guard as guards
from arzbench.run import ledger, stall
from arzbench.run.guard import Guard
from arzbench.run.ledger_writer import LedgerWriter
from arzbench.run.signals import Signals
from arzbench.run.simulated import SyntheticWorkload
from arzbench.run.stall import StallWatcher
from tests.run.jobs import dqn, request, run, study


class Watched:
    """A guard and its watcher on a virtual clock; the thread is never started."""

    def __init__(self, folder: Path, floor_s: float = 30.0) -> None:
        self.clock = VirtualClock(100.0)
        self.guard = Guard(self.clock, Signals(), session_start=100.0, quota_s=None, leave_s=0.3)
        self.folder = folder
        ledger = LedgerWriter(folder / "ledger.jsonl", None, 100.0, self.clock)
        self.watcher = StallWatcher(self.guard, ledger, folder, self.clock, floor_s)

    def work(self, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            self.guard.poll(0)
            self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Time goes by under the eyes of the watcher."""
        for _ in range(max(1, int(seconds / stall.LOOK_S))):
            self.clock.advance(min(seconds, stall.LOOK_S))
            self.watcher.look()

    @property
    def reports(self) -> list[str]:
        return sorted(p.name for p in self.folder.glob("stall-*"))


def test_a_stall_is_reported_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    watched = Watched(tmp_path)
    watched.work(0.01, 100)
    watched.wait(29)
    assert watched.reports == []
    watched.wait(100)
    assert watched.reports == ["stall-1-1.txt"]
    told = (tmp_path / "stall-1-1.txt").read_text()
    assert told.startswith("no step for 30.0 s (P99 of such steps: 10 ms)")
    assert "test_stall.py" in told
    said = capfd.readouterr().err
    assert said.count("stalled: no step for 30.0 s") == 1
    (entry,) = ledger.read(tmp_path / "ledger.jsonl").of_kind("stall")
    assert (entry.data["file"], entry.data["limit_s"]) == ("stall-1-1.txt", 30.0)
    watched.work(0.01, 10)
    watched.wait(40)
    assert watched.reports == ["stall-1-1.txt", "stall-1-2.txt"]


def test_steps_known_to_be_long_are_given_longer(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.work(10.0, guards.LEAST_SEEN + 5)
    watched.wait(150)
    assert watched.reports == []
    watched.wait(stall.TIMES_P99 * 10.0 - 140)
    assert len(watched.reports) == 1


def test_a_suspended_process_is_not_a_stall(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.work(0.01, 100)
    watched.clock.advance(3600.0)  # the watcher did not look either
    watched.wait(5)
    assert watched.reports == []


def test_reports_are_few(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for _ in range(stall.MOST_REPORTS + 5):
        watched.work(32.0)
    assert len(watched.reports) == stall.MOST_REPORTS


def test_a_hanging_env_is_found_by_the_thread(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Really: the env hangs until the report is there."""
    job = study(dqn(total_timesteps=20))
    report = tmp_path / "reports" / "r1" / "stall-1-1.txt"

    def hang_here(step: int) -> None:
        if step == 10:
            while not report.exists() or "hang_here" not in report.read_text():
                threading.Event().wait(0.01)

    clock = SystemClock()
    workload = SyntheticWorkload(clock, {}, calls=hang_here)
    outcome = run(tmp_path, job, clock, workload, stall_s=0.2)
    assert outcome.exit_code == 0
    assert "stalled: no step for" in capfd.readouterr().err
    assert len(ledger.read(tmp_path / "reports" / "r1" / "ledger.jsonl").of_kind("stall")) >= 1
    assert request(tmp_path, job, clock).stall_s is None  # no thread where nobody asks for one


class SlowUploads:
    """What is waited for at the end of a session."""

    def take(self, *given: object) -> None: ...

    def offer(self, path: Path, *, best: bool = False) -> None: ...

    def pinned(self) -> set[str]:
        return set()

    def say(self, line: object) -> None: ...

    def close(self) -> None: ...

    def flush(self, limit_s: float) -> list[str]:
        threading.Event().wait(0.5)
        return []


def test_waiting_for_the_last_upload_is_no_stall(tmp_path: Path) -> None:
    """A run whose ledger does not end with its stop would be taken for one that was killed."""
    clock = SystemClock()
    workload = SyntheticWorkload(clock, {})
    run(tmp_path, study(dqn(total_timesteps=20)), clock, workload, stall_s=0.1, uploads=SlowUploads())
    assert ledger.read(tmp_path / "reports" / "r1" / "ledger.jsonl").stop is not None

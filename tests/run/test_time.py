"""Clocks that jump, processes that are suspended: the quota is kept, and nothing is lost."""

import datetime
import os
import signal
import time
from pathlib import Path

import pytest

from arzbench import clock as clocks
from arzbench.clock import SystemClock, VirtualClock
from arzbench.facts import StopReason
from arzbench.run import ledger
from arzbench.run.simulated import SyntheticWorkload
from tests.run.jobs import COSTS, fingerprints, run, study
from tests.run.program import resume, start


class Jumping(VirtualClock):
    """The date is set back and forth by hours while time goes on."""

    def wall(self) -> datetime.datetime:
        return super().wall() + datetime.timedelta(hours=5 * ((int(self.now()) // 7) % 3 - 1))


def test_a_date_that_jumps_changes_nothing(tmp_path: Path) -> None:
    ends = []
    for name, clock in (("steady", VirtualClock()), ("jumping", Jumping())):
        workload = SyntheticWorkload(clock, COSTS, episode_steps=20, save_s=0.25)
        ends.append(run(tmp_path / name, study(), clock, workload, quota_s=30.0))
        told = ledger.read(tmp_path / name / "reports" / "r1" / "ledger.jsonl")
        elapsed = [e.elapsed_s for e in told.entries]
        assert elapsed == sorted(elapsed)
    assert ends[0].reason is ends[1].reason is StopReason.DEADLINE
    assert ends[0].num_timesteps == ends[1].num_timesteps
    assert ends[0].session_s == ends[1].session_s


def test_now_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the time since boot, which suspension does not stop, as the kernel tells it."""
    assert clocks._BOOTTIME == time.CLOCK_BOOTTIME
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= SystemClock().now() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the date was read"))
    SystemClock().now()


def test_a_suspended_machine_has_used_up_its_quota(tmp_path: Path) -> None:
    """An hour passes within one step, as on a laptop that was closed."""
    clock = VirtualClock()
    closed = []

    def close_the_lid(step: int) -> None:
        if step == 130 and not closed:
            closed.append(step)
            clock.advance(3600.0)

    workload = SyntheticWorkload(clock, COSTS, episode_steps=20, save_s=0.25, calls=close_the_lid)
    first = run(tmp_path, study(), clock, workload, quota_s=1800.0)
    assert (first.reason, first.num_timesteps) == (StopReason.DEADLINE, (131, 0))
    assert run(tmp_path, study(), clock).reason is StopReason.FINISHED
    run(tmp_path / "whole", study())
    assert fingerprints(tmp_path) == fingerprints(tmp_path / "whole")


def test_a_process_stopped_beyond_its_deadline_saves_and_leaves(tmp_path: Path) -> None:
    quota_s = 8.0
    began = time.monotonic()
    process = start(tmp_path, quota_s)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(max(0.0, began + quota_s + 0.1 - time.monotonic()))
    os.kill(process.pid, signal.SIGCONT)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 4, told
    assert said.startswith("DEADLINE")
    stop = ledger.read(tmp_path / "reports" / "r1" / "ledger.jsonl").stop
    assert stop is not None
    assert stop.data["slack_s"] < 0
    assert 0 < stop.step < 1500  # it left at once
    assert resume(tmp_path) == resume(tmp_path / "whole")

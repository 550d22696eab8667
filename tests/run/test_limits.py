"""Sessions are counted across checkpoints, and a run may be allowed a number of them."""

from pathlib import Path

import pytest

from arzbench.clock import VirtualClock
from arzbench.errors import ExitCode, SessionsUsedError
from arzbench.facts import StopReason
from tests.run.jobs import run, study


def test_the_last_session_allowed_says_so_and_no_more_begins(tmp_path: Path) -> None:
    clock = VirtualClock()
    first = run(tmp_path, study(), clock, quota_s=30.0, max_sessions=2)
    assert (first.exit_code, first.sessions_left) == (ExitCode.MORE_TO_DO, 1)
    second = run(tmp_path, study(), clock, quota_s=30.0, max_sessions=2)
    assert (second.reason, second.sessions_left) == (StopReason.DEADLINE, 0)
    assert second.exit_code is ExitCode.SESSIONS_USED
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(SessionsUsedError, match="run r1 has had its 2 sessions") as caught:
        run(tmp_path, study(), clock, quota_s=30.0, max_sessions=2)
    assert caught.value.hint == "one more: --max-sessions 3"
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file()) == before
    assert run(tmp_path, study(), clock, max_sessions=3).reason is StopReason.FINISHED


def test_sessions_and_time_travel_in_the_checkpoint(tmp_path: Path) -> None:
    """A job moved without its ledger still knows both."""
    clock = VirtualClock()
    first = run(tmp_path, study(), clock, quota_s=30.0)
    (tmp_path / "reports" / "r1" / "ledger.jsonl").unlink()
    second = run(tmp_path, study(), clock, quota_s=30.0, max_sessions=2)
    assert (second.session, second.exit_code) == (2, ExitCode.SESSIONS_USED)
    assert second.elapsed_s > first.elapsed_s - 1.0

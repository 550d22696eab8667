"""Signals to a real process: it ends by itself, with a sound state that goes on to the same end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arzbench.clock import SystemClock
from arzbench.digest import digest
from arzbench.facts import StopReason
from arzbench.run import ledger
from arzbench.run.signals import Signals, starting
from arzbench.saves.checkpoints import CheckpointStore
from arzbench.workload import StopTraining
from tests.run.program import PROGRAM, resume, start
from tests.run.training import STUDY
from tests.saves.states import ROOT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_run_with_a_sound_state(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path)
    process.send_signal(number)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 4, told
    assert said.startswith(f"SIGNAL {number.name}")
    assert "saving at the next consistent point" in told
    found = CheckpointStore(tmp_path / "checkpoints" / "r1", 2, SystemClock()).newest(digest(STUDY))
    assert found is not None
    stop = ledger.read(tmp_path / "reports" / "r1" / "ledger.jsonl").stop
    assert stop is not None
    assert (stop.data["reason"], stop.step) == ("signal", found.manifest.num_timesteps)
    whole = tmp_path / "whole"
    assert resume(tmp_path) == resume(whole)


def test_many_signals_corrupt_nothing(tmp_path: Path) -> None:
    process = start(tmp_path)
    for _ in range(200):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            if process.poll() is None:
                process.send_signal(number)
    _, told = process.communicate(timeout=60)
    # the very last may come after the handlers were given back: killed then, after all was durable
    assert process.returncode in (4, -signal.SIGTERM, -signal.SIGINT, -signal.SIGUSR1), told
    assert "already stopping" in told
    checkpoints = CheckpointStore(tmp_path / "checkpoints" / "r1", 2, SystemClock())
    assert checkpoints.newest(digest(STUDY)) is not None
    assert not checkpoints.skipped
    assert resume(tmp_path) == resume(tmp_path / "whole")


def test_a_signal_counts_although_nobody_reads_what_is_said(tmp_path: Path) -> None:
    """As in `arzbench run 2>&1 | tee log`: ctrl-C ends the reader, too."""
    process = start(tmp_path)
    assert process.stderr is not None
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.read().startswith("SIGNAL SIGINT")
    assert process.wait(60) == 4
    assert resume(tmp_path) == resume(tmp_path / "whole")


def test_a_run_goes_on_when_nobody_reads_its_lines() -> None:
    program = """
import sys
from arzbench.report.console import make_console, say
console = make_console(lasting=True)
say(console, "first")
sys.stdin.read()
for _ in range(3):
    say(console, "later")
print("gone on", file=sys.stderr)
"""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin and process.stdout and process.stderr  # noqa: PT018
        assert process.stdout.readline() == "first\n"
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == "gone on\n"
        assert process.wait(60) == 0


def test_a_second_process_is_told_whose_folder_it_is(tmp_path: Path) -> None:
    process = start(tmp_path)
    command = [sys.executable, str(PROGRAM), str(tmp_path), "10"]
    second = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert (
        f"another run is using {tmp_path / 'checkpoints' / 'r1'}: process {process.pid} on" in second.stderr
    )
    process.kill()
    process.communicate()
    # the killed process left its lock: the system released it
    assert resume(tmp_path) == resume(tmp_path / "whole")


def test_a_start_that_takes_all_of_the_quota_is_ended_where_it_is() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(StopTraining, match=StopReason.DEADLINE.value), starting(0.01):
        time.sleep(60)
    late = pytest.raises(StopTraining, match=StopReason.DEADLINE.value)
    with late, starting(0.01), Signals() as signals, signals.at_once():
        time.sleep(60)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def compile_until_stopped(number: signal.Signals) -> None:
    """Drops what is raised in it three times, as numba does where C calls back."""
    os.kill(os.getpid(), number)
    for _ in range(3):
        with contextlib.suppress(StopTraining):
            time.sleep(60)
    time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
def test_a_stop_that_a_compiler_drops_is_raised_again(number: signal.Signals) -> None:
    with pytest.raises(StopTraining) as caught, starting(60), Signals() as signals, signals.at_once():
        compile_until_stopped(number)
    assert caught.value.reason is (StopReason.DEADLINE if number is signal.SIGALRM else StopReason.SIGNAL)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_training_that_goes_is_the_guards() -> None:
    """There may be something to save: the alarm of the start does nothing, within a run and after it."""
    came = []
    with starting(0.01), Signals() as signals:
        inner = signals._expired
        signal.signal(signal.SIGALRM, lambda *given: (came.append(1), inner(*given))[0])
        while not came:
            time.sleep(0.001)
    with starting(60), Signals():
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_quota_shorter_than_the_start_is_told_before_anything_is_written(tmp_path: Path) -> None:
    words = ["run", "--study", "cartpole-ppo", "--timesteps", "2048", "--quota", "1s", "--dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "arzbench", *words], capture_output=True, text=True)
    assert done.returncode == 3
    assert "the quota of 1.0 s is over before anything could be trained" in done.stderr
    assert "hint: give it a longer one: --quota" in done.stderr
    assert not list(tmp_path.rglob("ledger.jsonl"))

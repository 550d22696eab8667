"""With torch loaded a command ends at once: nothing is torn down, and all that was said is there."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.calls import CARTPOLE
from tests.processes import environment, ledger

LONG = f"run {CARTPOLE} --set total_timesteps=10000000 --timesteps 10000000"
PROGRAM = """
import atexit, sys
import torch
from arzbench.cli import main
atexit.register(print, "torn down")
print("begun")
main()
"""


def started(arguments: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments.split()]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("run --timesteps 64 --run none", 2, "error: "),
        ("run --no-such-flag", 2, "run --help"),
        (f"run {CARTPOLE} --timesteps 512 --quota 0.01s", 3, "is over before anything could be trained"),
        ("--version", 0, ""),
    ],
)
def test_an_error_and_an_answer_leave_at_once(tmp_path: Path, arguments: str, code: int, said: str) -> None:
    process = started(arguments, tmp_path)
    out, told = process.communicate(timeout=240)
    assert process.returncode == code, told
    assert said in told
    assert out.startswith("begun\n")
    assert "torn down" not in out


def test_a_signal_and_a_deadline_leave_at_once(tmp_path: Path) -> None:
    process = started(LONG, tmp_path)
    while not any(e["kind"] == "session" for e in ledger(tmp_path)):  # before that, it ends as any other
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=240)
    assert process.returncode == 4, told
    assert "torn down" not in out

    process = started(
        f"run {CARTPOLE} --set total_timesteps=10000000 --timesteps 10000000 --quota 8s", tmp_path
    )
    out, told = process.communicate(timeout=240)
    assert process.returncode in (3, 4), told
    assert "next: arzbench run" in out or "is over before" in told
    assert "torn down" not in out


def test_without_torch_a_process_ends_like_any_other(tmp_path: Path) -> None:
    """So the absence of what is told at the end says something above."""
    command = [sys.executable, "-c", PROGRAM.replace("import torch", ""), "run", "--no-such-flag"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "begun\ntorn down\n"

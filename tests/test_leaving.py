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


def started(arguments: str, folder: Path, program: str = PROGRAM) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments.split()]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize(
    ("arguments", "codes", "said"),
    [
        ("run --timesteps 64 --run none", {2}, "error: "),
        ("run --no-such-flag", {2}, "run --help"),
        (f"run {CARTPOLE} --timesteps 512 --quota 0.01s", {3}, "is over before anything could be trained"),
        (f"{LONG} --quota 8s", {3, 4}, ""),
        ("--version", {0}, ""),
    ],
)
def test_an_answer_an_error_and_a_deadline_leave_at_once(
    tmp_path: Path, arguments: str, codes: set[int], said: str
) -> None:
    process = started(arguments, tmp_path)
    out, told = process.communicate(timeout=240)
    assert process.returncode in codes, told
    assert said in told
    assert out.startswith("begun\n")
    assert "torn down" not in out


def test_a_signal_leaves_at_once(tmp_path: Path) -> None:
    process = started(LONG, tmp_path)
    while not any(e["kind"] == "session" for e in ledger(tmp_path)):  # before that, it ends as any other
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=240)
    assert process.returncode == 4, told
    assert "torn down" not in out


def test_without_torch_a_process_ends_like_any_other(tmp_path: Path) -> None:
    """So the absence of what is told at the end says something above."""
    process = started("run --no-such-flag", tmp_path, PROGRAM.replace("import torch", ""))
    assert process.communicate(timeout=240)[0] == "begun\ntorn down\n"
    assert process.returncode == 2

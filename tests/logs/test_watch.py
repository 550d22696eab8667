"""A watched command: its output untouched, its signals and exit code passed on, stderr alone spoken to."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import environment

PRINTER = (
    "import sys\n"
    "for i in range(3000): print('[NOISE] line', i)\n"
    "sys.stdout.flush()\n"
    "sys.stdout.buffer.write(b'\\xff\\x00 no end'); sys.stderr.write('own error\\n'); sys.exit(7)\n"
)


def arguments(*command: str, options: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-m", "arzbench", "watch", *options, "--", *command]


def watch(
    *command: str, options: tuple[str, ...] = (), data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        arguments(*command, options=options), input=data, capture_output=True, env=environment()
    )


def test_output_and_exit_code_are_the_command_s(tmp_path: Path) -> None:
    alone = subprocess.run([sys.executable, "-c", PRINTER], capture_output=True)
    summary = tmp_path / "summary.json"
    watched = watch(sys.executable, "-c", PRINTER, options=("--summary", str(summary)))
    assert (watched.returncode, watched.stdout) == (7, alone.stdout)
    own = [line for line in watched.stderr.decode().splitlines() if not line.startswith("arzbench: ")]
    assert own == ["own error"]
    assert b"most lines: NOISE" in watched.stderr
    found = json.loads(summary.read_text())
    assert found["schema"] == "arzbench/logs"
    assert found["logs"][0]["lines"] == 3002


def test_standard_input_reaches_the_command() -> None:
    assert watch("cat", data=b"abc\n" * 1000).stdout == b"abc\n" * 1000


def test_a_signal_is_passed_on() -> None:
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        arguments("sh", "-c", script), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (5, b"got it\n")


def test_a_command_ended_by_a_signal() -> None:
    assert watch("sh", "-c", "kill -9 $$").returncode == 137


def test_a_command_that_is_not_there() -> None:
    done = watch("no-such-command-anywhere")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"cannot start 'no-such-command-anywhere'" in done.stderr


def test_on_a_terminal_the_command_sees_a_terminal() -> None:
    outer, inner = pty.openpty()
    script = "import sys; print(sys.stdout.isatty())"
    process = subprocess.Popen(
        arguments(sys.executable, "-c", script), stdout=inner, stderr=subprocess.DEVNULL, env=environment()
    )
    os.close(inner)
    assert process.wait(timeout=60) == 0
    assert os.read(outer, 100) == b"True\r\n"
    os.close(outer)


@pytest.mark.parametrize("reads", [0, 1])
def test_a_reader_that_goes_away_ends_an_endless_command(reads: int) -> None:
    process = subprocess.Popen(
        arguments("yes"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    )
    process.stdout.read(100 * reads)
    process.stdout.close()
    assert process.wait(timeout=60) in (128 + signal.SIGPIPE, 1)

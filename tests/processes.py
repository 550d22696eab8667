"""Commands and imports in processes of their own, and what they leave behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LONGEST_S = 240.0  # a hang, not a measure
TRAINING_PACKAGES = {"torch", "numba", "gymnasium", "stable_baselines3"}

# Runs one command, or imports one list of modules, and tells what was loaded by the end.
PROBE = """
import atexit, json, os, runpy, sys
from pathlib import Path
kind, out, *rest = sys.argv[1:]
tell = lambda: Path(out).write_text(json.dumps(sorted(sys.modules)))
atexit.register(tell)
leave, os._exit = os._exit, lambda code: (tell(), leave(code))  # how a command ends that has trained
if kind == "import":
    for name in rest:
        __import__(name)
else:
    sys.argv = ["arzbench", *rest]
    runpy.run_module("arzbench", run_name="__main__")
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended; `err` is empty where its output is one stream."""

    code: Any
    out: str
    err: str = ""


def environment() -> dict[str, str]:
    """The environment of a process that is to import this checkout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"PYTHONPATH": path}


def start(arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "arzbench", *shlex.split(arguments)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def arzbench(arguments: str, folder: Path) -> Ended:
    """One command to its end."""
    process = start(arguments, folder)
    try:
        out, _ = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()
    assert "Traceback" not in out, out
    return Ended(process.returncode, out)


def ledger(folder: Path, run: str = "*") -> list[dict[str, Any]]:
    """The entries of the only (or named) run, a last line cut off by a kill left out."""
    paths = list((folder / "reports").glob(f"{run}/ledger.jsonl"))
    if not paths:
        return []
    assert len(paths) == 1, paths
    lines = paths[0].read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def stop_when(process: subprocess.Popen[str], ready: Callable[[], bool], number: signal.Signals) -> Ended:
    """Send a signal as soon as `ready`; how the process ended."""
    deadline = time.monotonic() + LONGEST_S
    try:
        while not ready():
            assert process.poll() is None, f"it ended before it was stopped: {process.communicate()[0]}"
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.02)
        process.send_signal(number)
        out, _ = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()
    return Ended(process.returncode, out)


def saved(folder: Path, count: int, session: int) -> bool:
    return sum(e["kind"] == "checkpoint" and e["session"] == session for e in ledger(folder)) >= count


def on_path(folder: Path) -> str:
    """A PATH on which `arzbench` is the command of this checkout; made in `folder`."""
    program = folder / "arzbench"
    folder.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m arzbench "$@"\n')
    program.chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def loaded(kind: str, *arguments: str, folder: Path) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """The modules a fresh interpreter holds after one command (or import), and how it ended."""
    out = folder / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", PROBE, kind, str(out), *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    return set(json.loads(out.read_text())), done

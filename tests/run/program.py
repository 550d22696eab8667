"""`training.py` as a process of its own, and the session that takes up what it left."""

import subprocess
import sys
from pathlib import Path

from arzbench.clock import VirtualClock
from arzbench.facts import StopReason
from arzbench.run.simulated import SyntheticWorkload
from tests.run.jobs import fingerprints, run
from tests.run.training import STUDY
from tests.saves.states import ROOT

PROGRAM = ROOT / "tests" / "run" / "training.py"


def start(folder: Path, quota_s: float = 1e6) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), str(folder), str(quota_s)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    return process


def resume(folder: Path) -> dict[str, dict[str, str]]:
    clock = VirtualClock()
    outcome = run(folder, STUDY, clock, SyntheticWorkload(clock, {}, episode_steps=100))
    assert outcome.reason is StopReason.FINISHED
    return fingerprints(folder)

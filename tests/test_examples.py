"""The examples: the notebook's cells are carried out in two sessions, scripts are sound."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.processes import ROOT, environment, ledger, on_path, saved, stop_when

EXAMPLES = ROOT / "examples"
TINY = ["--env", "CartPole-v1", "--algo", "ppo", "--set", "n_steps=256", "--set", "evaluation.eval_freq=0",
        "--set", "checkpoint.checkpoint_freq=256", "--set", "total_timesteps=8192"]  # fmt: skip

pytestmark = pytest.mark.timeout(600)


def cells() -> list[str]:
    notebook = json.loads((EXAMPLES / "kaggle.ipynb").read_text())
    assert notebook["nbformat"] == 4
    assert all(not c.get("outputs") for c in notebook["cells"])  # as it was written, not as it was run
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def stop_run_after(saves: int, folder: Path) -> threading.Thread:
    """Send SIGTERM, as an ending session does, to the run that this process starts."""

    def watch() -> None:
        for _ in range(2400):
            if saved(folder, saves, session=1):
                for child in psutil.Process().children(recursive=True):
                    if "run" in child.cmdline():
                        child.send_signal(signal.SIGTERM)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def play(root: Path) -> dict[str, Any]:
    """All cells in their order: only the study, the quota and Kaggle's folders are others."""
    names: dict[str, Any] = {}
    for source in cells():
        if source.startswith("%pip install"):
            continue
        exec(compile(source.replace('"/kaggle', f'"{root}'), "cell", "exec"), names)
        if "STUDY" in source:
            names |= {"STUDY": TINY, "BUDGET": ["--timesteps", "8192"], "QUOTA": "30m"}
    return names


def test_the_notebook_goes_on_where_an_attached_output_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for root in (first, second):
        (root / "input").mkdir(parents=True)
        (root / "working").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    skipped = first / "working" / "profiles" / "calibrations" / "h"  # a minute that says nothing here
    skipped.mkdir(parents=True)
    (skipped / "c.json").write_text("{}")

    watcher = stop_run_after(2, first / "working")
    names = play(first)
    watcher.join()
    assert names["code"] == 4
    assert "More to do: save this version" in capsys.readouterr().out

    # as Kaggle attaches it: below the notebook's name, not to be written
    (first / "working").rename(second / "input" / "my-notebook")
    names = play(second)
    told = capsys.readouterr().out
    assert names["code"] == 0, told
    assert f"going on from {second / 'input' / 'my-notebook'}" in told
    assert "8,192 of 8,192 steps" in told
    assert "in 2 session(s)" in told
    begun = [e["data"] for e in ledger(second / "working") if e["kind"] == "session"]
    assert begun[1]["resumed_from"] is not None


def test_the_notebook_asks_for_what_is_left_of_the_session() -> None:
    joined = "\n".join(cells())
    assert 'QUOTA = "auto"' in joined
    assert "%pip install" in joined


@pytest.mark.parametrize("script", ["slurm.sh", "spot.sh"])
def test_scripts_are_sound_shell(script: str) -> None:
    checked = subprocess.run(["bash", "-n", str(EXAMPLES / script)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert os.access(EXAMPLES / script, os.X_OK)


def test_spot_sh_goes_on_from_the_bucket_of_a_machine_that_is_gone(tmp_path: Path) -> None:
    bucket = (tmp_path / "bucket").as_uri()
    environ = {**environment(), "CHECKPOINTS": bucket, "PATH": on_path(tmp_path / "bin")}

    def begun(machine: Path) -> subprocess.Popen[str]:
        machine.mkdir()
        command = [str(EXAMPLES / "spot.sh"), *TINY, "--timesteps", "8192"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=machine, env=environ, **pipes)

    first, second = tmp_path / "machine-1", tmp_path / "machine-2"
    stopped = stop_when(begun(first), lambda: saved(first, 2, session=1), signal.SIGTERM)
    assert stopped.code == 4, stopped.out
    process = begun(second)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    assert "8,192 of 8,192 steps" in out


LOOPS = [("torch_loop.py", "--epochs=60"), ("cleanrl_dqn.py", "--episodes=150")]


@pytest.mark.parametrize(("script", "units"), LOOPS, ids=[script for script, _ in LOOPS])
def test_a_loop_that_is_killed_twice_ends_with_the_same_weights(
    tmp_path: Path, script: str, units: str
) -> None:
    def begun(folder: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(EXAMPLES / script), units, "--save-every=0.1s", "--folder", folder]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment(), **pipes)

    def final(folder: str) -> dict[str, Any]:
        state = sorted((tmp_path / folder).glob("state-*"))[-1]
        (file,) = state.glob("*.pt")
        loaded: dict[str, Any] = torch.load(file, weights_only=True)
        return loaded

    whole, _ = (process := begun("whole")).communicate(timeout=240)
    assert process.returncode == 0, whole
    for kill in (2, 5):
        ready = f"state-{kill:06d}"
        ended = stop_when(
            begun("killed"), lambda ready=ready: (tmp_path / "killed" / ready).exists(), signal.SIGKILL
        )
        assert ended.code == -signal.SIGKILL
    rest, _ = (process := begun("killed")).communicate(timeout=240)
    assert process.returncode == 0, rest
    assert "going on from" in rest
    assert rest.splitlines()[-2] == whole.splitlines()[-2]  # the last unit's line, beside the last word
    left, right = (list(leaves(final(folder))) for folder in ("killed", "whole"))
    assert len(left) == len(right) > 10
    assert all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(left, right, strict=True)
    )


def leaves(state: Any) -> Iterator[Any]:
    if isinstance(state, dict):
        for key in state:
            yield from leaves(state[key])
    elif isinstance(state, list | tuple):
        for value in state:
            yield from leaves(value)
    else:
        yield state

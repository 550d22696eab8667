"""examples/slurm.sh on a real Slurm: warned by USR1 it saves, is requeued, resumes and ends."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import slurm
from tests.processes import ROOT, environment, ledger, on_path, saved

STUDY = ["--env", "CartPole-v1", "--algo", "ppo", "--set", "n_steps=256", "--set", "evaluation.eval_freq=0",
         "--set", "checkpoint.checkpoint_freq=256", "--timesteps", "10240"]  # fmt: skip

pytestmark = [
    pytest.mark.skipif(bool(slurm.why_not()), reason=slurm.why_not()),
    pytest.mark.timeout(600),
]


def until(done: Callable[[], bool], what: str, output: Path) -> None:
    for _ in range(1200):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what} never came: {output.read_text() if output.exists() else ''}")


def test_warned_it_saves_is_requeued_and_goes_on_to_its_end(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "slurm").mkdir()
    output = work / "out.txt"
    with slurm.Slurm(tmp_path / "slurm") as testbed:
        path = os.pathsep.join([on_path(tmp_path / "bin"), testbed.environ["PATH"]])
        testbed.environ |= {**environment(), "PATH": path}
        submit = ["sbatch", "--parsable", "--time=30", "--output", str(output)]
        job = testbed.ask(*submit, str(ROOT / "examples" / "slurm.sh"), *STUDY, folder=work).strip()
        assert job.isdigit(), (testbed.folder / "slurmctld.out").read_text()
        until(lambda: saved(work, 2, session=1), "the second checkpoint", output)
        # as --signal=B:USR1@120 sends it: to the batch shell alone
        testbed.ask("scancel", "--batch", "--signal=USR1", job)
        until(lambda: any(e["session"] == 2 for e in ledger(work)), "the second session", output)
        until(lambda: testbed.state(job) not in ("RUNNING", "COMPLETING"), "the end of the job", output)
        assert testbed.state(job) == "COMPLETED", output.read_text()
    told = output.read_text()
    assert "SIGUSR1: saving at the next consistent point" in told
    assert f"left: Slurm job {job} by " in told
    assert "in 2 session(s)" in told
    entries = ledger(work)
    first, second = (e["data"] for e in entries if e["kind"] == "session")
    assert 0 < first["quota_s"] <= 1800
    (stop, end) = (e["data"] for e in entries if e["kind"] == "stop")
    assert (stop["reason"], end["reason"]) == ("signal", "finished")
    assert second["resumed_from"] == stop["checkpoint"]
    assert end["num_timesteps"] == [10240]

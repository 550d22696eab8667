"""examples/spot.sh on two machines: the second goes on from the bucket of the first."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_examples import EXAMPLES, TINY
from tests.test_road import environment, saved

pytestmark = pytest.mark.timeout(600)


def test_a_spot_machine_that_goes_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    programs, bucket = tmp_path / "bin", tmp_path / "bucket"
    programs.mkdir()
    (programs / "arzbench").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m arzbench "$@"\n')
    (programs / "arzbench").chmod(0o755)
    environ = {**environment(), "CHECKPOINTS": bucket.as_uri()}
    environ["PATH"] = os.pathsep.join([str(programs), environ["PATH"]])
    for number, expected in ((1, 4), (2, 0)):
        machine = tmp_path / f"machine-{number}"
        machine.mkdir()
        process = subprocess.Popen(
            [str(EXAMPLES / "spot.sh"), *TINY, "--timesteps", "8192"], cwd=machine, env=environ,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while expected == 4 and process.poll() is None and not saved(machine, 2, session=1):
            time.sleep(0.05)
        if expected == 4:
            process.terminate()
        told, _ = process.communicate(timeout=240)
        assert process.returncode == expected, told
    assert "8,192 of 8,192 steps" in told

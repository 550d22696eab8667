"""Commands called in this process, and a folder to call them in."""

import io
import os
import shlex
import sys
from pathlib import Path

import pytest

from arzbench import cli, profiles
from arzbench.choose_study import choose_study
from arzbench.clock import SystemClock
from arzbench.measure.host import host_info
from tests import worlds
from tests.processes import ROOT, Ended

CARTPOLE = "--env CartPole-v1 --algo ppo --set n_steps=512"


def call(arguments: str | list[str], folder: Path) -> Ended:
    """One command in this process, in `folder`."""
    words = shlex.split(arguments) if isinstance(arguments, str) else arguments
    code: object = None
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["arzbench", *words])
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)  # for the processes it starts
        patch.delenv("COLUMNS", raising=False)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(cli, "leave", sys.exit)  # this process goes on
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    out.flush()
    return Ended(code, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]


def refused(arguments: str, folder: Path, *texts: str, code: int = 2) -> str:
    """The one error of a command that fails, has `texts` in it, and changes nothing in `folder`."""
    before = listing(folder)
    ended = call(arguments, folder)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("error: ") == 1
    assert "Traceback" not in ended.err
    assert not [text for text in texts if text not in ended.err], ended.err[:2000]
    assert listing(folder) == before
    return ended.err


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def calibrated(folder: Path) -> Path:
    """The path of a calibration of CartPole-v1 with PPO on this host."""
    study = choose_study(folder, study=None, env="CartPole-v1", algo="ppo", changes=["n_steps=512"])
    assert study is not None
    today = f"{SystemClock().wall():%Y%m%dT%H%M%SZ}"  # an old one would have expired
    made = worlds.calibration(study, host=host_info(), env=worlds.facts(20, 500), created=today)
    return profiles.save_calibration(folder, made)

"""`arzbench checkpoint`: lists, proves, exports; and the best is kept."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arzbench.digest import digest
from arzbench.saves.read import ARRAYS
from arzbench.saves.remote import Remote
from tests.run.jobs import dqn, run, study
from tests.saves.states import ROOT, filled, header, names, opened, state, truncate

PROGRAM = """
import sys
from arzbench.cli import main
try:
    main()
finally:
    heavy = {"torch", "stable_baselines3", "gymnasium", "numba"} & set(sys.modules)
    if sys.argv[2] != "export" and heavy:
        raise SystemExit(f"imported {heavy}")
"""


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, "checkpoint", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_ls_and_verify_tell_what_is_sound_and_import_nothing_heavy(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    told = call("ls", str(tmp_path), "--json")
    assert told.returncode == 0, told.stderr
    rows = json.loads(told.stdout)["checkpoints"]
    assert [(r["name"], r["sound"], r["tier"]) for r in rows] == [(n, True, "exact") for n in names(tmp_path)]
    truncate(tmp_path / names(tmp_path)[1] / ARRAYS)
    for action in ("ls", "verify"):
        told = call(action, str(tmp_path))
        assert told.returncode == 1
        assert f"{names(tmp_path)[1]}: {ARRAYS}: " in told.stdout


def test_at_a_url_ls_sees_what_is_missing_and_verify_what_is_changed(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/there"
    for path in filled(tmp_path / "here", 2).paths():
        Remote(url).upload(path)
    assert call("verify", url).returncode == 0
    victim = max((tmp_path / "there" / "parts").iterdir(), key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert call("ls", url).returncode == 0
    assert call("verify", url).returncode == 1
    victim.unlink()
    assert call("ls", url).returncode == 1


def test_what_was_changed_at_a_url_is_not_exported(tmp_path: Path) -> None:
    remote = Remote(f"file://{tmp_path}/there")
    for path in filled(tmp_path / "here", 2).paths():
        remote.upload(path)
    part = tmp_path / "there" / "parts" / remote.manifest(remote.names()[-1]).parts[0].sha256
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    told = call("export", remote.url, "--output", str(tmp_path / "model.zip"))
    assert told.returncode == 1
    assert f"{remote.names()[-1]} is not sound: {ARRAYS}: its sha256 does not match" in told.stderr
    assert "arzbench checkpoint verify" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("fly",), "unknown action 'fly'", "export, ls, verify"),
        (("ls", "/no/such/folder"), "no folder /no/such/folder", "--run"),
        (("ls", "quux://a/b"), "Protocol not known", "fsspec"),
        (("verify", ".", "--best"), "belong to export", "leave them out"),
        (("export", ".", "--best", "--name", "x"), "exclude each other", "one of them"),
        (("ls", "tests"), "no checkpoint in tests", "arzbench run"),
    ],
)
def test_mistakes_are_one_clear_error(arguments: tuple[str, ...], message: str, hint: str) -> None:
    told = call(*arguments)
    assert told.returncode == 2
    assert message in told.stderr
    assert hint in told.stderr


def test_an_exported_model_is_the_librarys_own(tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    settings = ("n_steps=32", "batch_size=16", "checkpoint.checkpoint_freq=32", "evaluation.eval_freq=32")
    flags = [word for setting in settings for word in ("--set", setting)]
    asked = ["run", "--env", "CartPole-v1", "--algo", "ppo", "--timesteps", "96"]
    flags += ["--set", "total_timesteps=96"]
    command = [sys.executable, "-W", "ignore", "-m", "arzbench", *asked, *flags, "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = call("export", "--output", str(tmp_path / "last.zip"), "--dir", str(tmp_path))
    assert told.returncode == 0, told.stderr
    assert sb3.PPO.load(tmp_path / "last.zip").num_timesteps == 96
    told = call("export", "--best", "--output", str(tmp_path / "best.zip"), "--dir", str(tmp_path))
    assert told.returncode == 0, told.stderr
    (best,) = (r for r in json.loads(call("ls", "--json", "--dir", str(tmp_path)).stdout)["checkpoints"]
               if r["is_best"])  # fmt: skip
    assert sb3.PPO.load(tmp_path / "best.zip").num_timesteps == best["num_timesteps"]


# The best.


def test_the_best_is_kept_beside_the_last(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for step in range(1, 8):
        checkpoints.save(state(step), header(step, is_best=step in (1, 3), best=(float(min(step, 3)), step)))
    assert [name[-4:] for name in names(tmp_path)] == ["0003", "0006", "0007"]
    again = opened(tmp_path)
    again.save(state(8), header(8, is_best=True, best=(9.0, 8)))
    assert [name[-4:] for name in names(tmp_path)] == ["0007", "0008"]


#: step: what was known then (best evaluation, whether the first since) and the evaluation under way
AWAITED: dict[int, dict[str, Any]] = {
    1: {"best": (1.0, 1), "is_best": True},
    2: {"best": (1.0, 1), "awaits": 2},  # it may be the best
    3: {"best": (1.0, 1), "awaits": 2},
    4: {"best": (1.0, 1), "awaits": 2},
    5: {"best": (2.0, 2), "awaits": 5},  # it was
    6: {"best": (2.0, 2), "awaits": 5},
    7: {"best": (2.0, 2)},  # this one was not
}
KEPT = {
    1: "0001",
    2: "0001 0002",
    3: "0001 0002 0003",
    4: "0001 0002 0004",
    5: "0002 0005",
    6: "0002 0005 0006",
    7: "0002 0007",
}


def test_a_state_saved_beside_an_evaluation_is_kept_until_its_result_is_known(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path, 1)
    for step, known in AWAITED.items():
        checkpoints.save(state(step), header(step, **known))
        assert " ".join(name[-4:] for name in names(tmp_path)) == KEPT[step]
    listed = json.loads(call("ls", str(tmp_path), "--json").stdout)["checkpoints"]
    assert [one["name"][-4:] for one in listed if one["is_best"]] == ["0002"]


def test_a_resumed_run_goes_on_from_the_record_of_the_best(tmp_path: Path) -> None:
    """In parts or as a whole: the same checkpoint is the best, and no worse evaluation replaces it."""
    job = study(dqn())
    run(tmp_path / "whole", job)
    for _ in range(40):
        if run(tmp_path / "parts", job, quota_s=40).exit_code != 4:
            break
    found = {}
    for kind in ("whole", "parts"):
        folder = tmp_path / kind / "checkpoints" / "r1"
        last = opened(folder).newest(digest(job))
        assert last is not None
        assert last.manifest.best is not None
        assert math.isfinite(last.manifest.best[0])
        found[kind] = last.manifest.best
    assert found["whole"] == found["parts"]
    told = run(tmp_path / "whole", job)
    assert told.exit_code == 0

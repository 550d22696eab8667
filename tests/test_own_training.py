"""A script of a user's own on the whole road: calibrated, planned, run, killed, resumed, finished."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from arzbench.study import Code
from tests.processes import ROOT, arzbench, environment, ledger, saved, start, stop_when

EXAMPLE = (ROOT / "examples" / "own_training.py").read_text(encoding="utf-8")
SHORT = EXAMPLE.replace("60_000", "3_000").replace("4096", "1024")

pytestmark = pytest.mark.timeout(600)


def test_the_example_differs_from_the_library_s_own_in_three_lines() -> None:
    ours = [line for line in EXAMPLE.splitlines() if "arzbench" in line or "outcome" in line]
    assert [line.rpartition("# ")[2][:1] for line in ours] == ["1", "2", "3"]
    plain = EXAMPLE.replace("import arzbench  # 1\n", "").replace("if outcome.finished:  # 3\n    ", "")
    plain = plain.replace("outcome = arzbench.learn(model, ", "model.learn(")
    compile(plain, "plain", "exec")


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "train.py").write_text(SHORT)
    done = arzbench("calibrate train.py --steps 100 --repetitions 2 --max-time 10s", folder)
    assert done.code == 0, done.out
    assert not (folder / "tank.zip").exists()  # nothing was trained, nothing is saved
    return folder


def test_the_plan_counts_what_the_script_does(working: Path) -> None:
    done = arzbench("plan --quota 40s --json", working)
    (training,) = json.loads(done.out)["study"]["trainings"]
    assert training["model"] == "PPO"
    assert training["env"] == "__main__:Tank"
    assert training["evaluation"]["eval_freq"] == 1024
    assert arzbench("plan train.py --quota 40s", working).code == 0


def test_planned_run_killed_resumed_and_finished(working: Path) -> None:
    command = "run train.py --auto-budget --quota 40s"
    killed = stop_when(start(command, working), lambda: saved(working, 3, session=1), signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    done = arzbench(command, working)
    assert done.code == 0, done.out
    assert "resuming" in done.out
    stop = [e for e in ledger(working) if e["kind"] == "stop"][-1]
    assert stop["data"]["reason"] == "finished"
    assert stop["data"]["slack_s"] > 0
    assert [e["data"]["num_timesteps"] for e in ledger(working) if e["kind"] == "evaluation"][-1] == 3072
    assert (working / "tank.zip").exists()


def test_prices_of_other_arguments_are_told_of(working: Path) -> None:
    done = arzbench("plan train.py --quota 40s -- --seed 1", working)
    assert done.code == 2
    assert "it is of train.py" in done.out
    assert "arzbench calibrate train.py -- --seed 1" in done.out


def test_only_what_a_command_line_can_name_is_to_be_measured() -> None:
    assert Code(script="train.py").is_named
    assert Code(factory="train:make").is_named
    assert not Code().is_named  # a notebook
    assert not Code(script="/lib/pytest/__main__.py").is_named


def test_what_goes_on_beyond_its_budget_is_not_compared_with_the_prediction(working: Path) -> None:
    part = arzbench("run train.py --fresh --timesteps 512", working)
    assert "predicted" in part.out.splitlines()[-2], part.out
    whole = subprocess.run(
        [sys.executable, "train.py"], cwd=working, env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    end = whole.stderr.partition("finished: the whole study is done")[2]
    assert "report:" in end, whole.stderr
    assert "predicted" not in end


def test_a_changed_script_is_told_of(working: Path) -> None:
    (working / "train.py").write_text(SHORT + "\n# changed\n")
    try:
        done = arzbench("plan train.py --quota 40s", working)
    finally:
        (working / "train.py").write_text(SHORT)
    assert done.code == 2
    assert "train.py changed since" in done.out
    assert "arzbench calibrate train.py" in done.out


def test_a_script_that_fails_is_shown_with_its_own_last_lines(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import math\nmath.sqrt(-1)\n")
    done = subprocess.run(
        [sys.executable, "-m", "arzbench", "calibrate", "broken.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "broken.py failed before anything was measured" in done.stderr
    assert "line 2" in done.stderr
    (tmp_path / "silent.py").write_text("print('nothing')\n")
    done = arzbench("calibrate silent.py", tmp_path)
    assert done.code == 2
    assert "does not call arzbench.learn" in done.out
    assert {p.name for p in tmp_path.iterdir()} == {"broken.py", "silent.py"}


#: what users' scripts begin with
MODEL = """import sys, arzbench
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

env = VecNormalize(make_vec_env("CartPole-v1", 1))
model = PPO("MlpPolicy", env, n_steps=64, n_epochs=1, policy_kwargs={"net_arch": [8]}, seed=0)
"""


def test_a_share_of_it_and_then_by_itself_the_rest(tmp_path: Path) -> None:
    says = "import os\n\nos.makedirs('elsewhere', exist_ok=True)\n"
    says += "o = arzbench.learn(model, 640, folder=os.getcwd())\nos.chdir('elsewhere')\n"
    says += "if o.reason:\n    print(o.finished, o.reason.name, o.exit_code, o.folder.name)\n"
    (tmp_path / "t.py").write_text(MODEL + says)
    part = arzbench("run t.py --timesteps 200", tmp_path)
    assert part.code == 0, part.out
    (run,) = (tmp_path / "reports").iterdir()
    assert f"False BUDGET 4 {run.name}" in part.out
    for _ in range(2):  # trained to the end, and found finished
        done = subprocess.run(
            [sys.executable, "t.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.stdout.strip() == f"True FINISHED 0 {run.name}", done.stderr
    assert ledger(tmp_path)[-1]["data"]["num_timesteps"] == [640]


def test_a_script_may_exit_after_a_stop_and_overwrites_nothing(tmp_path: Path) -> None:
    ends = "import os\n\nos.makedirs('elsewhere', exist_ok=True)\nos.chdir('elsewhere')\n"
    ends += "arzbench.learn(model, 300, on_stop='exit')\nmodel.policy.save('../kept')\nenv.save('../kept')\n"
    ends += "sys.exit(arzbench.learn(model, 320).exit_code)\n"
    (tmp_path / "t.py").write_text(MODEL + ends)
    (tmp_path / "kept").write_text("mine")
    done = arzbench("calibrate t.py --steps 50 --repetitions 2 --max-time 5s", tmp_path)
    assert done.code == 0, done.out
    assert "620 training steps" in done.out
    assert (tmp_path / "kept").read_text() == "mine"
    run = arzbench("run t.py --timesteps 620", tmp_path)
    assert run.code == 0, run.out
    assert (tmp_path / "kept").read_bytes()[:4] != b"mine"
    assert {p.name for p in tmp_path.iterdir()} == {
        "t.py",
        "kept",
        "elsewhere",
        "profiles",
        "reports",
        "checkpoints",
    }
    assert not list((tmp_path / "elsewhere").iterdir())


def test_arguments_that_a_script_needs_are_asked_for(tmp_path: Path) -> None:
    needs = "import argparse\n\np = argparse.ArgumentParser()\np.add_argument('--lr', required=True)\n"
    (tmp_path / "t.py").write_text(needs + "p.parse_args()\n")
    done = arzbench("calibrate t.py", tmp_path)
    assert done.code == 2
    assert "required: --lr" in done.out
    assert "go behind --: t.py -- ARGUMENTS" in done.out
    (tmp_path / "t.py").write_text("import math\nmath.sqrt(-1)\n")
    failed = subprocess.run(
        [sys.executable, "-m", "arzbench", "calibrate", "t.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "line 2" in failed.stderr
    assert "worker.py" not in failed.stderr


def test_what_is_wrong_with_a_factory_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text("def make(): return None\n")
    for name, message in (("make", "returned a NoneType, not a model"), ("other", "made has no 'other'")):
        done = arzbench(f"calibrate --factory made.py:{name}", tmp_path)
        assert done.code == 2
        assert message in done.out
        assert done.out.count("error:") == done.out.count("hint:") == 1

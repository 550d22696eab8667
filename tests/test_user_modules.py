"""What a study names is found beside it by every command; what is not found is told before all else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from arzbench.predict.plan import EARLIER
from tests.calls import refused
from tests.processes import ROOT

ENVS = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Count(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length=9):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return seen, float(action), False, self.t >= self.length, {}


class Half(gym.RewardWrapper):
    def reward(self, reward):
        return reward / 2


gym.register("Count-v0", entry_point=Count, max_episode_steps=7)
"""
STUDY = """
schema = "arzbench/study"
version = 1
name = "mine"
env = "{module}:{env}"
algo = "a2c"
total_timesteps = 200
wrappers = ["{module}:Half"]

[evaluation]
eval_freq = 100
n_eval_episodes = 1
"""


def arzbench(folder: Path, *words: str) -> str:
    """A command in a process of its own, which does not look in `folder` by itself."""
    program = "import sys; sys.path.pop(0); from arzbench.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ARZBENCH_MODULES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("place", "study", "env"),
    [(".", "mine.toml", "Count-v0"), ("sub", "sub/mine.toml", "Count"), ("work", "mine", "Count")],
    ids=["in this folder", "beside the study", "in --dir"],
)
def test_modules_beside_a_study_are_found_by_calibrate_plan_and_run(
    tmp_path: Path, place: str, study: str, env: str
) -> None:
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (folder / "counting_envs.py").write_text(ENVS)
    beside = folder / "profiles" / "studies" if study == "mine" else folder
    beside.mkdir(parents=True, exist_ok=True)
    (beside / "mine.toml").write_text(STUDY.format(module="counting_envs", env=env))
    at = ("--dir", place) if study == "mine" else ()
    arzbench(tmp_path, "calibrate", "--study", study, "--repetitions", "2", "--max-time", "5s", *at)
    planned = arzbench(tmp_path, "plan", "--study", study, "--quota", "1h", *at)
    assert "200 training steps" in planned
    assert EARLIER not in planned  # it says which arzbench measured
    told = arzbench(tmp_path, "run", "--study", study, "--auto-budget", "--quota", "1h", *at)
    assert "200 of 200 steps" in told


CARTPOLE = "calibrate --env CartPole-v1 --algo ppo"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{CARTPOLE} --set policy_kwargs.activation_fn=ReLU", "policy_kwargs.activation_fn = 'ReLU'"),
        (f"{CARTPOLE} --set policy_kwargs.activation_fn=torch.nn:RLU", "torch.nn has no 'RLU'"),
        (f"{CARTPOLE} --set policy_kwargs.activation_fn=no_such:R", "imported: No module named 'no_such'"),
        (f"{CARTPOLE} --set policy=no_such:Policy", "policy = 'no_such:Policy' cannot be imported"),
        (f"""{CARTPOLE} --set "wrappers=['no_such:W']" """, "wrappers[0] = 'no_such:W' cannot be imported"),
        (f"{CARTPOLE} --set learning_rate=lin_", "learning_rate = 'lin_': expected a number behind lin_"),
        ("calibrate --env no_such:E-v0 --algo ppo", "env = 'no_such:E-v0' cannot be imported"),
        ("calibrate --env broken_envs:E-v0 --algo ppo", "ZeroDivisionError: division by zero"),
        ("run --env no_such:E-v0 --algo ppo --timesteps 10", "env = 'no_such:E-v0' cannot be imported"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_one_error_before_any_process(
    command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("arzbench.measure.calibrate.run_worker", no_process)
    (tmp_path / "broken_envs.py").write_text("1 / 0")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    refused(command, tmp_path, said)


def test_an_algorithm_whose_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sb3_contrib" else object())
    refused(
        "calibrate --env Pendulum-v1 --algo tqc", tmp_path,
        "tqc is an algorithm of sb3-contrib, which is not installed", 'pip install "arzbench[contrib]"',
    )  # fmt: skip

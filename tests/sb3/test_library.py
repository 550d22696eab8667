"""Watched and stopped nowhere, a training ends in the bits of the library's own `learn`."""

from typing import Any

import pytest
import stable_baselines3 as sb3
import torch as th
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn
from torch.distributions import Distribution

from arzbench.sb3.building import make_env
from arzbench.sb3.skipped_work import skip_mode_switches
from tests.sb3.controls import Seldom, config, start, tidy  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch:UserWarning")
OFF_POLICY = {"learning_starts": 40, "batch_size": 16, "total_timesteps": 300}
CASES: dict[str, dict[str, Any]] = {
    "dqn": {"train_freq": 4, "exploration_fraction": 0.5, **OFF_POLICY},
    "sac": OFF_POLICY,
    "td3": OFF_POLICY,
    "ddpg": OFF_POLICY,
    "ppo": {"n_steps": 32, "batch_size": 16, "n_epochs": 3, "total_timesteps": 256, "n_envs": 2},
    "a2c": {"n_steps": 8, "total_timesteps": 256},
}


@pytest.mark.parametrize("algo", CASES)
def test_it_trains_as_the_library_does(algo: str) -> None:
    study = config(algo, **CASES[algo])
    kind = getattr(sb3, algo.upper())
    envs = [Monitor(make_env(study)) for _ in range(study.n_envs)]
    vec_env = DummyVecEnv([lambda env=env: env for env in envs])  # type: ignore[misc]
    library = kind(study.policy, vec_env, seed=study.seed, device="cpu", **study.constructor_arguments())
    library.set_logger(Logger(None, []))
    library.learn(study.total_timesteps, log_interval=None)
    expected = library.policy.state_dict()

    training, _ = start(study)
    training.run(Seldom(20))
    found = training.model.policy.state_dict()
    assert found.keys() == expected.keys()
    assert all(th.equal(found[name], expected[name]) for name in expected)
    assert any(not th.equal(start(study)[0].model.policy.state_dict()[n], expected[n]) for n in expected)
    assert Distribution._validate_args  # as it was


def test_modules_that_compute_otherwise_in_training_are_switched() -> None:
    training, _ = start(config("dqn", total_timesteps=10))
    policy = training.model.policy
    policy.set_training_mode(True)
    before = policy.training
    policy.set_training_mode(not before)
    assert policy.training is before  # nothing in it depends on that
    del policy.set_training_mode
    policy.q_net.q_net.append(nn.Dropout(0.5))
    skip_mode_switches(policy)
    policy.set_training_mode(not before)
    assert policy.q_net.q_net[-1].training is not before

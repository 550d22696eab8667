"""Gymnasium's envs of MuJoCo and Box2D, where these are installed: what is promised of an open episode."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from arzbench.training_state import TrainingState
from arzbench.workload import StopTraining
from tests.sb3.controls import Free, StopAt, config, start, through_bytes, tidy  # noqa: F401

PACKAGES = {"Hopper-v5": "mujoco", "Swimmer-v4": "mujoco", "LunarLander-v3": "Box2D"}
WALKER = "BipedalWalker-v3"


def training_of(env: str, state: TrainingState | None = None) -> Any:
    pytest.importorskip(PACKAGES.get(env, "Box2D"))
    algo = "dqn" if env == "LunarLander-v3" else "sac"
    study = config(
        algo, env=env, n_envs=2, total_timesteps=600, learning_starts=50, batch_size=8, train_freq=4, seed=3
    )
    return start(study, state)[0]


def stopped(env: str) -> TrainingState:
    """The state of a training midway through an episode that is not its first."""
    training = training_of(env)
    with pytest.raises(StopTraining):
        training.run(StopAt(260))
    return through_bytes(training.capture())


def episode(env: gym.Env[Any, Any], seed: int) -> list[bytes]:
    """All that an episode of random actions says."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    said = [observation.tobytes()]
    for _ in range(150):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        said += [observation.tobytes(), np.float64(reward).tobytes()]
        if terminated or truncated:
            break
    return said


@pytest.mark.parametrize("env", PACKAGES)
def test_a_reset_makes_anew_all_that_is_compiled(env: str) -> None:
    pytest.importorskip(PACKAGES[env])
    used = gym.make(env)
    for seed in range(8):
        assert episode(used, seed) == episode(gym.make(env), seed)


@pytest.mark.parametrize("env", PACKAGES)
def test_the_open_episode_is_played_again_and_ends_in_the_same_bits(env: str) -> None:
    whole = training_of(env)
    whole.run(Free())
    state = stopped(env)
    assert state.tier == "replay"
    resumed = training_of(env, state)
    assert resumed.resumed == "replay"
    resumed.run(Free())
    assert resumed.fingerprint() == whole.fingerprint()


def test_a_world_that_outlives_a_reset_is_promised_nothing() -> None:
    state = stopped(WALKER)
    assert state.tier == "unproven"
    assert training_of(WALKER, state).resumed in ("unproven", "reset")

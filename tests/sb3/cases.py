"""Trainings of every kind that a stop, or a step nobody asks about, must not change."""

from typing import Any

from arzbench.study import TrainConfig
from tests.sb3.controls import StopAt, config, start

STAGES: dict[str, Any] = {
    "baseline": {"episodes": 2},
    "evaluation": {"eval_freq": 13, "n_eval_episodes": 2, "final_episodes": 2, "deterministic": False},
    "env_kwargs": {"ends": 0.05},
    "seed": 3,
}
OFF = {"learning_starts": 20, "batch_size": 8, "total_timesteps": 56}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "dqn": {**OFF, "total_timesteps": 120, "target_update_interval": 10, "buffer_size": 60},
    "ppo": {"n_steps": 16, "batch_size": 12, "n_epochs": 2, "total_timesteps": 70},
    "a2c": {"total_timesteps": 60},
    "sac": OFF,
    "td3": {**OFF, "action_noise": {"kind": "ornstein-uhlenbeck", "sigma": 0.3}},
    "ddpg": {**OFF, "action_noise": {"sigma": 0.1}},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "one env": {},
    "two envs": {"n_envs": 2},
    "normalised": {"n_envs": 2, "vec_normalize": True},
}
SPECIAL: dict[str, TrainConfig] = {
    "episodes as rollouts": config(
        "dqn", learning_starts=20, train_freq=[2, "episode"], gradient_steps=-1, total_timesteps=90, **STAGES
    ),
    "noise drawn for several steps, on policy": config(
        "ppo", env="Pendulum-v1", use_sde=True, sde_sample_freq=5, n_steps=16, batch_size=16, n_epochs=2,
        total_timesteps=48,
    ),
    "noise drawn for several steps, off policy": config(
        "sac", use_sde=True, sde_sample_freq=3, train_freq=8, n_envs=2, learning_starts=16,
        total_timesteps=64,
    ),
    "observations in a dict": config(
        "sac", policy="MultiInputPolicy", **{**STAGES, "env_kwargs": {"mapping": True, "ends": 0.05}}, **OFF
    ),
    "a dict, on policy, normalised": config(
        "ppo", policy="MultiInputPolicy", vec_normalize=True, n_steps=8, batch_size=8, n_epochs=1,
        total_timesteps=32, env_kwargs={"mapping": True},
    ),
    "a frugal buffer": config(
        "dqn", optimize_memory_usage=True, replay_buffer_kwargs={"handle_timeout_termination": False},
        buffer_size=40, **{**OFF, "total_timesteps": 70},
    ),
    "returns over three steps": config("dqn", n_steps=3, **OFF),
    "an env that draws from Python's generator": config("a2c", env="arztest/Careless-v0", total_timesteps=30),
    "cart pole": config("dqn", env="CartPole-v1", **OFF),
    "acrobot": config("a2c", env="Acrobot-v1", total_timesteps=40),
    "mountain car": config("a2c", env="MountainCar-v0", total_timesteps=40),
    "continuous mountain car": config("ddpg", env="MountainCarContinuous-v0", **OFF),
    "pendulum": config("td3", env="Pendulum-v1", **OFF),
    "our own traffic light": config(
        "dqn", env="arzbench/TrafficLight-v0", **{**OFF, "total_timesteps": 40}, train_freq=8
    ),
}  # fmt: skip


def whole(study: TrainConfig) -> tuple[dict[str, str], StopAt, Any]:
    """The fingerprint of the uninterrupted run, and how often its control was asked."""
    training, _ = start(study)
    control = StopAt(10**9)
    training.run(control)
    assert training.stage == "done"
    return training.fingerprint(), control, training

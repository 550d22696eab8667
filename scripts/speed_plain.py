"""The trainings of speed.py in plain Stable-Baselines3: speed_plain.py CASE STEPS FOLDER [--returns].

FOLDER gets the model and what `EvalCallback` found. With --returns evaluations are those of arzbench, so that
their returns can be compared: an episode has the seed that arzbench gives it, and an evaluation comes after
the update that follows its step, not before.
"""

import sys
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor

import arzbench.traffic.env  # noqa: F401  (registers its envs)

LIGHT = "arzbench/TrafficLight-v0"
SEED, EPISODES = 42, 5


class SeededEpisodes(gymnasium.Wrapper):
    """An evaluation resets the env once for each episode, and once more."""

    resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        key = [SEED, 1, *divmod(self.resets, EPISODES + 1)]
        self.resets += 1
        return self.env.reset(seed=int(np.random.SeedSequence(key).generate_state(1)[0]), options=options)


class AfterUpdate(EvalCallback):
    """Evaluates when the update that follows a step is done."""

    evaluated = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.n_calls > self.evaluated:
            self.evaluated = self.n_calls
            super()._on_step()

    _on_training_end = _on_rollout_start


def incident(steps: int, folder: str, returns: bool) -> DQN:
    model = DQN(
        "MlpPolicy", Monitor(gymnasium.make(LIGHT)), seed=SEED, learning_rate=1e-3, buffer_size=50_000,
        learning_starts=1_000, batch_size=32, train_freq=4, gradient_steps=1, target_update_interval=1_000,
        exploration_fraction=0.1, exploration_initial_eps=1.0, exploration_final_eps=0.05,
    )  # fmt: skip
    env = gymnasium.make(LIGHT)
    found = AfterUpdate if returns else EvalCallback
    callback = found(
        Monitor(SeededEpisodes(env) if returns else env),
        eval_freq=1_000, n_eval_episodes=EPISODES, log_path=folder, verbose=0,
    )  # fmt: skip
    return model.learn(steps, callback=callback)


def ppo_16(steps: int, folder: str, returns: bool) -> PPO:
    return PPO("MlpPolicy", make_vec_env(LIGHT, n_envs=16, seed=0), n_steps=128, seed=0).learn(steps)


def sac_pendulum(steps: int, folder: str, returns: bool) -> SAC:
    return SAC("MlpPolicy", "Pendulum-v1", seed=0).learn(steps)


def td3_pendulum(steps: int, folder: str, returns: bool) -> TD3:
    return TD3("MlpPolicy", "Pendulum-v1", seed=0).learn(steps)


if __name__ == "__main__":
    case, steps, folder, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    globals()[case](int(steps), folder, rest == ["--returns"]).save(f"{folder}/model.zip")

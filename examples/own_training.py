"""A training of one's own: its env, model and callback. Three lines differ from plain Stable-Baselines3."""

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor

import arzbench  # 1


class Tank(gym.Env):
    """Keep the level of a tank at a half while the demand wanders."""

    observation_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level, self.demand, self.steps = self.np_random.uniform(), 0.5, 0
        return self._observation(), {}

    def step(self, action):
        self.demand = float(np.clip(self.demand + self.np_random.normal(0.0, 0.05), 0.0, 1.0))
        self.level = float(np.clip(self.level + 0.1 * (action / 2 - self.demand), 0.0, 1.0))
        self.steps += 1
        return self._observation(), -abs(self.level - 0.5), False, self.steps == 200, {}

    def _observation(self):
        return np.array([self.level, self.demand], np.float32)


torch.set_num_threads(1)  # of a small net: threads that wait for each other take longer
model = PPO("MlpPolicy", Tank(), n_steps=512, learning_rate=lambda left: 3e-4 * left, seed=0)
evaluation = EvalCallback(Monitor(Tank()), eval_freq=4096, verbose=0)
outcome = arzbench.learn(model, 60_000, callback=evaluation)  # 2: was model.learn(60_000, ...)
if outcome.finished:  # 3
    model.save("tank")

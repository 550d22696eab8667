"""What users keep beside their study: envs, wrappers, schedules, networks."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor


class Camera(gym.Env):
    """Small random pictures, channels last; of fixed length."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 12) -> None:
        self.length = length
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._picture(), {}

    def _picture(self) -> Any:
        return self.np_random.integers(0, 255, (36, 36, 3), dtype=np.uint8)

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._picture(), float(action), False, self.t >= self.length, {}


class Scaled(gym.RewardWrapper):
    def __init__(self, env: gym.Env, by: float = 2.0) -> None:
        super().__init__(env)
        self.by = by

    def reward(self, reward: Any) -> float:
        return self.by * float(reward)


class Doubling(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Box, times: int = 2) -> None:
        super().__init__(observation_space, times * int(np.prod(observation_space.shape)))
        self.times = times

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.cat([observations] * self.times, dim=1)


def falling(progress_remaining: float) -> float:
    return 1e-3 * progress_remaining**2


class Nested:
    class Inner:
        pass


NO_ENV = dict

"""Batches of a replay buffer as tensors, drawn as the library draws them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor


class Batch(NamedTuple):
    """Transitions, shapes (batch, something)."""

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    dones: Tensor
    rewards: Tensor
    discounts: Any  # a number, or a tensor of n-step returns


def draw(model: Any, batch_size: int) -> Batch:
    """A batch of `model.replay_buffer`: the same transitions for the same state of NumPy's generator."""
    buffer = model.replay_buffer
    plain = type(buffer) is ReplayBuffer and not buffer.optimize_memory_usage
    if not plain or model._vec_normalize_env is not None:
        data = buffer.sample(batch_size, env=model._vec_normalize_env)
        discounts = model.gamma if data.discounts is None else data.discounts
        return Batch(data[0].float(), data[1], data[2].float(), data[3], data[4], discounts)
    n_envs = buffer.n_envs
    rows = np.random.randint(0, buffer.buffer_size if buffer.full else buffer.pos, size=batch_size)
    envs = np.random.randint(0, high=n_envs, size=(batch_size,))
    if n_envs > 1:
        rows = rows * n_envs + envs
    observations, actions, next_observations = (
        th.from_numpy(array.reshape(-1, array.shape[-1]).take(rows, axis=0))
        for array in (buffer.observations, buffer.actions, buffer.next_observations)
    )
    dones, timeouts, rewards = (
        array.reshape(-1).take(rows) for array in (buffer.dones, buffer.timeouts, buffer.rewards)
    )
    dones = (dones * (1 - timeouts)).reshape(-1, 1)
    rewards = rewards.reshape(-1, 1)
    observations, next_observations = observations.float(), next_observations.float()
    return Batch(
        observations, actions, next_observations, th.from_numpy(dones), th.from_numpy(rewards), model.gamma
    )

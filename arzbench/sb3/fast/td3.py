"""TD3 without autograd, and DDPG, which the library makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor

from arzbench.sb3.fast.continuous import ContinuousLearner, Critics, follow
from arzbench.sb3.fast.nets import MEAN, Gradients, Perceptron, mse_loss, mse_loss_backward
from arzbench.sb3.fast.parameters import flat, gather
from arzbench.sb3.fast.replay import Batch, draw


class TD3Learner(ContinuousLearner):
    """Of `stable_baselines3.TD3` and `DDPG` with an `MlpPolicy`."""

    def __init__(self, model: Any) -> None:
        actor, target = model.actor, model.actor_target
        super().__init__(model, TD3Policy, actor, target, model.critic, model.critic_target)
        self.TRIED = max(4, 2 * model.policy_delay)
        self._parameters = flat(actor.optimizer)
        self._target_values = gather(list(target.parameters()))
        self._actor, self._target = Perceptron(actor.mu), Perceptron(target.mu)
        self._gradients = Gradients(self._actor, self._parameters)
        self._of_critics = flat(model.critic.optimizer)
        self._critics = Critics(self._of_critics, model.critic, model.critic_target)

    def _choose(self, observations: Tensor, deterministic: bool) -> Tensor:
        return self._actor(observations)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        model = self._model
        model._update_learning_rate([model.actor.optimizer, model.critic.optimizer])
        critic_losses, actor_losses = [], []
        for _ in range(gradient_steps):
            model._n_updates += 1
            batch = draw(model, batch_size)
            critic_losses.append(self._critic_step(batch))
            if model._n_updates % model.policy_delay == 0:
                actor_losses.append(self._actor_step(batch.observations))
                self._critics.follow(model.tau)
                follow(self._target_values, self._parameters.values, model.tau)
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        if actor_losses:
            model.logger.record("train/actor_loss", np.mean(actor_losses))
        model.logger.record("train/critic_loss", np.mean(critic_losses))

    def _critic_step(self, batch: Batch) -> float:
        model, critics = self._model, self._critics
        noise = th.empty_like(batch.actions).normal_(0, model.target_policy_noise)
        noise.clamp_(-model.target_noise_clip, model.target_noise_clip)
        actions = self._target(batch.next_observations).add_(noise).clamp_(-1, 1)
        least, _ = th.cat(critics.targets(batch.next_observations, actions), dim=1).min(dim=1, keepdim=True)
        expected = batch.rewards + (1 - batch.dones) * batch.discounts * least
        layers = critics.layers(batch.observations, batch.actions)
        loss: float = sum(mse_loss(each[-1], expected) for each in layers).item()
        critics.learn(layers, [mse_loss_backward(self._one, each[-1], expected, MEAN) for each in layers])
        return loss

    def _actor_step(self, observations: Tensor) -> float:
        own = self._actor.layers(observations)
        layers = self._critics.layers(observations, own[-1], first=1)
        loss: float = -layers[0][-1].mean().item()
        gradient = -self._mean_gradient(len(observations))
        self._gradients(own, self._critics.action_gradient(layers, [gradient], observations))
        self._parameters.step()
        return loss

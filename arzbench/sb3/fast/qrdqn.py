"""QR-DQN without autograd."""

from __future__ import annotations

from typing import Any

import torch as th
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from torch import Tensor

from arzbench.sb3.fast.dqn import DQNLearner
from arzbench.sb3.fast.quantiles import QuantileLoss
from arzbench.sb3.fast.replay import draw


class QRDQNLearner(DQNLearner):
    """Of `sb3_contrib.QRDQN` with an `MlpPolicy`."""

    POLICY = (QRDQNPolicy, "quantile_net")

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        number = model.policy.n_quantiles
        self._quantiles = number, int(model.action_space.n)
        self._loss = QuantileLoss(number)

    def _q_values(self, observations: Tensor) -> Tensor:
        return self._of_actions(self._q(observations)).mean(dim=1)

    def _of_actions(self, output: Tensor) -> Tensor:
        """The quantiles of each action, shape (batch, quantiles, actions)."""
        return output.view(-1, *self._quantiles)

    def _step(self, batch_size: int) -> float:
        batch, (number, _) = draw(self._model, batch_size), self._quantiles
        following = self._of_actions(self._target(batch.next_observations))
        best = following.mean(dim=1, keepdim=True).argmax(dim=2, keepdim=True).expand(-1, number, 1)
        following = following.gather(2, best).squeeze(2)
        expected = batch.rewards + (1 - batch.dones) * batch.discounts * following
        layers = self._q.layers(batch.observations)
        quantiles = self._of_actions(layers[-1])
        actions = batch.actions.unsqueeze(2).long().expand(-1, number, 1)
        chosen = quantiles.gather(2, actions).squeeze(2)
        losses, of_chosen = self._loss(chosen, expected, chosen.numel())
        loss: float = losses.sum(dim=-2).mean().item()
        gradient = th.zeros_like(quantiles).scatter_add_(2, actions, of_chosen.unsqueeze(2))
        self._gradients(layers, gradient.view(batch_size, -1))
        if self._model.max_grad_norm is not None:
            self._parameters.clip(self._model.max_grad_norm)
        self._parameters.step()
        return loss

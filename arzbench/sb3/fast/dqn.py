"""DQN without autograd."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.dqn.policies import DQNPolicy

from arzbench.sb3.fast.learner import Learner, check_observations
from arzbench.sb3.fast.nets import MEAN, Gradients, Perceptron
from arzbench.sb3.fast.parameters import NotFastError, flat
from arzbench.sb3.fast.replay import draw

_loss: Any = th.ops.aten.smooth_l1_loss.default
_loss_backward: Any = th.ops.aten.smooth_l1_loss_backward.default


class DQNLearner(Learner):
    """Of `stable_baselines3.DQN` with an `MlpPolicy`."""

    #: the policy, and what it and its net call the net
    POLICY: ClassVar[tuple[Any, str]] = (DQNPolicy, "q_net")

    def __init__(self, model: Any) -> None:
        policy, (known, name) = model.policy, self.POLICY
        if type(policy) is not known:
            raise NotFastError(f"the policy {type(policy).__name__}")
        nets = getattr(policy, name), getattr(policy, f"{name}_target")
        self._shape = check_observations(policy.observation_space, *(net.features_extractor for net in nets))
        self._model = model
        self._parameters = flat(policy.optimizer)
        self._q, self._target = (Perceptron(getattr(net, name)) for net in nets)
        self._gradients = Gradients(self._q, self._parameters)
        self._one = th.tensor(1.0)

    def _actions(self, observations: th.Tensor, deterministic: bool) -> Any:
        return self._q_values(observations).argmax(dim=1).numpy()

    def _q_values(self, observations: th.Tensor) -> th.Tensor:
        return self._q(observations)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        model = self._model
        model._update_learning_rate(model.policy.optimizer)
        losses = [self._step(batch_size) for _ in range(gradient_steps)]
        model._n_updates += gradient_steps
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        model.logger.record("train/loss", np.mean(losses))

    def _step(self, batch_size: int) -> float:
        batch = draw(self._model, batch_size)
        best = self._target(batch.next_observations).amax(1, keepdim=True)
        expected = batch.rewards + (1 - batch.dones) * batch.discounts * best
        layers = self._q.layers(batch.observations)
        actions = batch.actions.long()
        chosen = th.gather(layers[-1], 1, actions)
        loss: float = _loss(chosen, expected).item()
        gradient = _loss_backward(self._one, chosen, expected, MEAN, 1.0)
        self._gradients(layers, th.zeros_like(layers[-1]).scatter_add_(1, actions, gradient))
        self._parameters.clip(self._model.max_grad_norm)
        self._parameters.step()
        return loss

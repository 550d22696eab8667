"""What algorithms for bounded continuous actions have in common: critics with targets, and how they act."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from arzbench.sb3.fast.learner import Learner, check_observations
from arzbench.sb3.fast.nets import Gradients, Perceptron
from arzbench.sb3.fast.parameters import FlatParameters, NotFastError, gather


class Critics:
    """Values of observations with actions, by several nets, and the targets that follow them."""

    def __init__(self, parameters: FlatParameters, critic: Any, target: Any) -> None:
        """`parameters` are those of `critic`.

        Raises:
            NotFastError: there are nets of other kinds.
        """
        self._parameters = parameters
        self._target_values = gather(list(target.parameters()))
        self._nets = [Perceptron(net) for net in critic.q_networks]
        self._target_nets = [Perceptron(net) for net in target.q_networks]
        self._gradients = [Gradients(net, self._parameters) for net in self._nets]

    def targets(self, observations: Tensor, actions: Tensor) -> list[Tensor]:
        """The output of every target."""
        inputs = th.cat([observations, actions], dim=1)
        return [net(inputs) for net in self._target_nets]

    def layers(self, observations: Tensor, actions: Tensor, first: int | None = None) -> list[list[Tensor]]:
        """The layers of every net, or of the `first` few."""
        inputs = th.cat([observations, actions], dim=1)
        return [net.layers(inputs) for net in self._nets[:first]]

    def learn(self, layers: Sequence[Sequence[Tensor]], gradients: Sequence[Tensor]) -> None:
        """A step of the optimizer for the `gradients` of what the nets gave."""
        for net, its_layers, gradient in zip(self._gradients, layers, gradients, strict=True):
            net(its_layers, gradient)
        self._parameters.step()

    def action_gradient(
        self, layers: Sequence[Sequence[Tensor]], gradients: Sequence[Tensor], observations: Tensor
    ) -> Tensor:
        """The gradient of the actions; that of the weights, which nothing uses, is not computed."""
        total: Tensor | None = None
        for net, its_layers, gradient in reversed(list(zip(self._nets, layers, gradients, strict=False))):
            part = net.input_gradient(its_layers, gradient)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total[:, observations.shape[1] :]

    def follow(self, tau: float) -> None:
        """Move the targets towards the nets."""
        follow(self._target_values, self._parameters.values, tau)


def follow(target: Tensor, values: Tensor, tau: float) -> None:
    """`polyak_update` of the library."""
    target.mul_(1 - tau)
    th.add(target, values, alpha=tau, out=target)


class ContinuousLearner(Learner):
    """Acts within the bounds of a Box."""

    def __init__(self, model: Any, known: type[Any], *parts: Any) -> None:
        """`known` is a class of policies, `parts` are those of the policy that extract features.

        Raises:
            NotFastError: the model has another.
        """
        policy: Any = model.policy
        if type(policy) is not known:
            raise NotFastError(f"the policy {type(policy).__name__}")
        extractors = [part.features_extractor for part in parts]
        self._shape = check_observations(policy.observation_space, *extractors)
        self._model = model
        box = policy.action_space
        self._action_shape, self._low, self._range = box.shape, box.low, box.high - box.low
        self._one = th.tensor(1.0)

    @abc.abstractmethod
    def _choose(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Actions between -1 and 1, shape (envs, numbers of an action)."""

    def _actions(self, observations: Tensor, deterministic: bool) -> Any:
        actions = self._choose(observations, deterministic).numpy().reshape(-1, *self._action_shape)
        if np.isnan(actions).any():
            return None  # the library says what is wrong
        return self._low + (0.5 * (actions + 1.0) * self._range)

    def _mean_gradient(self, rows: int) -> Tensor:
        """The gradient of each of so many values, shape (rows, 1), from that of their mean."""
        return self._one.expand(rows, 1) / rows

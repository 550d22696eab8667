"""Samples of a squashed Gaussian, as the library's `SquashedDiagGaussianDistribution` has them."""

from __future__ import annotations

import math
from typing import Any

import torch as th
from torch import Tensor

_LEAST, _MOST = -20, 2  # the library's limits of log_std
_LOG_NORM = math.log(math.sqrt(2 * math.pi))
_tanh_backward: Any = th.ops.aten.tanh_backward.default


class Sample:
    """One action for each row of `mean` and `log_std`, shape (batch, numbers of an action).

    Attributes:
        actions: Between -1 and 1.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        """Draws from torch's generator."""
        self._mean, self._log_std = mean, log_std
        self._std = log_std.clamp(_LEAST, _MOST).exp_()
        self._noise = th.empty_like(mean).normal_()
        self._unbounded = mean + self._noise * self._std
        self.actions = self._unbounded.tanh()

    def log_prob(self, epsilon: float) -> Tensor:
        """The logarithm of the actions' density, shape (batch, 1)."""
        std = self._std
        self._distance = self._unbounded - self._mean
        self._twice_variance = 2 * std**2
        self._exponent = -(self._distance**2) / self._twice_variance
        self._squash = 1 - self.actions**2 + epsilon
        gaussian = self._exponent - std.log() - _LOG_NORM
        return (gaussian.sum(dim=1) - self._squash.log().sum(dim=1)).reshape(-1, 1)

    def gradients(self, of_actions: Tensor, of_log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of the mean and of log_std; after `log_prob`."""
        std, distance = self._std, self._distance
        of_gaussian = of_log_prob.expand_as(std)
        of_std = (-of_gaussian) / std
        of_twice_variance = -of_gaussian * (self._exponent / self._twice_variance)
        of_std = of_std + (of_twice_variance * 2) * (2 * std)
        of_distance = -(of_gaussian / self._twice_variance) * (2 * distance)
        of_squash = (-of_gaussian) / self._squash
        of_actions = of_actions + -of_squash * (2 * self.actions)
        of_unbounded = _tanh_backward(of_actions, self.actions) + of_distance
        of_std = of_std + of_unbounded * self._noise
        within = (self._log_std >= _LEAST).logical_and_(self._log_std <= _MOST)
        return of_unbounded - of_distance, th.where(within, of_std * std, 0.0)

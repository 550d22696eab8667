"""Distributions of actions: from a net's output to its gradient, by the operations of the library's own."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch as th
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from torch import Tensor

from arzbench.sb3.fast.parameters import FlatParameters, NotFastError

Kept: TypeAlias = tuple[Tensor, ...]
_softmax_backward: Any = th.ops.aten._softmax_backward_data.default
_LOG_ROOT_2PI = math.log(math.sqrt(2 * math.pi))
_ENTROPY_OF_ONE = 0.5 + 0.5 * math.log(2 * math.pi)


class Distribution(abc.ABC):
    """What an actor's output, of shape (batch, features), stands for."""

    #: of actions that are evaluated, shape (batch, numbers of an action)
    DTYPE: ClassVar[th.dtype]

    @abc.abstractmethod
    def sample(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Actions drawn with torch's generator, and their log probabilities of shape (batch,)."""

    @abc.abstractmethod
    def predict(self, output: Tensor, *, deterministic: bool) -> Any:
        """Actions as an array, within the action space."""

    @abc.abstractmethod
    def evaluate(self, output: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Kept]:
        """Log probabilities of actions and entropies, of shape (batch,), and what `gradient` needs."""

    @abc.abstractmethod
    def gradient(self, kept: Kept, of_log_prob: Tensor, of_entropy: Tensor) -> Tensor:
        """The gradient of the output; that of the distribution's own parameters is written.

        `of_entropy` is one number for the whole batch. Where three gradients meet they are added in the order
        of autograd: the latest operation's first.
        """


class Categorical(Distribution):
    """One of several actions."""

    DTYPE = th.int64

    def sample(self, output: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = _normalised(output)
        # `multinomial` without the checks that it begins with
        actions = (probabilities / th.empty_like(probabilities).exponential_()).argmax(1, keepdim=True)
        return actions.squeeze(1), logits.gather(1, actions).squeeze(1)

    def predict(self, output: Tensor, *, deterministic: bool) -> Any:
        actions = _normalised(output)[1].argmax(dim=1) if deterministic else self.sample(output)[0]
        return actions.numpy()

    def evaluate(self, output: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Kept]:
        logits, probabilities = _normalised(output)
        entropies = -(logits * probabilities).sum(-1)  # not clamped: every finite logit is within the clamp
        return logits.gather(1, actions).squeeze(1), entropies, (logits, probabilities, actions)

    def gradient(self, kept: Kept, of_log_prob: Tensor, of_entropy: Tensor) -> Tensor:
        logits, probabilities, actions = kept
        of_term = -of_entropy
        gradient = probabilities * of_term
        gradient += _softmax_backward(logits * of_term, probabilities, -1, th.float32)
        gradient += th.zeros_like(logits).scatter_add_(1, actions, of_log_prob.unsqueeze(1))
        return gradient - gradient.sum(-1, keepdim=True) * logits.exp()


def _normalised(output: Tensor) -> tuple[Tensor, Tensor]:
    logits = output - output.logsumexp(-1, keepdim=True)
    return logits, th.softmax(logits, -1)


class DiagonalGaussian(Distribution):
    """Numbers with a mean each, which is the output, and a deviation each, which is a parameter."""

    DTYPE = th.float32

    def __init__(self, policy: Any, parameters: FlatParameters) -> None:
        self._log_std: Tensor = policy.log_std.data
        self._gradient = parameters.gradient_of(policy.log_std)
        self._space = policy.action_space

    def _scale(self, output: Tensor) -> Tensor:
        return th.ones_like(output) * self._log_std.exp()

    def _draw(self, output: Tensor, scale: Tensor) -> Tensor:
        noise: Tensor = th.empty_like(output).normal_()
        return output + noise * scale

    def sample(self, output: Tensor) -> tuple[Tensor, Tensor]:
        scale = self._scale(output)
        actions = self._draw(output, scale)
        return actions.reshape(-1, *self._space.shape), self._evaluate(output, scale, actions)[0]

    def predict(self, output: Tensor, *, deterministic: bool) -> Any:
        actions = output if deterministic else self._draw(output, self._scale(output))
        return np.clip(actions.numpy().reshape(-1, *self._space.shape), self._space.low, self._space.high)

    def _evaluate(self, output: Tensor, scale: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Kept]:
        off, twice_variance, log_scale = actions - output, 2 * scale.square(), scale.log()
        square = off.square()
        log_prob = (-square / twice_variance - log_scale - _LOG_ROOT_2PI).sum(dim=1)
        return log_prob, log_scale, (scale, twice_variance, off, square)

    def evaluate(self, output: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Kept]:
        log_prob, log_scale, kept = self._evaluate(output, self._scale(output), actions)
        return log_prob, (_ENTROPY_OF_ONE + log_scale).sum(dim=1), kept

    def gradient(self, kept: Kept, of_log_prob: Tensor, of_entropy: Tensor) -> Tensor:
        scale, twice_variance, off, square = kept
        each = of_log_prob.unsqueeze(1)
        of_scale = of_entropy / scale - each / scale
        of_scale += each * (square / twice_variance / twice_variance) * 2 * (2 * scale)
        th.mul(of_scale.sum(0), self._log_std.exp(), out=self._gradient)
        return each / twice_variance * (2 * off)


def distribution(policy: Any, parameters: FlatParameters) -> Distribution:
    """That of `policy`'s actions.

    Raises:
        NotFastError: it is of a kind that is not known here.
    """
    kind = type(policy.action_dist)
    if kind is CategoricalDistribution:
        return Categorical()
    if kind is DiagGaussianDistribution:
        return DiagonalGaussian(policy, parameters)
    raise NotFastError(f"the distribution {kind.__name__}")

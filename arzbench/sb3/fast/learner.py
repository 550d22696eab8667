"""What a fast path computes; a subclass for each kind of algorithm, named in `path.LEARNERS`."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from arzbench.sb3.fast.parameters import NotFastError

#: of observations: the library, too, makes float32 of them
_FLOATS = (np.float32, np.float64)


class Learner(abc.ABC):
    """Acts and learns as `model`, of the library's own class and policy, would."""

    #: gradient steps that show each kind of step at least once
    TRIED: int = 4
    _shape: tuple[int, ...]  # of an observation

    @abc.abstractmethod
    def __init__(self, model: Any) -> None:
        """Raises a `NotFastError` unless every part of the model is known."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        """In place of the policy's; None: the library is to do it."""
        batch = rows(observation, self._shape)
        actions = None if batch is None else self._actions(batch, deterministic)
        if actions is None:
            return None
        return (actions if len(observation.shape) > 1 else actions.squeeze(axis=0)), state

    @abc.abstractmethod
    def _actions(self, observations: th.Tensor, deterministic: bool) -> Any:
        """An array of actions as the env takes them, one for each row; None: the library is to choose."""

    @abc.abstractmethod
    def train(self, *args: Any) -> None:
        """In place of the algorithm's `train`."""


def check_observations(space: spaces.Space[Any], *extractors: nn.Module) -> tuple[int, ...]:
    """The shape of observations that go into a perceptron as they are.

    Raises:
        NotFastError: they are not plain vectors.
    """
    if not isinstance(space, spaces.Box) or space.dtype not in _FLOATS or len(space.shape or ()) != 1:
        raise NotFastError(f"observations {space}")
    for extractor in extractors:
        if type(extractor) is not FlattenExtractor:
            raise NotFastError(f"the features extractor {type(extractor).__name__}")
    return (spaces.utils.flatdim(space),)


def rows(observation: Any, shape: tuple[int, ...]) -> th.Tensor | None:
    """`observation`, of one env or several, as a tensor of shape (envs, ...); None for anything else."""
    if type(observation) is not np.ndarray or observation.dtype not in _FLOATS:
        return None
    if observation.shape[1:] == shape:
        return th.from_numpy(observation).float()
    return th.from_numpy(observation[None]).float() if observation.shape == shape else None

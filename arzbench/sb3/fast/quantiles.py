"""Quantile regression, as `quantile_huber_loss` of sb3-contrib does it, in a third of the passes."""

from __future__ import annotations

from typing import Any

import torch as th
from torch import Tensor

_huber: Any = th.ops.aten.huber_loss.out
_NO_REDUCTION = 0  # torch's number for it


class QuantileLoss:
    """Compares each quantile with each that is expected.

    The library's sums have these bits: halves and doubles are exact, and so is a product with a sign.
    """

    def __init__(self, quantiles: int) -> None:
        self._levels = ((th.arange(quantiles, dtype=th.float) + 0.5) / quantiles).unsqueeze(1)
        self._kept = th.empty(0)  # large enough that new memory would take as long as what is computed

    def __call__(self, current: Tensor, expected: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The losses, valid until the next call, and the gradient of `current` by their sum over `count`.

        `current` has the shape (..., quantiles), as has its gradient; `expected` (..., expected), the losses
        (..., quantiles, expected).
        """
        shape = (*current.shape, expected.shape[-1])
        if self._kept.shape[1:] != shape:
            self._kept = th.empty(3, *shape)
        distance, weight, losses = self._kept
        th.sub(expected.unsqueeze(-2), current.unsqueeze(-1), out=distance)
        th.lt(distance, 0, out=weight).sub_(self._levels).abs_()
        _huber(distance, th.zeros(()).expand(shape), _NO_REDUCTION, 1.0, out=losses).mul_(weight)
        weight.mul_(th.tensor(1.0) / count)
        return losses, -distance.clamp_(-1, 1).mul_(weight).sum(dim=-1)

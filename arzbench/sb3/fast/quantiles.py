"""Quantile regression, as `quantile_huber_loss` of sb3-contrib does it, in a third of the passes."""

from __future__ import annotations

from typing import Any

import torch as th
from torch import Tensor

_huber: Any = th.ops.aten.huber_loss.default
_NO_REDUCTION = 0  # torch's number for it


def levels(quantiles: int) -> Tensor:
    """The probabilities that so many quantiles stand for, shape (quantiles, 1)."""
    return ((th.arange(quantiles, dtype=th.float) + 0.5) / quantiles).unsqueeze(1)


def losses(current: Tensor, expected: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each of the `current` quantiles with each that is `expected`; what each has by their mean.

    `current` has the shape (..., quantiles), `expected` (..., expected), `levels` (quantiles, 1). The losses
    have the shape (..., quantiles, expected), the gradients that of `current`.

    The library's sums have these bits: halves and doubles are exact, and so is a product with a sign.
    """
    distance = expected.unsqueeze(-2) - current.unsqueeze(-1)
    weight = th.lt(distance, 0, out=th.empty_like(distance)).sub_(levels).abs_()
    losses = _huber(distance, th.zeros(()).expand_as(distance), _NO_REDUCTION, 1.0).mul_(weight)
    share = th.tensor(1.0) / losses.numel()
    return losses, -distance.clamp_(-1, 1).mul_(weight.mul_(share)).sum(dim=-1)

"""Skips redundant per-step work of the library; see docs/decisions/0011-spared.md."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.distributions import Distribution

#: modules that compute the same in training as elsewhere; so do the library's own
MODELESS = frozenset({
    nn.Conv2d, nn.ELU, nn.Flatten, nn.GELU, nn.Identity, nn.LeakyReLU, nn.Linear, nn.ModuleDict,
    nn.ModuleList, nn.ReLU, nn.Sequential, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Tanh,
})  # fmt: skip


def skip_mode_switches(policy: Any) -> None:
    """Let `set_training_mode`, called at every step, do nothing where no module would compute otherwise."""
    kinds = {type(module) for module in policy.modules()}
    if all(kind in MODELESS or kind.__module__.startswith("stable_baselines3.") for kind in kinds):
        policy.set_training_mode = lambda mode: None


@contextlib.contextmanager
def distributions_unchecked() -> Iterator[None]:
    """Without torch's own look at the parameters of every distribution, a tenth of a small policy's step."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)

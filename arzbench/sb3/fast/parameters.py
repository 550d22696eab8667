"""An optimizer's parameters, gradients and moments, each kind in one tensor.

What the model and its optimizer have become views of these: either may be read, saved, restored and stepped
as before. A step over one tensor takes as long as one parameter's.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import Tensor

#: settings of optimizers with which they compute as here
_PLAIN = {
    "weight_decay": 0, "momentum": 0, "amsgrad": False, "centered": False, "maximize": False, "foreach": None,
    "fused": None, "capturable": False, "differentiable": False, "decoupled_weight_decay": False,
}  # fmt: skip


class NotFastError(Exception):
    """There is no fast path for this model; the message says in a few words what it has that is not known."""


def gather(tensors: Sequence[Tensor]) -> Tensor:
    """Lay the data of `tensors` beside each other: they become views of the one that is returned.

    What it has between them is zero, and stays so in every step.

    Raises:
        NotFastError: one is not of float32 on the CPU.
    """
    if any(t.dtype != th.float32 or t.device.type != "cpu" for t in tensors):
        raise NotFastError("parameters that are not float32 on the CPU")
    whole = th.zeros(sum(_room(t) for t in tensors))
    for tensor, part in zip(tensors, _parts(whole, tensors), strict=True):
        tensor.data = part.copy_(tensor.data)
    return whole


def _parts(whole: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = th.split(whole, [_room(t) for t in like])
    return [part[: t.numel()].view(t.shape) for part, t in zip(parts, like, strict=True)]


def _room(tensor: Tensor) -> int:
    """Whole lines of 64 bytes, as torch allocates: products of matrices that lie otherwise differ in bits."""
    return -(-tensor.numel() // 16) * 16


class FlatParameters(abc.ABC):
    """The parameters of one optimizer.

    Attributes:
        values: Of all parameters, in the optimizer's order, and zeros between them.
        gradient: Likewise; parts of it are written by `nets.Gradients`.
    """

    #: names and first values of the moments, in the optimizer's order
    MOMENTS: ClassVar[dict[str, float]]

    def __init__(self, optimizer: th.optim.Optimizer) -> None:
        """Raises a `NotFastError` where the optimizer's settings are not known."""
        self.optimizer = optimizer
        if len(optimizer.param_groups) > 1 or any(self._settings.get(k, v) != v for k, v in _PLAIN.items()):
            raise NotFastError(f"settings of {type(optimizer).__name__}")
        self._parameters: list[Tensor] = list(self._settings["params"])
        self.values = gather(self._parameters)
        self._addresses = [p.data_ptr() for p in self._parameters]
        self.gradient = th.zeros_like(self.values)
        self._gradients = _parts(self.gradient, self._parameters)
        self._moments = [th.zeros_like(self.values) for _ in self.MOMENTS]
        self._moment_parts = [_parts(moment, self._parameters) for moment in self._moments]

    @property
    def _settings(self) -> dict[str, Any]:
        """Looked up each time: restoring a state makes them anew."""
        return self.optimizer.param_groups[0]

    @property
    def intact(self) -> bool:
        """The optimizer's parameters still lie where they were put."""
        return [p.data_ptr() for p in self._settings["params"]] == self._addresses

    def take_apart(self) -> None:
        """Give each parameter, and what its optimizer keeps of it, memory of its own."""
        for parameter in self._parameters:
            parameter.data = parameter.data.clone()
            state = self.optimizer.state.get(parameter, {})
            state.update({k: v.clone() for k, v in state.items() if isinstance(v, Tensor)})

    def gradient_of(self, parameter: Tensor) -> Tensor:
        """The part of `gradient` that is the parameter's."""
        for known, part in zip(self._parameters, self._gradients, strict=True):
            if known is parameter:
                return part
        raise NotFastError("a parameter that no optimizer has")

    def clip(self, max_norm: float) -> None:
        """`clip_grad_norm_` of torch."""
        norm = th.linalg.vector_norm(th.stack(th._foreach_norm(self._gradients, 2.0)), 2.0)
        self.gradient.mul_(th.clamp(float(max_norm) / (norm + 1e-6), max=1.0))

    def step(self) -> None:
        """The optimizer's step, with the hooks that it has."""
        optimizer: Any = self.optimizer
        for hook in optimizer._optimizer_step_pre_hooks.values():
            hook(optimizer, (), {})
        name = next(iter(self.MOMENTS))
        first = optimizer.state.get(self._parameters[0])
        if first is None or first.get(name) is not self._moment_parts[0][0]:
            self._adopt()
        self._step()
        for hook in optimizer._optimizer_step_post_hooks.values():
            hook(optimizer, (), {})

    def _adopt(self) -> None:
        """Take over the optimizer's state, which was restored or is none yet."""
        for number, parameter in enumerate(self._parameters):
            old = self.optimizer.state.get(parameter, {})
            state = {"step": self._adopt_step(number, old.get("step", 0))}
            for (name, first), parts in zip(self.MOMENTS.items(), self._moment_parts, strict=True):
                state[name] = parts[number].copy_(old[name]) if old else parts[number].fill_(first)
            self.optimizer.state[parameter] = state
            parameter.grad = self._gradients[number]

    @abc.abstractmethod
    def _adopt_step(self, number: int, step: Any) -> Any:
        """The count of steps of a parameter, as its optimizer keeps it."""

    @abc.abstractmethod
    def _step(self) -> None: ...


class _OfTorch(FlatParameters):
    """Of torch's own, which take one parameter after the other on a CPU, and count steps in tensors."""

    def __init__(self, optimizer: th.optim.Optimizer) -> None:
        super().__init__(optimizer)
        self._steps = th.zeros(len(self._parameters))

    def _adopt_step(self, number: int, step: Any) -> Tensor:
        self._steps[number] = step
        return self._steps[number]


class FlatAdam(_OfTorch):
    """Of `torch.optim.Adam`."""

    MOMENTS = {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def __init__(self, optimizer: th.optim.Optimizer) -> None:
        super().__init__(optimizer)
        self._root = th.empty_like(self.values)

    def _step(self) -> None:
        settings, (mean, square) = self._settings, self._moments
        beta1, beta2 = settings["betas"]
        self._steps.add_(1)
        step = self._steps[0].item()
        mean.lerp_(self.gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(self.gradient, self.gradient, value=1 - beta2)
        root = th.sqrt(square, out=self._root).div_((1 - beta2**step) ** 0.5).add_(settings["eps"])
        self.values.addcdiv_(mean, root, value=-(settings["lr"] / (1 - beta1**step)))


class FlatRMSprop(_OfTorch):
    """Of `torch.optim.RMSprop`, A2C's."""

    MOMENTS = {"square_avg": 0.0}

    def _step(self) -> None:
        settings, (square,) = self._settings, self._moments
        self._steps.add_(1)
        square.mul_(settings["alpha"]).addcmul_(self.gradient, self.gradient, value=1 - settings["alpha"])
        root = square.sqrt().add_(settings["eps"])
        self.values.addcdiv_(self.gradient, root, value=-settings["lr"])


class FlatRMSpropTFLike(FlatParameters):
    """Of the library's own, which begins with ones and takes the root last."""

    MOMENTS = {"square_avg": 1.0}

    def _adopt_step(self, number: int, step: Any) -> Any:
        return step

    def _step(self) -> None:
        settings, (square,) = self._settings, self._moments
        for parameter in self._parameters:
            self.optimizer.state[parameter]["step"] += 1
        square.mul_(settings["alpha"]).addcmul_(self.gradient, self.gradient, value=1 - settings["alpha"])
        root = square.add(settings["eps"]).sqrt_()
        self.values.addcdiv_(self.gradient, root, value=-settings["lr"])


_KINDS: dict[type[th.optim.Optimizer], type[FlatParameters]] = {
    th.optim.Adam: FlatAdam,
    th.optim.RMSprop: FlatRMSprop,
    RMSpropTFLike: FlatRMSpropTFLike,
}


def flat(optimizer: th.optim.Optimizer) -> FlatParameters:
    """The parameters of `optimizer` laid beside each other.

    Raises:
        NotFastError: it is of a kind or has settings that are not known here.
    """
    if type(optimizer) not in _KINDS:
        raise NotFastError(f"the optimizer {type(optimizer).__name__}")
    return _KINDS[type(optimizer)](optimizer)

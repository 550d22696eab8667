"""Perceptrons as plain calls of kernels, forward and backward, with the bits that autograd gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch as th
from torch import nn

from arzbench.sb3.fast.parameters import FlatParameters, NotFastError

Tensor: TypeAlias = th.Tensor
_addmm, _mm, _sum = th.addmm, th.mm, th.sum
_threshold_backward: Any = th.ops.aten.threshold_backward.default
_tanh_backward: Any = th.ops.aten.tanh_backward.default
mse_loss: Any = th.ops.aten.mse_loss.default
mse_loss_backward: Any = th.ops.aten.mse_loss_backward.default
MEAN = 1  # torch's number for this reduction


def _relu_gradient(gradient: Tensor, output: Tensor) -> Tensor:
    return _threshold_backward(gradient, output, 0)  # type: ignore[no-any-return]


#: activations: in place, and the gradient of the input from that of the output and the output
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    nn.ReLU: (th.relu_, _relu_gradient),
    nn.Tanh: (th.tanh_, _tanh_backward),
}


class Perceptron:
    """Linear layers with activations between them.

    Its weights are those of the modules, also after a state is loaded into them. Inputs are float32 of shape
    (batch, features).
    """

    def __init__(self, *modules: nn.Module) -> None:
        """Modules in the order in which they are applied; containers stand for what is in them.

        Raises:
            NotFastError: one is of a kind that is not known here.
        """
        linear: list[nn.Linear] = []
        activations: list[Any] = []
        for module in _flattened(modules):
            kind = type(module)
            if isinstance(module, nn.Linear) and kind is nn.Linear and module.bias is not None:
                linear.append(module)
                activations.append(None)
            elif kind in _ACTIVATIONS and linear and activations[-1] is None:
                activations[-1] = _ACTIVATIONS[kind]
            else:
                raise NotFastError(f"a net with {kind.__name__}")
        self._linear = linear
        self._activations = activations
        self._forward = [
            (layer.bias.data, layer.weight.data.t(), activation and activation[0])
            for layer, activation in zip(linear, activations, strict=True)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """The net's output."""
        for bias, weight, activate in self._forward:
            x = _addmm(bias, x, weight)
            if activate is not None:
                activate(x)
        return x

    def layers(self, x: Tensor) -> list[Tensor]:
        """The input and the output of every layer, as `Gradients` needs them."""
        kept = [x]
        for bias, weight, activate in self._forward:
            x = _addmm(bias, x, weight)
            if activate is not None:
                activate(x)
            kept.append(x)
        return kept

    def input_gradient(self, layers: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """The gradient of the input from that of the output, for what `layers` returned."""
        for index in reversed(range(len(self._linear))):
            activation = self._activations[index]
            if activation is not None:
                gradient = activation[1](gradient, layers[index + 1])
            gradient = _mm(gradient, self._linear[index].weight.data)
        return gradient


class Gradients:
    """Writes the gradients of a perceptron's weights where an optimizer has them."""

    def __init__(self, net: Perceptron, parameters: FlatParameters) -> None:
        self._layers = [
            (
                layer.weight.data,
                parameters.gradient_of(layer.weight),
                parameters.gradient_of(layer.bias),
                activation and activation[1],
            )
            for layer, activation in zip(net._linear, net._activations, strict=True)
        ]

    def __call__(self, layers: Sequence[Tensor], gradient: Tensor, *, of_input: bool = False) -> Tensor:
        """Backward from the `gradient` of the output; the gradient of the input where asked for.

        `layers` is what `Perceptron.layers` returned.
        """
        for index in range(len(self._layers) - 1, -1, -1):
            weight, to_weight, to_bias, activation_gradient = self._layers[index]
            if activation_gradient is not None:
                gradient = activation_gradient(gradient, layers[index + 1])
            _mm(gradient.t(), layers[index], out=to_weight)
            _sum(gradient, 0, out=to_bias)
            if index or of_input:
                gradient = _mm(gradient, weight)
        return gradient


def _flattened(modules: Iterable[nn.Module]) -> Iterable[nn.Module]:
    for module in modules:
        if type(module) is nn.Sequential:
            yield from _flattened(module)
        else:
            yield module

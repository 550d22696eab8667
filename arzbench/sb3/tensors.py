"""The tensors of a model as arrays, found once: a save is to be short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch as th

from arzbench.sb3 import codec
from arzbench.sb3.codec import Array


class Tensors:
    """Those of one model, on a CPU in their own memory."""

    def __init__(self, model: Any) -> None:
        self._fixed = model.device.type == "cpu"
        #: what the policy's `state_dict` gives: name, and where its tensor is
        self._places = [(name, *_place(model.policy, name)) for name in model.policy.state_dict()]
        self._views: dict[int, tuple[th.Tensor, int, Array]] = {}
        self._packed: dict[str, tuple[list[int], codec.Packed]] = {}

    def packed(self, name: str, tensors: Sequence[th.Tensor], value: Callable[[], Any]) -> Any:
        """`value()`, which holds these tensors and no more.

        On a CPU it is packed as `name`, once for as long as they stay where they are.
        """
        if not self._fixed:
            return value()
        places = [tensor.data_ptr() for tensor in tensors]
        known = self._packed.get(name)
        if known is None or known[0] != places:
            arrays: dict[str, Array] = {}
            known = self._packed[name] = places, codec.Packed(codec.pack(value(), name, arrays), arrays)
        return known[1]

    def of_policy(self) -> list[th.Tensor]:
        """Those of the policy's `state_dict`."""
        return [owner[key] for _, owner, key in self._places]

    def weights(self) -> dict[str, Array]:
        """What the policy's `state_dict` gives."""
        return {name: self.view(owner[key]) for name, owner, key in self._places}

    def view(self, tensor: th.Tensor) -> Array:
        """`tensor` as an array, as long as its memory is where it was."""
        known = self._views.get(id(tensor))
        if known is None or known[1] != tensor.data_ptr():
            array = array_of(tensor)
            if not self._fixed:
                return array
            known = self._views[id(tensor)] = tensor, tensor.data_ptr(), array
        return known[2]

    def plain(self, value: Any) -> Any:
        """An array for a tensor."""
        return self.view(value) if isinstance(value, th.Tensor) else value


def array_of(tensor: th.Tensor) -> Array:
    """`tensor` as an array: on a CPU its own memory, else a copy."""
    array: Array = tensor.detach().cpu().numpy()
    return array


def _place(policy: Any, name: str) -> tuple[dict[str, Any], str]:
    path, _, key = name.rpartition(".")
    module = policy.get_submodule(path)
    return (module._parameters if key in module._parameters else module._buffers), key

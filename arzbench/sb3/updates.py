"""Updates that take long can be stopped between two gradient steps: what was before them comes back.

A stopped update is made again from its first gradient step after resuming, with the same random numbers:
at most one update's work is lost, and the state that is saved is one that an uninterrupted training
passes through.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch as th

from arzbench.sb3 import model_state, own_state
from arzbench.sb3.attached import attach, detach
from arzbench.workload import StopTraining

#: an update is worth a copy of the weights if the last one took longer than this, in seconds, or if it
#: has so many gradient steps; shorter ones are waited for
LONG_S, LONG_STEPS = 0.1, 100
#: seconds between two polls within such an update, as far as the last one tells what its steps take
POLL_S = 0.02

#: whether the CPU takes denormal numbers for zero: moments of gradients that vanish become denormal, and
#: a CPU computes with those many times slower, see docs/decisions/0005-denormals.md. Called at every
#: update: no Python function in between
flush_denormals: Callable[[bool], bool] = th.set_flush_denormal


class Before:
    """What an update of `model` changes, as it is before the update."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._weights = copy.deepcopy(model_state.capture_weights(model))
        self._optimizers = copy.deepcopy(model_state.capture_optimizers(model))
        self._random = model_state.capture_random(model)
        self._count = model._n_updates
        self._own = [(part, copy.deepcopy(own_state.capture(part))) for part in _own_parts(model)]
        # its arrays are laid out anew by an update, in arrays of their own
        buffer = vars(model.rollout_buffer) if hasattr(model, "rollout_buffer") else {}
        # observations by name
        self._rollout = {k: dict(v) if isinstance(v, dict) else v for k, v in buffer.items()}

    def put_back(self) -> None:
        """Undo the update."""
        model = self._model
        model_state.restore_weights(model, self._weights)
        model_state.restore_optimizers(model, self._optimizers)
        model_state.restore_random(model, self._random)
        model._n_updates = self._count
        if self._rollout:
            rollout = {k: dict(v) if isinstance(v, dict) else v for k, v in self._rollout.items()}
            vars(model.rollout_buffer).update(rollout)
        for part, saved in self._own:
            own_state.restore(part, saved)


@contextlib.contextmanager
def undone_if_stopped(model: Any, poll: Callable[[], None], every: int = 1) -> Iterator[None]:
    """Call `poll` before each so many steps of optimizers; if it raises `StopTraining`, undo the update."""
    before = Before(model)
    left = 1

    def countdown(*_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            left = every
            poll()

    hooks = [
        optimizer.register_step_pre_hook(countdown) for _, optimizer in model_state.find_optimizers(model)
    ]
    product = getattr(model, "hessian_vector_product", None)  # TRPO finds its policy's step by these
    if product is not None:
        attach(model, "hessian_vector_product", _polling(product, poll))
    try:
        yield
    except StopTraining:
        before.put_back()
        raise
    finally:
        if product is not None:
            detach(model)
        for hook in hooks:
            hook.remove()


def _own_parts(model: Any) -> list[Any]:
    """The model and its replay buffer, where of classes of the user's own: updates may change more."""
    parts = [model, getattr(model, "replay_buffer", None)]
    return [part for part in parts if part is not None and own_state.is_own(part)]


def _polling(inner: Callable[..., Any], poll: Callable[[], None]) -> Callable[..., Any]:
    def polling(*args: Any, **kwargs: Any) -> Any:
        poll()
        return inner(*args, **kwargs)

    return polling

"""NaN and infinity, found before they are saved over the last sound state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from arzbench.errors import DivergedError
from arzbench.sb3 import buffer_state, model_state


class NanChecks:
    """Looks for NaN and infinity where they do harm, as seldom and as cheaply as will do."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._rows = 0  # of the replay buffer that were looked at

    def check_losses(self) -> None:
        """Raise `DivergedError` if a loss of the last update is not finite."""
        logger = getattr(self._model, "_logger", None)  # none where `learn` failed before it made one
        for name, value in () if logger is None else logger.name_to_value.items():
            if name.endswith("loss") and not math.isfinite(value):
                self._diverged(name.rpartition("/")[2].replace("_", " "), value)

    def check_return(self, episode_return: float) -> None:
        """Raise `DivergedError` unless the return of an episode is finite."""
        if not math.isfinite(episode_return):
            self._diverged("the return of an episode", episode_return)

    def check_state(self) -> None:
        """Raise `DivergedError` if the weights or what was collected are not finite."""
        model = self._model
        weights = model_state.capture_weights(model)
        for kind in ("policy", "tensors", "modules"):
            _each_finite(self._diverged, "the weights", weights.get(kind, {}))
        _each_finite(self._diverged, "the observation", {"": model._last_obs})
        buffer = getattr(model, "replay_buffer", None)
        if buffer is not None:
            first, stop, size = self._rows, buffer.pos, buffer.buffer_size
            for part in [slice(first, stop)] if first <= stop else [slice(first, size), slice(stop)]:
                rows = {k: a[part] for k, a in buffer_state.replay_arrays(buffer).items()}
                _each_finite(self._diverged, "the replay buffer", rows)
            self._rows = stop

    def _diverged(self, what: str, value: float) -> None:
        model = self._model
        raise DivergedError(
            f"{what} is {value} at step {model.num_timesteps:,}, after {model._n_updates:,} updates",
            "the last sound checkpoint is kept; look for what the env gives there, or lower learning_rate",
        )


def _each_finite(diverged: Callable[[str, float], None], what: str, arrays: Mapping[str, Any]) -> None:
    for name, array in arrays.items():
        if isinstance(array, dict):
            _each_finite(diverged, what, array)
        elif isinstance(array, np.ndarray) and array.dtype.kind == "f":
            total = float(np.add.reduce(array, None, np.float64))
            if not math.isfinite(total):
                diverged(f"{what} {name}".strip(), total)

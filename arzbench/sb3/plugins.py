"""Envs of other packages: how they are registered, and what they may offer for comparisons.

The class of an env may have three attributes; without them its only baseline is random actions, its
held-out episodes are played one by one, and several envs of a training are stepped one after another:

- `baseline_controllers`: by name, what makes a `BaselineController`; the reference comes first;
- `batch_type`: what makes an `EnvBatch`, called as `batch_type(num_envs, threads=..., **env_kwargs)`;
- `step_together`: a static method, called as `step_together(envs, threads)` with envs made alike. It returns
  a function that makes the next step of all of them at once, on `threads` threads at most: from an action for
  each to what each one's `step` would have returned, each left as its own `step` would have left it. None:
  these envs cannot be. They are reset, stepped and captured one by one as well, and some may be handed in
  anew. It is for envs whose episodes depend on their seed and actions alone. A subclass does not inherit it:
  one that steps as its base does names it again.

An env whose registration has an argument `device` (`kwargs={"device": ...}`) is made on the device of
the training, unless `env_kwargs` names one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray


class BaselineController(Protocol):
    """A fixed policy that reads the env itself, not its observations."""

    def reset(self) -> None:
        """Start a new episode."""

    def action(self, env: Any) -> Any:
        """The next action in `env`, which may be wrapped."""

    def actions(self, batch: Any) -> Any:
        """The next action of each env in a batch; called only where the env has a `batch_type`."""


class EnvBatch(Protocol):
    """Many envs of one kind that play their episodes at once."""

    def play(self, seeds: Sequence[int], choose: Callable[[Any], Any]) -> dict[str, NDArray[np.float64]]:
        """Play an episode for each seed; by measure, its value in each.

        `choose` takes the batch and returns an action for each env.
        """

    def observe(self) -> Any:
        """The present observations, a row for each env."""

    def counters(self) -> dict[str, int]:
        """What the envs counted in the episodes last played, by name."""


def baseline_controllers(env: Any) -> Mapping[str, Callable[[], BaselineController]]:
    """What makes the controllers that an env offers, by name."""
    offered: Mapping[str, Callable[[], BaselineController]] = getattr(
        env.unwrapped, "baseline_controllers", {}
    )
    return offered


@functools.cache
def register_plugins() -> None:
    """Register the envs of installed packages that declare the entry point `gymnasium.envs`."""
    importlib.import_module("arzbench.traffic.env")  # in a checkout that is not installed, too
    for entry in importlib.metadata.entry_points(group="gymnasium.envs"):
        try:
            entry.load()()
        except Exception as error:
            gymnasium.logger.warn(f"the envs of {entry.value} are not available: {error}")

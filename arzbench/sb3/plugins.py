"""Envs of other packages, which Gymnasium does not load by itself."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata

import gymnasium


@functools.cache
def register_plugins() -> None:
    """Register the envs of installed packages that declare the entry point `gymnasium.envs`."""
    importlib.import_module("arzbench.traffic.env")  # present without being installed, too
    for entry in importlib.metadata.entry_points(group="gymnasium.envs"):
        try:
            entry.load()()
        except Exception as error:
            gymnasium.logger.warn(f"the envs of {entry.value} are not available: {error}")

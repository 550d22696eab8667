"""Baseline controllers of the environments.

A controller has `reset()`, to be called with the environment's own, and `action(env)`, which
reads the present state of the (possibly wrapped) environment and returns the next action.
"""

from typing import Any, Protocol

import gymnasium

from arzbench.env.traffic import TrafficLightEnv


class Controller(Protocol):
    """What a run of a baseline needs."""

    def reset(self) -> None:
        """Forget the last episode."""

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the next action."""


def _crossing(env: gymnasium.Env[Any, Any]) -> TrafficLightEnv:
    """The crossing inside the wrappers.

    Raises:
        TypeError: If the environment is not a TrafficLightEnv.
    """
    inner = env.unwrapped
    if not isinstance(inner, TrafficLightEnv):
        raise TypeError(f"{type(inner).__name__} is not a TrafficLightEnv")
    return inner


class FixedTime:
    """Green for each approach in turn, `green_decisions` x 15 s each (60 s by default)."""

    def __init__(self, green_decisions: int = 4) -> None:
        """Make the controller.

        Raises:
            ValueError: If `green_decisions` is less than one.
        """
        if green_decisions < 1:
            raise ValueError(f"green_decisions={green_decisions} must be >= 1")
        self.green_decisions = green_decisions
        self.time = 0

    def reset(self) -> None:
        """Start with the first approach."""
        self.time = 0

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the approach whose turn it is."""
        turn = self.time // self.green_decisions % 2
        self.time += 1
        return turn


class MaxPressure:
    """Green for the approach with the largest vehicles upstream less vehicles downstream.

    Varaiya, Transp. Res. C 36 (2013) 177. `hysteresis` [veh] is what the other approach must be
    ahead by before the light switches: a switch costs 3 s of all-red.
    """

    def __init__(self, hysteresis: float = 4.0) -> None:
        """Make the controller."""
        self.hysteresis = hysteresis

    def reset(self) -> None:
        """Nothing to forget."""

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the approach of larger pressure."""
        crossing = _crossing(env)
        pressure = crossing.upstream() - crossing.downstream()
        pressure[crossing.phase] += self.hysteresis
        return int(pressure.argmax())


class LongestQueue:
    """Green for the approach with the longest queue; ties keep the light as it is."""

    def reset(self) -> None:
        """Nothing to forget."""

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the approach of the longer queue."""
        crossing = _crossing(env)
        queues = crossing.queues()
        other = 1 - crossing.phase
        return other if queues[other] > queues[crossing.phase] else crossing.phase


CONTROLLERS: dict[str, type[Any]] = {
    "fixed_time": FixedTime,
    "max_pressure": MaxPressure,
    "longest_queue": LongestQueue,
}

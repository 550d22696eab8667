"""Baseline controllers of the environments.

A controller has `reset()`, to be called with the environment's own, and `action(env)`, which
reads the present state of the (possibly wrapped) environment and returns the next action.
"""

from typing import Any, Protocol

import gymnasium
import numpy as np

from arzbench.env.freeway import FreewayEnv, RampMeteringEnv
from arzbench.env.traffic import TrafficLightEnv

LARGEST_RAMP_FLOW = 0.4  # veh/s


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


class NoControl:
    """The last setting of a freeway: no metering, no limit."""

    def reset(self) -> None:
        """Nothing to forget."""

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the last setting."""
        return len(_freeway(env).settings) - 1


class DensityThreshold:
    """`setting` while the bottleneck's occupancy is above `threshold`, else no control."""

    def __init__(self, threshold: float = 0.45, setting: int = 3) -> None:
        """Make the controller."""
        self.threshold = threshold
        self.setting = setting

    def reset(self) -> None:
        """Nothing to forget."""

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the setting or no control."""
        freeway = _freeway(env)
        if freeway.occupancy(*freeway.bottleneck) > self.threshold:
            return self.setting
        return len(freeway.settings) - 1


class DemandCapacity:
    """Metering rate that fills the road up to its capacity: `capacity` less the flow upstream.

    Masher et al., Guidelines for design and operation of ramp control systems (1975); it acts
    before the merge breaks down, which feedback on the bottleneck cannot. Flows in veh/s.
    """

    def __init__(self, capacity: float = 1.48) -> None:
        """Make the controller."""
        self.capacity = capacity

    def reset(self) -> None:
        """Nothing to forget."""

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the setting nearest to the rate.

        Raises:
            TypeError: If the environment is not a RampMeteringEnv.
        """
        freeway = _ramp(env)
        rates = np.minimum(freeway.settings, LARGEST_RAMP_FLOW)
        rate = max(self.capacity - freeway.flow(200.0, 500.0), float(rates[0]))
        return int(np.abs(rates - rate).argmin())


class Alinea:
    """Metering rate by integral feedback on the occupancy past the merge.

    `r(k) = r(k-1) + gain (target - occupancy)`, taken to the nearest setting; Papageorgiou,
    Hadj-Salem & Blosseville, Transp. Res. Rec. 1320 (1991) 58. Rates in veh/s, and no metering
    counts as LARGEST_RAMP_FLOW.
    """

    def __init__(self, target: float = 0.5, gain: float = 0.3) -> None:
        """Make the controller."""
        self.target = target
        self.gain = gain
        self.rate = LARGEST_RAMP_FLOW

    def reset(self) -> None:
        """Start without metering."""
        self.rate = LARGEST_RAMP_FLOW

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the setting nearest to the rate.

        Raises:
            TypeError: If the environment is not a RampMeteringEnv.
        """
        freeway = _ramp(env)
        rates = np.minimum(freeway.settings, LARGEST_RAMP_FLOW)
        self.rate += self.gain * (self.target - freeway.occupancy(*freeway.bottleneck))
        self.rate = min(max(self.rate, float(rates[0])), float(rates[-1]))
        return int(np.abs(rates - self.rate).argmin())


def _freeway(env: gymnasium.Env[Any, Any]) -> FreewayEnv:
    """The freeway inside the wrappers.

    Raises:
        TypeError: If the environment is not a FreewayEnv.
    """
    inner = env.unwrapped
    if not isinstance(inner, FreewayEnv):
        raise TypeError(f"{type(inner).__name__} is not a FreewayEnv")
    return inner


def _ramp(env: gymnasium.Env[Any, Any]) -> RampMeteringEnv:
    """The metered ramp inside the wrappers.

    Raises:
        TypeError: If the environment is not a RampMeteringEnv.
    """
    freeway = _freeway(env)
    if not isinstance(freeway, RampMeteringEnv):
        raise TypeError(f"{type(freeway).__name__} is not a RampMeteringEnv")
    return freeway


CONTROLLERS: dict[str, type[Any]] = {
    "fixed_time": FixedTime,
    "max_pressure": MaxPressure,
    "longest_queue": LongestQueue,
    "no_control": NoControl,
    "density_threshold": DensityThreshold,
    "demand_capacity": DemandCapacity,
    "alinea": Alinea,
}

# Baselines of each environment, the reference first.
BASELINES = {
    "arzbench/TrafficLight-v0": ("fixed_time", "max_pressure", "longest_queue"),
    "arzbench/RampMetering-v0": ("no_control", "density_threshold", "demand_capacity", "alinea"),
    "arzbench/SpeedControl-v0": ("no_control", "density_threshold"),
}

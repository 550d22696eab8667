"""Baseline controllers of the environments.

A controller reads the present state of a batch of environments and chooses an action for each;
`action` is the same for a single, possibly wrapped, environment. `reset` starts new episodes.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium
import numpy as np

from arzbench.traffic.env.base import ArzEnv
from arzbench.traffic.env.batch import ArzBatch, Floats, Integers
from arzbench.traffic.env.freeway import FreewayBatch, RampBatch
from arzbench.traffic.env.traffic import CrossingBatch

LARGEST_RAMP_FLOW = 0.4  # veh/s


class Controller(ABC):
    """What a run of a baseline needs."""

    controls: ClassVar[type[ArzBatch]]

    def reset(self) -> None:  # noqa: B027 - most remember nothing
        """Forget the last episodes."""

    def action(self, env: gymnasium.Env[Any, Any]) -> int:
        """Return the next action of one environment.

        Raises:
            TypeError: If the environment is not one that this controls.
        """
        inner = env.unwrapped
        if not isinstance(inner, ArzEnv):
            raise TypeError(f"{type(inner).__name__} is not an ArzEnv")
        return int(self.actions(inner.batch)[0])

    def actions(self, batch: ArzBatch) -> Integers:
        """Return the next action of each environment, shape (num_envs,).

        Raises:
            TypeError: If the batch is not of environments that this controls.
        """
        if not isinstance(batch, self.controls):
            kinds = type(batch).__name__, self.controls.__name__
            raise TypeError(f"{type(self).__name__}: {kinds[0]} is not a {kinds[1]}")
        return self.choose(batch)

    @abstractmethod
    def choose(self, batch: Any) -> Integers:
        """`actions` of a batch of the right kind."""


class FixedTime(Controller):
    """Green for each approach in turn, `green_decisions` x 15 s each (60 s by default)."""

    controls = CrossingBatch

    def __init__(self, green_decisions: int = 4) -> None:
        """Make the controller.

        Raises:
            ValueError: If `green_decisions` is less than one.
        """
        if green_decisions < 1:
            raise ValueError(f"green_decisions={green_decisions} must be >= 1")
        self.green_decisions = green_decisions

    def choose(self, batch: CrossingBatch) -> Integers:
        """The approach whose turn it is."""
        turn: Integers = batch.time // self.green_decisions % 2
        return turn


class MaxPressure(Controller):
    """Green for the approach with the largest vehicles upstream less vehicles downstream.

    Varaiya, Transp. Res. C 36 (2013) 177. `hysteresis` [veh] is what the other approach must be
    ahead by before the light switches: a switch costs 3 s of all-red.
    """

    controls = CrossingBatch

    def __init__(self, hysteresis: float = 4.0) -> None:
        """Make the controller."""
        self.hysteresis = hysteresis

    def choose(self, batch: CrossingBatch) -> Integers:
        """The approach of larger pressure."""
        pressure = batch.vehicles_before_light() - batch.vehicles_past_light()
        pressure[np.arange(batch.num_envs), batch.phase] += self.hysteresis
        chosen: Integers = pressure.argmax(axis=1)
        return chosen


class LongestQueue(Controller):
    """Green for the approach with the longest queue; ties keep the light as it is."""

    controls = CrossingBatch

    def choose(self, batch: CrossingBatch) -> Integers:
        """The approach of the longer queue."""
        queues, other = batch.queues(), 1 - batch.phase
        every = np.arange(batch.num_envs)
        switch = queues[every, other] > queues[every, batch.phase]
        return np.where(switch, other, batch.phase)


class NoControl(Controller):
    """The last setting of a freeway: no metering, no limit."""

    controls = FreewayBatch

    def choose(self, batch: FreewayBatch) -> Integers:
        """The last setting."""
        return np.full(batch.num_envs, batch.actions - 1)


class DensityThreshold(Controller):
    """`setting` while the bottleneck's occupancy is above `threshold`, else no control."""

    controls = FreewayBatch

    def __init__(self, threshold: float = 0.4, setting: int = 0) -> None:
        """Make the controller."""
        self.threshold = threshold
        self.setting = setting

    def choose(self, batch: FreewayBatch) -> Integers:
        """The setting or no control."""
        dense = batch.occupancy(*batch.bottleneck) > self.threshold
        return np.where(dense, self.setting, batch.actions - 1)


def nearest_rate(batch: RampBatch, rates: Floats) -> Integers:
    """The settings nearest to metering rates [veh/s]; no metering counts as LARGEST_RAMP_FLOW."""
    settings = np.minimum(batch.settings, LARGEST_RAMP_FLOW)
    nearest: Integers = np.abs(settings - rates[:, None]).argmin(axis=1)
    return nearest


class DemandCapacity(Controller):
    """Metering rate that fills the road up to its capacity: `capacity` less the flow upstream.

    Masher et al., Guidelines for design and operation of ramp control systems (1975); it acts
    before the merge breaks down, which feedback on the bottleneck cannot. Flows in veh/s.
    """

    controls = RampBatch

    def __init__(self, capacity: float = 1.15) -> None:
        """Make the controller."""
        self.capacity = capacity

    def choose(self, batch: RampBatch) -> Integers:
        """The setting nearest to the rate."""
        return nearest_rate(batch, self.capacity - batch.flow(200.0, 500.0))


class Alinea(Controller):
    """Metering rate by integral feedback on the occupancy past the merge.

    `r(k) = r(k-1) + gain (target - occupancy)`, taken to the nearest setting; Papageorgiou,
    Hadj-Salem & Blosseville, Transp. Res. Rec. 1320 (1991) 58. Rates in veh/s.
    """

    controls = RampBatch

    def __init__(self, target: float = 0.4, gain: float = 0.3) -> None:
        """Make the controller."""
        self.target = target
        self.gain = gain
        self.reset()

    def reset(self) -> None:
        """Start without metering."""
        self.rates = np.array(LARGEST_RAMP_FLOW)

    def choose(self, batch: RampBatch) -> Integers:
        """The setting nearest to the rate."""
        rates = self.rates + self.gain * (self.target - batch.occupancy(*batch.bottleneck))
        self.rates = np.clip(rates, batch.settings[0], LARGEST_RAMP_FLOW)
        return nearest_rate(batch, self.rates)


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

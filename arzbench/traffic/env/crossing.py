"""A signalised crossing of two one-way roads."""

from functools import partial
from typing import Any, ClassVar

import numpy as np

from arzbench.traffic.env.base import ArzEnv, Controller, step_together
from arzbench.traffic.env.batch import ArzBatch, Floats, Integers
from arzbench.traffic.env.demand import DemandModel, Demands
from arzbench.traffic.env.orders import show, switch
from arzbench.traffic.env.vector import make_vector
from arzbench.traffic.physics.scenario import NUM_GHOST, WAITING

ALL_RED_S = 3.0
SWITCH_SCALE = 20  # decisions

# The crossing serves about 0.95 veh/s in all, less the time lost in switching.
_DEMANDS: Demands = {
    "quiet": (DemandModel(quiet=(0.03, 0.10), peak=(0.10, 0.20)),),
    "mixed": (DemandModel(quiet=(0.03, 0.15), peak=(0.20, 0.55)),),
    "rush": (DemandModel(quiet=(0.10, 0.20), peak=(0.40, 0.60)),),
}


class CrossingBatch(ArzBatch):
    """Crossings; see `TrafficLightEnv`."""

    roads: ClassVar[int] = 2
    actions: ClassVar[int] = 2
    layout: ClassVar[dict[str, Any]] = {"stop_line": 500.0}
    demands: ClassVar[Demands] = _DEMANDS
    control = {"phase": 0, "since_switch": 0}  # green for the first approach
    phase: Integers
    since_switch: Integers

    def __init__(self, num_envs: int = 1, **options: Any) -> None:
        """Make the batch; see `ArzBatch` for options and errors."""
        super().__init__(num_envs, **options)
        self._red = np.zeros((num_envs, self.roads), np.int64)
        self._substeps = self.scenario.substeps
        self._all_red = round(ALL_RED_S / self.scenario.decision_s * self._substeps)

    def apply(self, actions: Integers) -> tuple[Integers, None]:
        """Close one approach, and the other for 3 s if the light switches."""
        switch(actions, self.phase, self.since_switch, self._red, self._all_red, self._substeps)
        return self._red.ravel(), None

    def vehicles_before_light(self) -> Floats:
        """Vehicles before each stop line, origin queue included, shape (num_envs, 2)."""
        stop = NUM_GHOST + self.scenario.stop_cell
        on_road = self.state.u[:, ::2, NUM_GHOST:stop].sum(axis=(1, 2)) * self.scenario.dx
        return self._by_approach(on_road + self._waiting())

    def vehicles_past_light(self) -> Floats:
        """Vehicles past each stop line, shape (num_envs, 2)."""
        cells = slice(NUM_GHOST + self.scenario.stop_cell, self.scenario.cells.stop)
        return self._by_approach(self.state.u[:, ::2, cells].sum(axis=(1, 2)) * self.scenario.dx)

    def queues(self) -> Floats:
        """Vehicles standing before each stop line or waiting at its origin, shape (num_envs, 2)."""
        stop = NUM_GHOST + self.scenario.stop_cell
        standing = self.state.standing[:, NUM_GHOST:stop].sum(axis=1) * self.scenario.dx
        return self._by_approach(standing + self._waiting())

    def _waiting(self) -> Floats:
        total: Floats = self.state.totals[:, WAITING].sum(axis=1)
        return total

    def _by_approach(self, of_roads: Floats) -> Floats:
        shaped: Floats = of_roads.reshape(self.num_envs, self.roads)
        return shaped

    def control_state(self) -> Floats:
        """Phase, one-hot, and time since the last switch."""
        shown = np.empty((self.num_envs, 3))
        show(self.phase, self.since_switch, SWITCH_SCALE, shown)
        return shown


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


class TrafficLightEnv(ArzEnv):
    """Two one-way roads cross at 500 m; the action names the approach that gets green.

    A switch costs 3 s during which both stop lines are closed. The control's own state in the
    observation is the phase, one-hot, and the decisions since the last switch over 20.
    Arguments are those of `ArzBatch`, observation and reward those of `ArzEnv`.
    """

    batch_type = CrossingBatch
    step_together = staticmethod(step_together)
    baseline_controllers = {
        "fixed_time": FixedTime,
        "max_pressure": MaxPressure,
        "longest_queue": LongestQueue,
    }
    batch: CrossingBatch


traffic_light = partial(make_vector, "arzbench/TrafficLight-v0")

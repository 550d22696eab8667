"""A signalised crossing of two one-way roads."""

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from arzbench.env.base import SWITCH_SCALE, ArzEnv, Captured
from arzbench.physics.scenario import NUM_GHOST, WAITING

ALL_RED_S = 3.0


class TrafficLightEnv(ArzEnv):
    """Two one-way roads cross at 500 m; the action names the approach that gets green.

    A switch costs 3 s during which both stop lines are closed. The control's own state in the
    observation is the phase, one-hot, and the decisions since the last switch over 20.
    Arguments, observation and reward are those of `ArzEnv`.
    """

    roads: ClassVar[int] = 2
    layout: ClassVar[dict[str, Any]] = {"stop_line": 500.0}

    def __init__(self, **options: Any) -> None:
        """Make the environment; see `ArzEnv` for the options and errors."""
        self.phase = 0
        self.since_switch = 0
        super().__init__(**options)
        self.action_space = spaces.Discrete(2)

    def reset_control(self) -> None:
        """Start with green for the first approach."""
        self.phase = 0
        self.since_switch = 0

    def apply(self, action: int) -> tuple[NDArray[np.int64], None]:
        """Return the closed substeps of both stop lines under `action`.

        Raises:
            ValueError: If the action is neither 0 nor 1.
        """
        if action not in (0, 1):
            raise ValueError(f"action={action!r} is not one of 0, 1")
        substeps = self.scenario.substeps
        red = np.full(2, substeps, np.int64)
        if action == self.phase:
            red[action] = 0
            self.since_switch += 1
        else:
            red[action] = round(ALL_RED_S / self.scenario.decision_s * substeps)
            self.since_switch = 0
        self.phase = action
        return red, None

    def control_state(self) -> list[float]:
        """Phase, one-hot, and time since the last switch."""
        since = min(self.since_switch / SWITCH_SCALE, 1.0)
        return [float(self.phase == 0), float(self.phase == 1), since]

    def get_control(self) -> Captured:
        """Return phase and time since the last switch."""
        return {"phase": self.phase, "since_switch": self.since_switch}

    def set_control(self, state: Captured) -> None:
        """Restore phase and time since the last switch."""
        self.phase = int(state["phase"])
        self.since_switch = int(state["since_switch"])

    def upstream(self) -> NDArray[np.float64]:
        """Vehicles before each stop line, origin queue included, shape (2,)."""
        stop = NUM_GHOST + self.scenario.stop_cell
        on_road = self.state.u[:, ::2, NUM_GHOST:stop].sum(axis=(1, 2)) * self.scenario.dx
        origin = self.state.totals[:, WAITING].sum(axis=1)
        total: NDArray[np.float64] = on_road + origin
        return total

    def downstream(self) -> NDArray[np.float64]:
        """Vehicles past each stop line, shape (2,)."""
        stop = NUM_GHOST + self.scenario.stop_cell
        cells = self.state.u[:, ::2, stop : self.scenario.cells.stop]
        total: NDArray[np.float64] = cells.sum(axis=(1, 2)) * self.scenario.dx
        return total

    def queues(self) -> NDArray[np.float64]:
        """Vehicles standing before each stop line or waiting at its origin, shape (2,)."""
        stop = NUM_GHOST + self.scenario.stop_cell
        standing = self.state.standing[:, NUM_GHOST:stop].sum(axis=1) * self.scenario.dx
        origin = self.state.totals[:, WAITING].sum(axis=1)
        total: NDArray[np.float64] = standing + origin
        return total

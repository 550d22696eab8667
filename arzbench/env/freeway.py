"""A freeway with a metered on-ramp, and one with a speed limit before a lane drop."""

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from arzbench.env.base import ArzEnv, Captured
from arzbench.env.demand import LANE_DROP, RAMP, Demands
from arzbench.physics.scenario import NUM_GHOST, PROFILE_LIMIT, State


class FreewayEnv(ArzEnv):
    """One road and an action that chooses one of five settings.

    The control's own state in the observation is the last setting, one-hot.
    Arguments, observation and reward are those of `ArzEnv`.
    """

    settings: ClassVar[tuple[float, ...]]
    bottleneck: ClassVar[tuple[float, float]] = (600.0, 700.0)  # m
    default_parameters: ClassVar[str] = "freeway"

    def __init__(self, **options: Any) -> None:
        """Make the environment; see `ArzEnv` for the options and errors."""
        self.setting = len(self.settings) - 1
        super().__init__(**options)
        self.action_space = spaces.Discrete(len(self.settings))

    def reset_control(self) -> None:
        """Start without control, the last setting."""
        self.setting = len(self.settings) - 1

    def choose(self, action: int) -> float:
        """Take a setting and return its value.

        Raises:
            ValueError: If there is no such setting.
        """
        if action not in range(len(self.settings)):
            choices = ", ".join(map(str, range(len(self.settings))))
            raise ValueError(f"action={action!r} is not one of {choices}")
        self.setting = action
        return self.settings[action]

    def control_state(self) -> list[float]:
        """Last setting, one-hot."""
        return [float(i == self.setting) for i in range(len(self.settings))]

    def get_control(self) -> Captured:
        """Return the last setting."""
        return {"setting": self.setting}

    def set_control(self, state: Captured) -> None:
        """Restore the last setting."""
        self.setting = int(state["setting"])

    def occupancy(self, start: float, end: float) -> float:
        """Total density between two positions [m] over jam density there."""
        cells = slice(*(NUM_GHOST + round(x / self.scenario.dx) for x in (start, end)))
        density = float(self.state.u[0, ::2, cells].sum(axis=0).mean())
        narrowing = self.narrowing[0, int(10 * start / self.scenario.length)]
        return density * float(narrowing) / self.scenario.parameters.rho_jam


class RampMeteringEnv(FreewayEnv):
    """An on-ramp joins at 600 m; the action is the largest flow let in from it.

    The settings are 0.05, 0.10, 0.15 and 0.25 veh/s and no metering.
    """

    settings: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15, 0.25, np.inf)
    layout: ClassVar[dict[str, Any]] = {"stop_line": None, "ramp": 600.0}
    demands: ClassVar[Demands] = RAMP

    def apply(self, action: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Meter the ramp."""
        return np.zeros(1, np.int64), np.array([self.choose(action)])


class SpeedControlEnv(FreewayEnv):
    """The last 300 m have two lanes of three; the action limits the speed from 200 to 500 m.

    The settings are 20, 30, 40 and 55 km/h and no limit.
    """

    settings: ClassVar[tuple[float, ...]] = (20 / 3.6, 30 / 3.6, 40 / 3.6, 55 / 3.6, np.inf)
    layout: ClassVar[dict[str, Any]] = {"stop_line": None}
    demands: ClassVar[Demands] = LANE_DROP
    drop: ClassVar[float] = 700.0
    zone: ClassVar[tuple[float, float]] = (200.0, 500.0)

    def new_state(self) -> State:
        """Empty roads with the lane drop."""
        state = super().new_state()
        centre = (np.arange(self.scenario.n_cells) + 0.5) * self.scenario.dx
        jam = np.where(centre < self.drop, 1.0, 2 / 3) * self.scenario.parameters.rho_jam
        state.profile[:] = self.scenario.profile(jam=jam)
        return state

    def apply(self, action: int) -> tuple[NDArray[np.int64], None]:
        """Set the limit of the zone."""
        p = self.scenario.parameters
        start, end = (NUM_GHOST + round(x / self.scenario.dx) for x in self.zone)
        limit = min(self.choose(action), max(p.v_free_m, p.v_free_c))
        self.state.profile[:, PROFILE_LIMIT, start:end] = limit
        return np.zeros(1, np.int64), None

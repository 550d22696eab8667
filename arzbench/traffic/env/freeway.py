"""A freeway with a metered on-ramp, and one with a speed limit before a lane drop."""

from typing import Any, ClassVar

import numpy as np

from arzbench.traffic.env.base import ArzEnv
from arzbench.traffic.env.batch import ArzBatch, Captured, Floats, Integers
from arzbench.traffic.env.demand import LANE_DROP, RAMP, Demands
from arzbench.traffic.physics.scenario import NUM_GHOST, PROFILE_INV_JAM, PROFILE_LIMIT, State


class FreewayBatch(ArzBatch):
    """Freeways; see `FreewayEnv`."""

    actions: ClassVar[int] = 5
    settings: ClassVar[tuple[float, ...]]
    default_parameters: ClassVar[str] = "freeway"
    bottleneck: ClassVar[tuple[float, float]] = (600.0, 700.0)  # m

    def __init__(self, num_envs: int = 1, **options: Any) -> None:
        """Make the batch; see `ArzBatch` for options and errors."""
        self.setting = np.full(num_envs, self.actions - 1)
        self._one_hot = np.eye(self.actions)
        self._no_red = np.zeros(num_envs, np.int64)
        super().__init__(num_envs, **options)

    def reset_control(self, env: int) -> None:
        """Start without control, the last setting."""
        self.setting[env] = self.actions - 1

    def occupancy(self, start: float, end: float) -> Floats:
        """Total density between two positions [m] over jam density there, shape (num_envs,)."""
        cells = self._between(start, end)
        density = self.state.u[:, ::2, cells].sum(axis=1)
        share: Floats = (density * self.state.profile[:, PROFILE_INV_JAM, cells]).mean(axis=1)
        return share

    def flow(self, start: float, end: float) -> Floats:
        """Mean flow between two positions [m], both classes [veh/s], shape (num_envs,)."""
        p = self.scenario.parameters
        rho_m, y_m, rho_c, y_c = self.state.u[:, :, self._between(start, end)].mean(axis=2).T
        p_m = p.k_m * ((rho_m + p.alpha * rho_c) / p.rho_jam) ** 1.5
        p_c = p.k_c * ((rho_m + rho_c) / p.rho_jam) ** 2
        total: Floats = np.maximum(y_m - rho_m * p_m, 0.0) + np.maximum(y_c - rho_c * p_c, 0.0)
        return total

    def _between(self, start: float, end: float) -> slice:
        return slice(*(NUM_GHOST + round(x / self.scenario.dx) for x in (start, end)))

    def control_state(self) -> Floats:
        """Last setting, one-hot."""
        shown: Floats = self._one_hot[self.setting]
        return shown

    def get_control(self, env: int) -> Captured:
        """Return the last setting."""
        return {"setting": int(self.setting[env])}

    def set_control(self, env: int, state: Captured) -> None:
        """Restore the last setting."""
        self.setting[env] = state["setting"]


class RampBatch(FreewayBatch):
    """On-ramps; see `RampMeteringEnv`."""

    settings: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15, 0.25, np.inf)  # veh/s
    layout: ClassVar[dict[str, Any]] = {"stop_line": None, "ramp": 600.0}
    demands: ClassVar[Demands] = RAMP

    def __init__(self, num_envs: int = 1, **options: Any) -> None:
        """Make the batch; see `ArzBatch` for options and errors."""
        super().__init__(num_envs, **options)
        self._rates = np.array(self.settings)

    def apply(self, actions: Integers) -> tuple[Integers, Floats]:
        """Meter the ramps."""
        self.setting[:] = actions
        return self._no_red, self._rates[actions]


class LaneDropBatch(FreewayBatch):
    """Lane drops; see `SpeedControlEnv`."""

    settings: ClassVar[tuple[float, ...]] = (12 / 3.6, 14 / 3.6, 16 / 3.6, 20 / 3.6, np.inf)  # m/s
    demands: ClassVar[Demands] = LANE_DROP
    drop: ClassVar[float] = 700.0
    zone: ClassVar[tuple[float, float]] = (300.0, 500.0)

    def __init__(self, num_envs: int = 1, **options: Any) -> None:
        """Make the batch; see `ArzBatch` for options and errors."""
        super().__init__(num_envs, **options)
        p = self.scenario.parameters
        self._limits = np.minimum(self.settings, max(p.v_free_m, p.v_free_c))[:, None]
        self._zone = slice(*self.limited_cells())

    def new_state(self) -> State:
        """Empty roads with the lane drop."""
        state = super().new_state()
        centre = (np.arange(self.scenario.n_cells) + 0.5) * self.scenario.dx
        jam = np.where(centre < self.drop, 1.0, 2 / 3) * self.scenario.parameters.rho_jam
        state.profile[:] = self.scenario.profile(jam=jam)
        return state

    def limited_cells(self) -> tuple[int, int]:
        """Those of the zone."""
        zone = self._between(*self.zone)
        return zone.start, zone.stop

    def apply(self, actions: Integers) -> tuple[Integers, None]:
        """Set the limits of the zones."""
        self.profile[:, PROFILE_LIMIT, self._zone] = self._limits[actions]
        self.setting[:] = actions
        return self._no_red, None


class FreewayEnv(ArzEnv):
    """One road and an action that chooses one of five settings, the last being no control.

    The control's own state in the observation is the last setting, one-hot.
    Arguments, observation and reward are those of `ArzEnv`.
    """

    batch: FreewayBatch

    @property
    def settings(self) -> tuple[float, ...]:
        """Values of the actions."""
        return self.batch.settings


class RampMeteringEnv(FreewayEnv):
    """An on-ramp joins at 600 m; the action is the largest flow let in from it.

    The settings are 0.05, 0.10, 0.15 and 0.25 veh/s and no metering.
    """

    batch_type: ClassVar[type[ArzBatch]] = RampBatch


class SpeedControlEnv(FreewayEnv):
    """The last 300 m have two lanes of three; the action limits the speed from 300 to 500 m.

    The settings are 12, 14, 16 and 20 km/h and no limit. Three lanes carry less than two only
    below 16 km/h: the limit holds traffic back, as a meter on the mainline would.
    """

    batch_type: ClassVar[type[ArzBatch]] = LaneDropBatch

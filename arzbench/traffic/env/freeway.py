"""A freeway with a metered on-ramp, and one with a speed limit before a lane drop."""

from functools import partial
from typing import Any, ClassVar

import numpy as np

from arzbench.traffic.env.base import ArzEnv, Controller, step_together
from arzbench.traffic.env.batch import ArzBatch, Floats, Integers
from arzbench.traffic.env.demand import DemandModel, Demands
from arzbench.traffic.env.vector import make_vector
from arzbench.traffic.physics.scenario import NUM_GHOST, PROFILE_INV_JAM, PROFILE_LIMIT, State

LARGEST_RAMP_FLOW = 0.4  # veh/s


def _demand(quiet: tuple[float, float], peak: tuple[float, float]) -> DemandModel:
    return DemandModel(quiet=quiet, peak=peak, share_m=(0.2, 0.4), noise=0.1)


# The freeway carries about 1.18 veh/s, and 1.06 once its merge has broken down.
_RAMP: Demands = {
    "quiet": (_demand((0.3, 0.5), (0.5, 0.7)), _demand((0.03, 0.06), (0.05, 0.15))),
    "mixed": (_demand((0.4, 0.6), (0.85, 1.00)), _demand((0.05, 0.10), (0.20, 0.30))),
    "rush": (_demand((0.5, 0.7), (0.90, 1.00)), _demand((0.08, 0.12), (0.25, 0.35))),
}
# Past the lane drop it carries about 0.82 veh/s, and 0.70 from a queue.
_LANE_DROP: Demands = {
    "quiet": (_demand((0.2, 0.4), (0.4, 0.6)),),
    "mixed": (_demand((0.3, 0.5), (0.70, 0.90)),),
    "rush": (_demand((0.4, 0.6), (0.80, 1.00)),),
}


class FreewayBatch(ArzBatch):
    """Freeways whose action chooses one of five settings, the last being no control."""

    actions: ClassVar[int] = 5
    control = {"setting": actions - 1}  # no control
    setting: Integers
    settings: ClassVar[tuple[float, ...]]
    default_parameters: ClassVar[str] = "freeway"
    bottleneck: ClassVar[tuple[float, float]] = (600.0, 700.0)  # m

    def __init__(self, num_envs: int = 1, **options: Any) -> None:
        """Make the batch; see `ArzBatch` for options and errors."""
        self._one_hot = np.eye(self.actions)
        self._no_red = np.zeros(num_envs, np.int64)
        self._settings = np.array(self.settings)
        super().__init__(num_envs, **options)

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


class RampBatch(FreewayBatch):
    """On-ramps; see `RampMeteringEnv`."""

    settings: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15, 0.25, np.inf)  # veh/s
    layout: ClassVar[dict[str, Any]] = {"stop_line": None, "ramp": 600.0}
    demands: ClassVar[Demands] = _RAMP

    def apply(self, actions: Integers) -> tuple[Integers, Floats]:
        """Meter the ramps."""
        self.setting[:] = actions
        return self._no_red, self._settings[actions]


class LaneDropBatch(FreewayBatch):
    """Lane drops; see `SpeedControlEnv`."""

    settings: ClassVar[tuple[float, ...]] = (12 / 3.6, 14 / 3.6, 16 / 3.6, 20 / 3.6, np.inf)  # m/s
    demands: ClassVar[Demands] = _LANE_DROP
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
        """Cells of the zone."""
        zone = self._between(*self.zone)
        return zone.start, zone.stop

    def apply(self, actions: Integers) -> tuple[Integers, None]:
        """Set the limits of the zones."""
        self.profile[:, PROFILE_LIMIT, self._zone] = self._limits[actions]
        self.setting[:] = actions
        return self._no_red, None


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


class RampMeteringEnv(ArzEnv):
    """An on-ramp joins at 600 m; the action is the largest flow let in from it.

    The settings are 0.05, 0.10, 0.15 and 0.25 veh/s and no metering; the last one is observed, one-hot.
    """

    batch_type = RampBatch
    step_together = staticmethod(step_together)
    baseline_controllers = {
        "no_control": NoControl,
        "density_threshold": DensityThreshold,
        "demand_capacity": DemandCapacity,
        "alinea": Alinea,
    }


class SpeedControlEnv(ArzEnv):
    """The last 300 m have two lanes of three; the action limits the speed from 300 to 500 m.

    The settings are 12, 14, 16 and 20 km/h and no limit. Three lanes carry less than two only
    below 16 km/h: the limit holds traffic back, as a meter on the mainline would. The last setting is
    observed, one-hot.
    """

    batch_type = LaneDropBatch
    step_together = staticmethod(step_together)
    baseline_controllers = {"no_control": NoControl, "density_threshold": DensityThreshold}


ramp_metering = partial(make_vector, "arzbench/RampMetering-v0")
speed_control = partial(make_vector, "arzbench/SpeedControl-v0")

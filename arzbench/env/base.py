"""What the ARZ environments have in common: roads, demand, observation, reward, capture."""

from abc import abstractmethod
from typing import Any, ClassVar, Protocol, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from arzbench.env import DECISIONS
from arzbench.env.demand import CROSSING, DemandModel, Demands
from arzbench.env.render import space_time_image
from arzbench.physics import cpu
from arzbench.physics.model import PARAMETER_SETS
from arzbench.physics.scenario import (
    ARRIVED,
    CROSSED,
    DELAY,
    DTYPES,
    LEFT,
    PROFILE_INV_JAM,
    SCHEMES,
    STANDING,
    STOPS,
    WAITING,
    Scenario,
    State,
    vehicles,
)

Observation: TypeAlias = NDArray[np.float32]
Captured: TypeAlias = dict[str, NDArray[Any] | int | float | bool]

REWARDS = ("delay", "queue_change")
SEGMENTS = 10  # detectors on a road, each the mean of a tenth of it
DELAY_SCALE = 1000.0  # veh s
QUEUE_SCALE = 10.0  # veh
QUEUE_HALF = 20.0  # veh, observed as 1/2
SWITCH_SCALE = 20  # decisions


class MessageLog(Protocol):
    """Where debug messages go; `template` is %-style and is filled in by the log."""

    def log(self, tag: str, template: str, *args: object) -> None:
        """Take one message."""


def pick(kind: str, name: object, table: Any) -> Any:
    """Return `table[name]`.

    Raises:
        ValueError: If there is no such name; the message lists those there are.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{kind}={name!r} is not one of {', '.join(table)}")
    return table[name]


class ArzEnv(gymnasium.Env[Observation, np.int64]):
    """Roads of the ARZ model under one controller, one decision every 15 s.

    Observation, float32 in [0, 1]: for each road, SEGMENTS times (rho_m / rho_jam, v_m / free
    speed, rho_c / rho_jam, v_c / free speed), queues of both classes at each origin and standing queue
    (q / (q + 20)), then the control's own state and the share of the episode gone.

    Reward: `delay`, minus the delay of the step in 1000 veh s (time lost against free flow, on
    the road and in origin queues); `queue_change`, minus the growth of the queue in 10 veh.

    `info`: `throughput` [veh] past the stop line in the step, `queue` [veh] standing and at the
    origins, `delay` [veh s] and `stops` [veh] of the step.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    roads: ClassVar[int] = 1
    layout: ClassVar[dict[str, Any]] = {"stop_line": None}  # of the scenario
    demands: ClassVar[Demands] = CROSSING
    default_parameters: ClassVar[str] = "default"

    def __init__(
        self,
        *,
        parameters: str | None = None,
        scheme: str = "weno5",
        dtype: str = "float64",
        demand: str = "mixed",
        reward: str = "delay",
        render_mode: str | None = None,
    ) -> None:
        """Make the environment; `reset` starts it.

        Args:
            parameters: Name in `PARAMETER_SETS`; None for the environment's own.
            scheme: `weno5`, `muscl` or `first_order`.
            dtype: `float64` or `float32`.
            demand: `quiet`, `mixed` or `rush`.
            reward: `delay` or `queue_change`.
            render_mode: None, or `rgb_array` for a space-time plot of density.

        Raises:
            ValueError: If a name is unknown; the message lists the valid ones.
        """
        pick("scheme", scheme, SCHEMES)
        pick("dtype", dtype, DTYPES)
        pick("reward", reward, dict.fromkeys(REWARDS))
        modes = dict.fromkeys(self.metadata["render_modes"])
        if render_mode is not None:
            pick("render_mode", render_mode, modes)
        self.scenario = Scenario(
            parameters=pick("parameters", parameters or self.default_parameters, PARAMETER_SETS),
            scheme=scheme,
            dtype=dtype,
            **self.layout,
        )
        self.demand_models: tuple[DemandModel, ...] = pick("demand", demand, self.demands)
        self.reward_name = reward
        self.render_mode = render_mode
        self.message_log: MessageLog | None = None
        self.state = self.new_state()
        self.demand = np.zeros((DECISIONS, self.roads, self.scenario.origins, 2))
        self.time = 0  # decisions taken
        # Jam density over that of each segment: more than 1 past a lane drop.
        inverse = self.state.profile[:, PROFILE_INV_JAM, self.scenario.cells].astype(np.float64)
        self.narrowing = inverse.reshape(self.roads, SEGMENTS, -1).mean(axis=2)
        self.narrowing *= self.scenario.parameters.rho_jam
        self.history = np.zeros((DECISIONS, self.roads, self.scenario.n_cells), np.float32)
        queues = 2 * self.scenario.origins + 1
        size = self.roads * (4 * SEGMENTS + queues) + len(self.control_state()) + 1
        self.observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)

    @abstractmethod
    def control_state(self) -> list[float]:
        """State of the control for the observation, in [0, 1]."""

    @abstractmethod
    def apply(self, action: int) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Take the action; return the engine's `red` and `rate` for the step."""

    def new_state(self) -> State:
        """Empty roads."""
        return cpu.init(self.scenario, self.roads)

    def sample_demand(self) -> NDArray[np.float64]:
        """Demand of an episode [veh/s], shape (DECISIONS, roads, origins, 2)."""
        roads = [
            [model.sample(DECISIONS, self.np_random) for model in self.demand_models]
            for _ in range(self.roads)
        ]
        return np.ascontiguousarray(np.moveaxis(np.array(roads), 2, 0))

    @abstractmethod
    def reset_control(self) -> None:
        """Put the control in its first state."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Empty the roads and draw a new demand."""
        super().reset(seed=seed, options=options)
        self.state = self.new_state()
        self.demand = self.sample_demand()
        self.time = 0
        self.history[:] = 0
        self.reset_control()
        return self.observe(), self.measure(np.zeros_like(self.state.totals))

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Simulate 15 s under `action`; truncated after 240 decisions."""
        before = self.state.totals.copy()
        arrivals = self.demand[min(self.time, DECISIONS - 1)]
        red, rate = self.apply(int(action))
        cpu.step(self.scenario, self.state, arrivals, red, rate)
        if self.render_mode is not None:
            row = min(self.time, DECISIONS - 1)
            self.history[row] = self.state.u[:, ::2, self.scenario.cells].sum(axis=1)
        self.time += 1
        info = self.measure(before)
        if self.reward_name == "delay":
            reward = -info["delay"] / DELAY_SCALE
        else:
            queue = before[:, WAITING].sum() + before[:, STANDING].sum()
            reward = -float(info["queue"] - queue) / QUEUE_SCALE
        if self.message_log is not None:
            self.emit_messages()
        return self.observe(), reward, False, self.time >= DECISIONS, info

    def measure(self, before: NDArray[np.float64]) -> dict[str, Any]:
        """Info of the step that led from totals `before` to now."""
        totals = self.state.totals
        gone = LEFT if self.scenario.stop_line is None else CROSSED
        step = (totals - before).sum(axis=0)
        now = totals.sum(axis=0)
        return {
            "throughput": float(step[gone]),
            "queue": float(now[WAITING].sum() + now[STANDING]),
            "delay": float(step[DELAY]),
            "stops": float(step[STOPS]),
        }

    def observe(self) -> Observation:
        """Return the observation of the present state."""
        scenario, p, u = self.scenario, self.scenario.parameters, self.state.u
        shape = (self.roads, 4, SEGMENTS, scenario.n_cells // SEGMENTS)
        mean = u[:, :, scenario.cells].reshape(shape).mean(axis=3, dtype=np.float64)
        rho_m, y_m, rho_c, y_c = mean.transpose(1, 0, 2) / p.rho_jam
        x_m, x_c = (rho_m + p.alpha * rho_c) * self.narrowing, (rho_m + rho_c) * self.narrowing
        v_m = _speed(rho_m, y_m, p.k_m * x_m * np.sqrt(x_m), p.v_free_m)
        v_c = _speed(rho_c, y_c, p.k_c * x_c * x_c, p.v_free_c)
        totals = self.state.totals
        queues = np.maximum(totals[:, [*range(2 * scenario.origins), STANDING]], 0.0)
        parts = np.concatenate(
            [rho_m, v_m, rho_c, v_c, queues / (queues + QUEUE_HALF)], axis=1, dtype=np.float64
        )
        control = [*self.control_state(), min(self.time / DECISIONS, 1.0)]
        out = np.concatenate([parts.ravel(), control]).astype(np.float32)
        return np.minimum(np.maximum(out, np.float32(0)), np.float32(1))

    def report(self) -> dict[str, int]:
        """How often limiters and guards of the engine acted in this episode."""
        return self.state.report()

    def balance(self) -> float:
        """Vehicles on the roads, in origin queues and gone, less those that arrived [veh]."""
        totals = self.state.totals
        kept = totals[:, WAITING].sum() + totals[:, LEFT].sum()
        kept += vehicles(self.scenario, self.state).sum()
        return float(kept - totals[:, ARRIVED].sum())

    def get_state(self) -> Captured:
        """Return everything but `np_random`, as arrays and numbers.

        The caller saves `np_random.bit_generator.state`. With both restored the episode goes on
        bit for bit.
        """
        return {
            "u": self.state.u.copy(),
            "standing": self.state.standing.copy(),
            "totals": self.state.totals.copy(),
            "counters": self.state.counters.copy(),
            "profile": self.state.profile.copy(),
            "demand": self.demand.copy(),
            "history": self.history.copy(),
            "time": self.time,
            **self.get_control(),
        }

    def set_state(self, state: Captured) -> None:
        """Restore what `get_state` returned.

        Raises:
            ValueError: If an entry is missing, or an array has another shape or type.
        """
        mine = self.get_state()
        if missing := sorted(mine.keys() - state.keys()):
            raise ValueError(f"state lacks {', '.join(missing)}")
        for name, value in mine.items():
            given = np.asarray(state[name])
            if isinstance(value, np.ndarray) and (given.shape, given.dtype) != (
                value.shape,
                value.dtype,
            ):
                raise ValueError(
                    f"{name} has shape {given.shape} and type {given.dtype}, "
                    f"not {value.shape} and {value.dtype}"
                )
        for name in ("u", "standing", "totals", "counters", "profile"):
            getattr(self.state, name)[...] = state[name]
        self.demand = np.array(state["demand"])
        self.history = np.array(state["history"])
        self.time = int(state["time"])
        self.set_control(state)

    @abstractmethod
    def get_control(self) -> Captured:
        """Return the control's part of the state."""

    @abstractmethod
    def set_control(self, state: Captured) -> None:
        """Restore the control's part of the state."""

    def emit_messages(self) -> None:
        """Send the debug messages of the last step: seven for each application of a boundary."""
        log = self.message_log
        if log is None:
            return
        first, last = self.scenario.cells.start, self.scenario.cells.stop - 1
        applications = self.scenario.substeps * (1 + SCHEMES[self.scenario.scheme])
        sides = [([float(x) for x in u[:, first]], [float(x) for x in u[:, last]]) for u in self.state.u]
        for _ in range(applications):
            for left, right in sides:
                log.log("DEBUG_BC_GPU", "inflow_L: [%r, %r, %r, %r]", *left)
                log.log("DEBUG_BC_GPU", "inflow_R: [%r, %r, %r, %r]", *right)
                log.log("DEBUG_BC_GPU", "left_type_code: %d, right_type_code: %d", 0, 1)
                log.log("DEBUG_BC_DISPATCHER", "Entered boundary conditions, params: %s", dict)
                log.log("DEBUG_BC_DISPATCHER", "Using the step's own params (dynamic)")
                log.log("DEBUG_BC_DISPATCHER", "Left inflow: [%r, %r, %r, %r]", *left)
                log.log("DEBUG_BC_GPU", "About to launch the kernel")

    def render(self) -> NDArray[np.uint8] | None:
        """Return the space-time density plot of the episode so far, shape (height, width, 3)."""
        if self.render_mode is None:
            return None
        jam = self.scenario.parameters.rho_jam
        return space_time_image(self.history[: max(self.time, 1)] / jam)


def _speed(
    rho: NDArray[np.float64], y: NDArray[np.float64], p: NDArray[np.float64], free: float
) -> NDArray[np.float64]:
    """Speed over the free speed; an absent class drives as a single vehicle would."""
    present = rho > 1e-9
    w = np.where(present, y / np.where(present, rho, 1.0), free)
    speed: NDArray[np.float64] = np.maximum(w - p, 0.0) / free
    return speed

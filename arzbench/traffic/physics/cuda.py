"""Roads on an NVIDIA GPU: the arithmetic of the CPU engine, from the same functions, one launch a decision.

A thread block has the roads of an environment in shared memory for all substeps and stages, and the host
waits for nothing until it reads. Under `NUMBA_ENABLE_CUDASIM=1` the same kernel runs in Numba's simulator.

Sums are kept in the state's own type, float32 included: float64 would cost a consumer card more
than the rest of the kernel. They are added up decision by decision, which keeps them accurate.
"""

import warnings
from typing import Any

import numpy as np
from numba.cuda import device_array, to_device
from numpy.typing import NDArray

from arzbench.traffic.physics.cuda_cells import REPORT
from arzbench.traffic.physics.cuda_kernel import ARRIVALS, LIMIT, ORDERS, RATE, RED, block_threads, kernel
from arzbench.traffic.physics.detectors import QUEUE_HALF, SEGMENTS
from arzbench.traffic.physics.scenario import (
    CROSSED,
    LEFT,
    PROFILE_LIMIT,
    SCHEMES,
    STAGES,
    STATE_ARRAYS,
    FloatArray,
    Scenario,
    State,
)

# An environment is a block: few of them are no mistake, and numba-cuda would say so in every training.
warnings.filterwarnings("ignore", message=".*Grid size .* low occupancy")


class RoadsOnGpu:
    """Roads on the device: one launch a decision, from orders to observations, rewards, accounts.

    Up goes one small array of orders, back come observations and accounts. Who asks for the roads
    with `host` gets them brought to the host, and may change them; the next step takes them back.

    Attributes:
        tail: End of the observations after the next step, shape (environments, some), to be written
            before it.
    """

    def __init__(
        self, scenario: Scenario, state: State, narrowing: FloatArray, *, roads: int = 1, tail: int = 0,
        zone: tuple[int, int] = (0, 0), by_delay: bool = True, unit: float = 1.0,
    ) -> None:  # fmt: skip
        """Take a state of the host's, where it stays until the first step.

        Args:
            scenario: What `state` was made from.
            state: Roads of all environments. Its profile remains the host's: a step changes nothing
                in it but the limits of the zone, which it takes from there.
            narrowing: As in `detectors.detect`.
            roads: Roads of an environment.
            tail: Numbers at the end of an observation.
            zone: Indices in a row of the cells that have the speed limit of the orders, [first, end).
            by_delay: Whether the reward is the delay of the decision, or the growth of the queue.
            unit: What the reward is divided by.
        """
        envs, real = len(state.u) // roads, scenario.float_type
        self._scenario, self._host, self._zone = scenario, state, zone
        self._numbers = numbers_of(scenario, zone, by_delay, unit)
        self._orders = np.zeros((envs, roads * ORDERS + tail), real)
        self._roads = self._orders[:, : roads * ORDERS].reshape(envs, roads, ORDERS)  # a view
        self.tail = self._orders[:, roads * ORDERS :]
        self._narrowing = to_device(narrowing.astype(real))
        size = roads * (4 * SEGMENTS + 2 * scenario.origins + 1) + tail
        self._seen = device_array((envs, size), np.float32)
        self._report = device_array((envs, REPORT), real)
        self._device: tuple[Any, ...] | None = None  # arrays of the newest state, unless it is the host's
        self._observed = np.zeros(self._seen.shape, np.float32)

    def host(self) -> State:
        """Return the state on the host, to read or to change; back and forth changes no bit."""
        if self._device is not None:
            for name, array in zip(STATE_ARRAYS[:-1], self._device, strict=False):
                getattr(self._host, name)[...] = array.copy_to_host()
            self._device = None
        return self._host

    def observed(self) -> NDArray[np.float32] | None:
        """Return the observations after the last step; None if the host has had the roads since."""
        return None if self._device is None else self._observed.copy()

    def step(
        self, arrivals: NDArray[np.float64], red: NDArray[np.int64], rate: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Advance all roads by a decision; arguments as in `cpu.step`.

        Returns:
            ACCOUNTS of the decision and the reward, shape (environments, REPORT).
        """
        self.launch(arrivals, red, rate)
        self._observed = self._seen.copy_to_host()
        report: NDArray[np.float64] = self._report.copy_to_host().astype(np.float64)
        return report

    def launch(
        self, arrivals: NDArray[np.float64], red: NDArray[np.int64], rate: NDArray[np.float64] | None
    ) -> None:
        """`step` without its results; waits for nothing."""
        scenario = self._scenario
        real: Any = scenario.float_type
        if self._device is None:
            totals = self._host.totals.astype(real)
            self._device = tuple(
                to_device(totals if name == "totals" else getattr(self._host, name)) for name in STATE_ARRAYS
            )
        of_roads = self._roads.shape[:2]
        flows = arrivals.reshape(*of_roads, -1)
        limits = self._host.profile[:, PROFILE_LIMIT, self._zone[0]]
        self._roads[..., RED] = red.reshape(of_roads)
        self._roads[..., RATE] = np.inf if rate is None else rate.reshape(of_roads)
        self._roads[..., LIMIT] = limits.reshape(of_roads)
        self._roads[..., ARRIVALS : ARRIVALS + flows.shape[2]] = flows
        envs, roads = of_roads
        compiled = kernel(real, scenario.n_cells, SCHEMES[scenario.scheme], roads)
        compiled[envs, (block_threads(scenario.n_cells), roads)](
            *self._device, to_device(self._orders), self._narrowing, self._seen, self._report, *self._numbers
        )


def numbers_of(
    scenario: Scenario, zone: tuple[int, int] = (0, 0), by_delay: bool = True, unit: float = 1.0
) -> tuple[Any, ...]:
    """The numbers the kernel needs, in the state's type; arguments as in `RoadsOnGpu`."""
    p, real = scenario.parameters, scenario.float_type
    weights, shares = STAGES[SCHEMES[scenario.scheme]]
    length = scenario.n_cells // SEGMENTS
    gone = LEFT if scenario.stop_line is None else CROSSED
    sight = (
        gone, 2 * scenario.origins, length, real(1.0 / (max(length, 1) * p.rho_jam)), real(QUEUE_HALF),
        int(by_delay), real(unit),
    )  # fmt: skip
    return (
        scenario.places, zone, scenario.substeps, real(scenario.dt), real(scenario.dx), real(scenario.cfl),
        scenario.slack, scenario.decay, tuple(map(real, weights)), tuple(map(real, shares)),
        sight, scenario.constants(),
    )  # fmt: skip

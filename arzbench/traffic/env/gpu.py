"""A batch's roads on an NVIDIA GPU, which keeps them between the steps."""

import numpy as np
from numba.cuda import device_array, to_device
from numpy.typing import NDArray

from arzbench.traffic.physics import cuda
from arzbench.traffic.physics.cuda_cells import REPORT
from arzbench.traffic.physics.cuda_kernel import ARRIVALS, LIMIT, ORDERS, RATE, RED
from arzbench.traffic.physics.scenario import PROFILE_LIMIT, FloatArray, Scenario, State


class RoadsOnGpu:
    """Roads on the device: one launch a decision, from orders to observations, rewards, accounts.

    Up goes one small array of orders, back come observations and accounts. Who asks for the roads
    with `host` gets them brought to the host, and may change them; the next step takes them back.

    Attributes:
        tail: End of the observations after the next step, shape (environments, some), to be written
            before it.
    """

    def __init__(
        self, scenario: Scenario, state: State, narrowing: FloatArray, *, roads: int, tail: int,
        zone: tuple[int, int], by_delay: bool, unit: float,
    ) -> None:  # fmt: skip
        """Take a state of the host's, where it stays until the first step.

        Args:
            scenario: What `state` was made from.
            state: Roads of all environments. Its profile remains the host's: a step changes nothing
                in it but the limits of the zone, which it takes from there.
            narrowing: As in `detectors.detect`.
            roads: Roads of an environment.
            tail: Numbers at the end of an observation.
            zone: As in `cuda.numbers_of`, with the two that follow.
            by_delay: What the reward is.
            unit: What it is divided by.
        """
        envs, real = len(state.u) // roads, scenario.float_type
        self._scenario, self._host, self._zone = scenario, state, zone
        self._numbers = cuda.numbers_of(scenario, zone=zone, by_delay=by_delay, unit=unit)
        self._orders = np.zeros((envs, roads * ORDERS + tail), real)
        self._roads = self._orders[:, : roads * ORDERS].reshape(envs, roads, ORDERS)  # a view
        self.tail = self._orders[:, roads * ORDERS :]
        self._narrowing = to_device(narrowing.astype(real))
        self._seen = device_array((envs, roads * cuda.road_size(scenario) + tail), np.float32)
        self._report = device_array((envs, REPORT), real)
        self._device: State | None = None  # the newest state, unless it is the host's
        self._observed = np.zeros(self._seen.shape, np.float32)

    def host(self) -> State:
        """Return the state on the host, to read or to change."""
        if self._device is not None:
            newest = cuda.download(self._device)
            for name in ("u", "standing", "totals", "counters"):
                getattr(self._host, name)[...] = getattr(newest, name)
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
        if self._device is None:
            self._device = cuda.upload(self._scenario, self._host)
        of_roads = self._roads.shape[:2]
        flows = arrivals.reshape(*of_roads, -1)
        limits = self._host.profile[:, PROFILE_LIMIT, self._zone[0]]
        self._roads[..., RED] = red.reshape(of_roads)
        self._roads[..., RATE] = np.inf if rate is None else rate.reshape(of_roads)
        self._roads[..., LIMIT] = limits.reshape(of_roads)
        self._roads[..., ARRIVALS : ARRIVALS + flows.shape[2]] = flows
        cuda.launch(
            self._scenario, self._device, to_device(self._orders), self._narrowing, self._seen,
            self._report, self._numbers,
        )  # fmt: skip
        self._observed = self._seen.copy_to_host()
        report: NDArray[np.float64] = self._report.copy_to_host().astype(np.float64)
        return report

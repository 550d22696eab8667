"""CUDA engine: `init` and `step` as in `cpu`, a thread block for each environment.

A step is one launch: all substeps and stages run inside it with the roads in shared memory, and
the host waits for nothing. The arithmetic is that of the CPU engine, from the same functions.
Under `NUMBA_ENABLE_CUDASIM=1` the same kernel runs in Numba's simulator.

Sums are kept in the state's own type, float32 included: float64 would cost a consumer card more
than the rest of the kernel. They are added up decision by decision, which keeps them accurate.
"""

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.cuda_cells import REPORT
from arzbench.traffic.physics.cuda_kernel import ARRIVALS, ORDERS, RATE, RED, block_threads, kernel
from arzbench.traffic.physics.detectors import QUEUE_HALF, SEGMENTS
from arzbench.traffic.physics.scenario import CROSSED, LEFT, SCHEMES, Scenario, State

# An environment is a block: few of them are no mistake, and numba-cuda would say so in every training.
warnings.filterwarnings("ignore", message=".*Grid size .* low occupancy")


def init(scenario: Scenario, roads: int) -> State:
    """Return `roads` empty roads of `scenario` on the device; see `cpu.init`.

    The arrays of the state are device arrays, `totals` in the state's own type.

    Raises:
        ValueError: If `roads` is less than one.
    """
    return upload(scenario, cpu.init(scenario, roads))


def upload(scenario: Scenario, state: State) -> State:
    """Return a state of the host's as one on the device."""
    return State(
        u=cuda.to_device(state.u),
        standing=cuda.to_device(state.standing),
        totals=cuda.to_device(state.totals.astype(scenario.float_type)),
        counters=cuda.to_device(state.counters),
        profile=cuda.to_device(state.profile),
    )


def download(state: State) -> State:
    """Return a state of the device's as one on the host; back and forth changes no bit."""
    device_state: Any = state
    return State(
        u=device_state.u.copy_to_host(),
        standing=device_state.standing.copy_to_host(),
        totals=device_state.totals.copy_to_host().astype(np.float64),
        counters=device_state.counters.copy_to_host(),
        profile=device_state.profile.copy_to_host(),
    )


def step(
    scenario: Scenario,
    state: State,
    demand: NDArray[np.float64],
    red: NDArray[np.int64],
    rate: NDArray[np.float64] | None = None,
) -> None:
    """Advance `state` by `scenario.decision_s` in one launch; arguments as in `cpu.step`."""
    real: Any = scenario.float_type
    roads = len(state.u)
    orders = np.zeros((roads, ORDERS), real)
    orders[:, RED] = red
    orders[:, RATE] = np.inf if rate is None else rate
    orders[:, ARRIVALS : ARRIVALS + 2 * scenario.origins] = np.reshape(demand, (roads, -1))
    launch(scenario, state, cuda.to_device(orders), *_unread(scenario, roads), numbers_of(scenario))


@lru_cache(maxsize=8)
def _unread(scenario: Scenario, roads: int) -> tuple[Any, Any, Any]:
    """Narrowing, and arrays for the observations and reports of roads that nobody observes."""
    real: Any = scenario.float_type
    seen = cuda.device_array((roads, road_size(scenario)), np.float32)
    narrowing = cuda.to_device(np.ones((roads, SEGMENTS), real))
    return narrowing, seen, cuda.device_array((roads, REPORT), real)


def launch(
    scenario: Scenario, state: State, orders: Any, narrowing: Any, seen: Any, report: Any,
    numbers: Sequence[Any],
) -> None:  # fmt: skip
    """Advance all environments by a decision and write what they observe; waits for nothing.

    Args:
        scenario: What `state` was made from.
        state: Changed in place, on the device, as all arrays here.
        orders: ORDERS of each road of an environment, then the end of its observation, which is
            copied to it, shape (environments, roads * ORDERS + some), of the state's type.
        narrowing: As in `detectors.detect`, of the state's type.
        seen: Observations, shape (environments, roads * road_size + some), float32.
        report: ACCOUNTS and reward of the decision, shape (environments, REPORT).
        numbers: `numbers_of` the scenario.
    """
    envs = len(orders)
    roads = len(state.u) // envs
    real: Any = scenario.float_type
    compiled = kernel(real, scenario.n_cells, SCHEMES[scenario.scheme], roads)
    compiled[envs, (block_threads(scenario.n_cells), roads)](
        state.u, state.standing, state.totals, state.counters, state.profile, orders, narrowing,
        seen, report, *numbers,
    )  # fmt: skip


def road_size(scenario: Scenario) -> int:
    """Numbers of a road in an observation."""
    return 4 * SEGMENTS + 2 * scenario.origins + 1


@lru_cache(maxsize=64)
def numbers_of(
    scenario: Scenario, *, zone: tuple[int, int] = (0, 0), by_delay: bool = True, unit: float = 1.0
) -> tuple[Any, ...]:
    """The numbers the kernel needs of a scenario, in the state's type.

    Args:
        scenario: Roads and scheme.
        zone: Indices in a row of the cells that have the speed limit of the orders, [first, end).
        by_delay: Whether the reward is the delay of the decision, or the growth of the queue.
        unit: What the reward is divided by.
    """
    p, real = scenario.parameters, scenario.float_type
    dt = scenario.decision_s / scenario.substeps
    decay = tuple(real(-math.expm1(-part * dt / tau)) for part in (0.5, 1.0) for tau in (p.tau_m, p.tau_c))
    # As in `cpu`: a stage's weight in the step, and the share of its own increment.
    weights, shares = {
        "first_order": ((1.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
        "muscl": ((0.5, 0.5, 0.0), (1.0, 0.5, 0.0)),
        "weno5": ((1 / 6, 1 / 6, 2 / 3), (1.0, 1 / 4, 2 / 3)),
    }[scenario.scheme]
    places = scenario.n_cells, scenario.stop_cell, scenario.ramp_cell
    length = scenario.n_cells // SEGMENTS
    gone = LEFT if scenario.stop_line is None else CROSSED
    sight = (
        gone, 2 * scenario.origins, length, real(1.0 / (max(length, 1) * p.rho_jam)), real(QUEUE_HALF),
        int(by_delay), real(unit),
    )  # fmt: skip
    return (
        places, zone, scenario.substeps, real(dt), real(scenario.dx), real(scenario.cfl),
        real(0 if p.hard else np.inf), decay, tuple(map(real, weights)), tuple(map(real, shares)),
        sight, scenario.constants(),
    )  # fmt: skip

"""CUDA engine: `init` and `step` as in `cpu`, a thread block for each road, a thread for each cell.

A step is one launch: all substeps and stages run inside it with the road in shared memory, and
the host waits for nothing. The arithmetic is that of the CPU engine, from the same functions.
Under `NUMBA_ENABLE_CUDASIM=1` the same kernel runs in Numba's simulator.

Sums are kept in the state's own type, float32 included: a float64 sum would cost a consumer card
more than the rest of the kernel.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from arzbench.physics import cpu
from arzbench.physics.cuda_kernel import kernel
from arzbench.physics.scenario import SCHEMES, Scenario, State


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
    """Return a state of the device's as one on the host."""
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
    arrivals = np.zeros((roads, 4), real)
    arrivals[:, : 2 * scenario.origins] = np.reshape(demand, (roads, -1))
    rates = np.full(roads, np.inf, real) if rate is None else rate.astype(real)
    compiled, threads = kernel(real, scenario.n_cells, SCHEMES[scenario.scheme])
    compiled[roads, threads](
        state.u, state.standing, state.totals, state.counters, state.profile,
        cuda.to_device(arrivals), cuda.to_device(red), cuda.to_device(rates), *numbers_of(scenario),
    )  # fmt: skip


@lru_cache(maxsize=64)
def numbers_of(scenario: Scenario) -> tuple[Any, ...]:
    """The numbers the kernel needs of a scenario, in the state's type."""
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
    return (
        places, scenario.substeps, real(dt), real(scenario.dx), real(scenario.cfl),
        real(0 if p.hard else np.inf), decay, tuple(map(real, weights)), tuple(map(real, shares)),
        scenario.constants(),
    )  # fmt: skip

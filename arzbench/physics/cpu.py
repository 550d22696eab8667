"""CPU engine: `init` makes a batch of roads, `step` advances it by one decision.

Roads do not touch each other, so a batch is a loop over roads and a road's result is the same,
bit for bit, at any batch size and thread count.
"""

import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from arzbench.physics.cells import (
    clear_ghosts,
    entry,
    fill_ghosts,
    fluxes,
    inner,
    source,
    top_speed,
    update,
)
from arzbench.physics.memory import load, store
from arzbench.physics.model import FASTMATH
from arzbench.physics.scenario import (
    ARRIVED,
    CFL_EXCEEDED,
    COUNTERS,
    CROSSED,
    DELAY,
    FIELDS,
    LEFT,
    LIMITED,
    NEGATIVE,
    NUM_GHOST,
    OVERFULL,
    QUEUE_C,
    QUEUE_M,
    REFINED,
    SCHEMES,
    STANDING,
    STOPS,
    TOTALS,
    FloatArray,
    Scenario,
    State,
)


@inner
def _book(total: Any, flux: Any, stop: Any, stride: Any, n: Any, duration: Any) -> None:
    """Book the vehicles that cross the entry, the stop line and the exit in `duration`."""
    total[QUEUE_M] -= duration * load(flux, NUM_GHOST)
    total[QUEUE_C] -= duration * load(flux, NUM_GHOST + 2 * stride)
    if stop >= 0:
        face = NUM_GHOST + stop
        total[CROSSED] += duration * (load(flux, face) + load(flux, face + 2 * stride))
    face = NUM_GHOST + n
    total[LEFT] += duration * (load(flux, face) + load(flux, face + 2 * stride))


@inner
def _substep(
    u: Any, work: Any, road: Any, total: Any, count: Any, demand_m: Any, demand_c: Any,
    closed: Any, stop: Any, stride: Any, n: Any, scheme: Any, dt: Any, dx: Any, slack: Any, k: Any,
) -> None:  # fmt: skip
    """Transport over dt: one Runge-Kutta step of u, and the vehicles it let in and out."""
    size = FIELDS * stride
    stage1, stage2, flux = work[:size], work[size : 2 * size], work[2 * size :]
    dtdx, dxdt = k.one * (dt / dx), k.one * (dx / dt)
    # Who waits at the origin could enter within this substep, together with who arrives.
    wish_m = k.one * (total[QUEUE_M] / dt + demand_m)
    wish_c = k.one * (total[QUEUE_C] / dt + demand_c)
    stages = 1 + scheme
    for stage in range(stages):
        now = u if stage == 0 else (stage1 if stage == 1 else stage2)
        # SSP-RK3 and SSP-RK2 of Shu & Osher, JCP 77 (1988) 439: share of the stage's increment,
        # and weight of its fluxes in the whole step. No stage writes what it reads.
        if stage == 0:
            target, share = stage1, k.one
            weight = 1.0 if stages == 1 else (0.5 if stages == 2 else 1 / 6)
        elif stage == 1:
            target = stage2
            share, weight = (k.half, 0.5) if stages == 2 else (k.half * k.half, 1 / 6)
        else:
            target, share, weight = stage1, k.two * k.third, 2 / 3
        fill_ghosts(now, stride, n)
        limited, speed = fluxes(now, flux, road, stride, n, scheme, dxdt, slack, k)
        count[LIMITED] += int(limited)
        if stage == 0 and speed * dtdx > k.over:
            count[CFL_EXCEEDED] += 1
        entry(now, flux, road, wish_m, wish_c, stride, dxdt, slack, k)
        if closed:
            for field in range(FIELDS):
                store(flux, field * stride + NUM_GHOST + stop, k.zero)
        _book(total, flux, stop, stride, n, weight * dt)
        update(now, u, target, flux, stride, n, share, dtdx, k)
    result = stage2 if stages == 2 else stage1
    for i in range(size):
        store(u, i, load(result, i))
    total[QUEUE_M] += demand_m * dt
    total[QUEUE_C] += demand_c * dt
    total[ARRIVED] += (demand_m + demand_c) * dt


@inner
def _road_step(
    u: Any, standing: Any, total: Any, count: Any, road: Any, work: Any, demand_m: Any,
    demand_c: Any, red: Any, stop: Any, stride: Any, n: Any, scheme: Any, substeps: Any, dt: Any,
    dx: Any, cfl: Any, slack: Any, decay: Any, k: Any,
) -> None:  # fmt: skip
    """One road over one decision: Strang splitting, half steps of the source merged between."""
    source(u, road, standing, stride, n, decay[0], decay[1], k)
    for s in range(substeps):
        parts = 1
        if slack > k.zero:
            number = top_speed(u, road, stride, n, k) * dt / dx
            if number > cfl:
                parts = math.ceil(number / cfl)
                count[REFINED] += 1
        for _ in range(parts):
            _substep(
                u, work, road, total, count, demand_m, demand_c, s < red, stop, stride, n,
                scheme, dt / parts, dx, slack, k,
            )  # fmt: skip
        clear_ghosts(u, stride, n, k)
        last = 0 if s == substeps - 1 else 2
        late, stood, newly, bad, over = source(u, road, standing, stride, n, decay[last], decay[last + 1], k)
        total[DELAY] += dt * (late * dx + total[QUEUE_M] + total[QUEUE_C])
        total[STOPS] += newly * dx
        total[STANDING] = stood * dx
        count[NEGATIVE] += int(bad)
        count[OVERFULL] += int(over)


def _compile(source_tag: int) -> Any:
    """Compile the entry point, cached on disk.

    Numba's cache looks at the file of the function compiled, not at the files it calls into; the
    tag, a digest of those, is in the closure and so in the key.
    """

    @njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
    def advance(
        u: Any, standing: Any, total: Any, count: Any, road: Any, work: Any, demand: Any,
        red: Any, stop: Any, n: Any, scheme: Any, substeps: Any, dt: Any, dx: Any, cfl: Any,
        slack: Any, decay: Any, k: Any,
    ) -> int:  # fmt: skip
        stride = standing.shape[1]
        for b in range(u.shape[0]):
            _road_step(
                u[b], standing[b], total[b], count[b], road[b], work, demand[b, 0], demand[b, 1],
                red[b], stop, stride, n, scheme, substeps, dt, dx, cfl, slack, decay, k,
            )  # fmt: skip
        return source_tag

    return advance


def _source_tag() -> int:
    digest = hashlib.sha256()
    for name in ("cells.py", "model.py", "reconstruction.py", "memory.py", "scenario.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


_advance = _compile(_source_tag())


def init(scenario: Scenario, roads: int) -> State:
    """Return `roads` empty roads of `scenario`.

    Vacant cells count as free: a class's w there is its free speed.

    Raises:
        ValueError: If `roads` is less than one.
    """
    if roads < 1:
        raise ValueError(f"roads={roads} must be >= 1")
    real, stride = scenario.float_type, scenario.stride
    return State(
        u=np.zeros((roads, FIELDS, stride), real),
        standing=np.zeros((roads, stride), real),
        totals=np.zeros((roads, TOTALS)),
        counters=np.zeros((roads, len(COUNTERS)), np.int64),
        profile=np.repeat(scenario.profile()[None], roads, axis=0),
    )


def step(
    scenario: Scenario,
    state: State,
    demand: NDArray[np.float64],
    red: NDArray[np.int64],
) -> None:
    """Advance `state` in place by `scenario.decision_s`.

    Args:
        scenario: What `state` was made from.
        state: Changed in place.
        demand: Vehicles arriving at each road's origin [veh/s], motorcycles and cars, shape
            (roads, 2), float64. Who cannot enter waits in the origin queue.
        red: Number of substeps, from the first, for which each road's stop line is closed
            (no flux of mass nor of y), shape (roads,), int64.
    """
    roads = len(state.u)
    plan = plan_of(scenario)
    _advance(
        state.u.reshape(roads, -1), state.standing, state.totals, state.counters,
        state.profile.reshape(roads, -1), plan.work, demand, red, *plan.numbers,
    )  # fmt: skip


class Plan(NamedTuple):
    """What `step` needs of a scenario, worked out once."""

    work: FloatArray
    numbers: tuple[Any, ...]


@lru_cache(maxsize=64)
def plan_of(scenario: Scenario) -> Plan:
    """Return the plan of a scenario, cached."""
    p, real = scenario.parameters, scenario.float_type
    dt = scenario.decision_s / scenario.substeps
    decay = tuple(real(-math.expm1(-part * dt / tau)) for part in (0.5, 1.0) for tau in (p.tau_m, p.tau_c))
    slack = real(0 if p.hard else np.inf)
    work = np.zeros(3 * FIELDS * scenario.stride, real)
    k = scenario.constants()
    return Plan(
        work,
        (
            scenario.stop_cell, scenario.n_cells, SCHEMES[scenario.scheme], scenario.substeps,
            dt, scenario.dx, scenario.cfl, slack, decay, k,
        ),
    )  # fmt: skip

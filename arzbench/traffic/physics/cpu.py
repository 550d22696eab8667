"""CPU engine: `init` makes a batch of roads, `step` advances it by one decision.

Roads do not touch each other, so a batch is a loop over roads and a road's result is the same,
bit for bit, at any batch size and thread count.
"""

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from arzbench.traffic.physics.cells import (
    FACE_ROWS,
    add_to_cell,
    copy_rows,
    entering,
    fill_ghosts,
    fluxes,
    inlined,
    reconstruct,
    set_exit,
    set_merge,
    source,
    speeds,
    top_speed,
    update,
)
from arzbench.traffic.physics.memory import borrow, first_aligned, load, store
from arzbench.traffic.physics.model import FASTMATH, Constants, source_tag
from arzbench.traffic.physics.scenario import (
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
    PROFILE_ROWS,
    QUEUE_C,
    QUEUE_M,
    RAMP_C,
    RAMP_M,
    REFINED,
    SCHEMES,
    STAGES,
    STANDING,
    STOPS,
    TILE,
    TOTALS,
    Scenario,
    State,
)
from arzbench.traffic.physics.simd import cast, flush_denormals
from arzbench.traffic.physics.threads import team

# A road is worked on in a copy of its own: u, profile, standing; two stages, fluxes, faces. There a row's
# length is a constant, so that compiled code finds all rows from one pointer; and packs are aligned, as
# they need not be in an array of NumPy's: one across two cache lines costs as much as two. A tile more
# than a power of two keeps rows from falling on the same lines of a cache.
_WORK_ROWS = FIELDS + PROFILE_ROWS + 1 + 3 * FIELDS + FACE_ROWS
_SHORT_ROW, _LONGER = 128, 4
_PARTS = 4  # of a batch for each thread: a thread that is kept away holds up one of them at most


@inlined
def _book(total: Any, flux: Any, stop: Any, stride: Any, n: Any, duration: Any) -> None:
    """Book the vehicles that cross the entry, the stop line and the exit in `duration`."""
    face = NUM_GHOST - 1
    total[QUEUE_M] -= duration * load(flux, face)
    total[QUEUE_C] -= duration * load(flux, face + 2 * stride)
    if stop >= 0:
        face = NUM_GHOST - 1 + stop
        total[CROSSED] += duration * (load(flux, face) + load(flux, face + 2 * stride))
    face = NUM_GHOST - 1 + n
    total[LEFT] += duration * (load(flux, face) + load(flux, face + 2 * stride))


@inlined
def _stage(
    now: Any, u: Any, target: Any, faces: Any, flux: Any, road: Any, total: Any, count: Any, wish: Any,
    places: Any, closed: Any, rate: Any, scheme: Any, weight: Any, share: Any, dt: Any, dx: Any,
    slack: Any, k: Any,
) -> None:  # fmt: skip
    """One Runge-Kutta stage, from `now` to `target`, with its fluxes booked."""
    stride, n, stop, ramp = places
    dtdx, dxdt = cast(dt / dx, k.one), cast(dx / dt, k.one)
    fill_ghosts(now, stride, n)
    set_exit(now, road, stride, n, k)
    # Long chains of dependent operations, begun early so that they end while the cells are worked on.
    entry = entering(now, road, wish[0], wish[1], stride, NUM_GHOST, dxdt, slack, k)
    reconstruct(now, faces, flux, road, stride, n, scheme, slack, k)
    speeds(faces, road, stride, n, k)
    limited, speed = fluxes(now, faces, flux, road, stride, n, dxdt, slack, k)
    count[LIMITED] += int(limited)
    if speed * dtdx > k.over:
        count[CFL_EXCEEDED] += 1
    for field in range(FIELDS):
        store(flux, field * stride + NUM_GHOST - 1, entry[field])
    if closed:
        for field in range(FIELDS):
            store(flux, field * stride + NUM_GHOST - 1 + stop, k.zero)
    if ramp >= 0:
        cell = NUM_GHOST + ramp
        f0, f1, f2, f3 = set_merge(now, flux, road, wish[2], wish[3], rate, stride, cell, dxdt, slack, k)
        update(now, u, target, flux, stride, n, share, dtdx, k)
        gain = share * dtdx
        add_to_cell(target, cell, stride, (gain * f0, gain * f1, gain * f2, gain * f3))
        total[RAMP_M] -= weight * dt * f0
        total[RAMP_C] -= weight * dt * f2
    else:
        update(now, u, target, flux, stride, n, share, dtdx, k)
    _book(total, flux, stop, stride, n, weight * dt)


@inlined
def _substep(
    u: Any, work: Any, road: Any, total: Any, count: Any, demand: Any, places: Any, closed: Any,
    rate: Any, scheme: Any, dt: Any, dx: Any, slack: Any, k: Any,
) -> None:  # fmt: skip
    """Transport over dt: one Runge-Kutta step of u, and the vehicles it let in and out."""
    size = FIELDS * places[0]
    first, second, flux, faces = (
        work[:size],
        work[size : 2 * size],
        work[2 * size : 3 * size],
        work[3 * size :],
    )
    # Who waits at an origin could enter within this substep, together with who arrives.
    wish = (
        cast(total[QUEUE_M] / dt + demand[0], k.one), cast(total[QUEUE_C] / dt + demand[1], k.one),
        cast(total[RAMP_M] / dt + demand[2], k.one), cast(total[RAMP_C] / dt + demand[3], k.one),
    )  # fmt: skip
    weights, shares = STAGES[scheme]
    now = u
    for stage in range(1 + scheme):
        target = u if stage == scheme else (second if stage == 1 else first)
        _stage(
            now, u, target, faces, flux, road, total, count, wish, places, closed, rate, scheme,
            weights[stage], cast(shares[stage], k.one), dt, dx, slack, k,
        )  # fmt: skip
        now = target
    for origin in range(4):
        total[QUEUE_M + origin] += demand[origin] * dt
    total[ARRIVED] += (demand[0] + demand[1] + demand[2] + demand[3]) * dt


@inlined
def _road_step(
    u: Any, standing: Any, total: Any, count: Any, road: Any, work: Any, demand: Any, places: Any,
    red: Any, rate: Any, scheme: Any, substeps: Any, dt: Any, dx: Any, cfl: Any, slack: Any,
    decay: Any, k: Any,
) -> None:  # fmt: skip
    """One road over one decision: Strang splitting, half steps of the source merged between."""
    stride, n, _, _ = places
    _, _, newly, _, _ = source(u, road, standing, stride, n, decay[0], decay[1], k)
    total[STOPS] += newly * dx
    for s in range(substeps):
        parts = 1
        if slack > k.zero:
            number = top_speed(u, road, stride, n, k) * dt / dx
            if number > cfl:
                parts = math.ceil(number / cfl)
                count[REFINED] += 1
        for _ in range(parts):
            _substep(
                u, work, road, total, count, demand, places, s < red, rate, scheme, dt / parts,
                dx, slack, k,
            )  # fmt: skip
        last = 0 if s == substeps - 1 else 2
        late, stood, newly, bad, over = source(u, road, standing, stride, n, decay[last], decay[last + 1], k)
        waiting = total[QUEUE_M] + total[QUEUE_C] + total[RAMP_M] + total[RAMP_C]
        total[DELAY] += dt * (late * dx + waiting)
        total[STOPS] += newly * dx
        total[STANDING] = stood * dx
        count[NEGATIVE] += int(bad)
        count[OVERFULL] += int(over)


def _compile(tag: int, stride: int) -> Any:
    """Compile the engine for roads whose rows fit `stride` cells; cached on disk under `tag`."""

    @njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
    def advance(
        u: Any, standing: Any, total: Any, count: Any, road: Any, demand: Any, red: Any,
        rate: Any, places: Any, scheme: Any, substeps: Any, dt: Any, dx: Any, cfl: Any,
        slack: Any, decay: Any, constants: Any,
    ) -> int:  # fmt: skip
        k = Constants(*constants)
        mode = flush_denormals(np.int64(-1))
        work = np.zeros(_WORK_ROWS * stride + TILE, u.dtype)
        at = first_aligned(borrow(work), NUM_GHOST - 1)
        own_u = borrow(work)[at : at + FIELDS * stride]
        at += FIELDS * stride
        own_road = borrow(work)[at : at + PROFILE_ROWS * stride]
        at += PROFILE_ROWS * stride
        own_standing = borrow(work)[at : at + stride]
        scratch = borrow(work)[at + stride :]
        fields, slow, sums, counts, roads = (
            borrow(u),
            borrow(standing),
            borrow(total),
            borrow(count),
            borrow(road),
        )
        row, ramp = standing.shape[1], demand.shape[1] - 1
        inside = stride, places[0], places[1], places[2]
        for b in range(u.shape[0]):
            copy_rows(fields[b], own_u, FIELDS, row, stride)
            copy_rows(roads[b], own_road, PROFILE_ROWS, row, stride)
            copy_rows(slow[b], own_standing, 1, row, stride)
            arrivals = (
                demand[b, 0, 0], demand[b, 0, 1], ramp * demand[b, ramp, 0], ramp * demand[b, ramp, 1],
            )  # fmt: skip
            _road_step(
                own_u, own_standing, sums[b], counts[b], own_road, scratch, arrivals, inside, red[b],
                cast(rate[b], k.one), scheme, substeps, dt, dx, cfl, slack, decay, k,
            )  # fmt: skip
            copy_rows(own_u, fields[b], FIELDS, stride, row)
            copy_rows(own_standing, slow[b], 1, stride, row)
        work[0] = 0  # it had to live until here
        flush_denormals(mode)
        return tag

    return advance


@lru_cache
def _compiled(stride: int) -> Any:
    """`_compile` with the tag of all it is made of."""
    names = "cells", "junction", "model", "reconstruction", "memory", "scenario", "simd"
    return _compile(source_tag(*names), stride)


def advance(u: Any, standing: Any, *rest: Any) -> None:
    """Advance roads by one decision, with the engine compiled for rows of their length or more."""
    stride = _SHORT_ROW
    while stride < standing.shape[1]:
        stride *= _LONGER
    _compiled(stride + TILE)(u, standing, *rest)


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
    rate: NDArray[np.float64] | None = None,
    *,
    threads: int = 1,
) -> None:
    """Advance `state` in place by `scenario.decision_s`.

    Args:
        scenario: What `state` was made from.
        state: Changed in place.
        demand: Vehicles arriving at each origin of each road [veh/s], motorcycles and cars,
            shape (roads, origins, 2), float64. Who cannot enter waits in the origin queue.
        red: Number of substeps, from the first, for which each road's stop line is closed
            (no flux of mass nor of y), shape (roads,), int64.
        rate: Largest flow from each road's on-ramp [veh/s], shape (roads,), float64; no limit
            if None.
        threads: Threads to share the roads among; the result does not depend on it.
    """
    roads = len(state.u)
    arrays = (
        state.u.reshape(roads, -1), state.standing, state.totals, state.counters,
        state.profile.reshape(roads, -1), demand.reshape(roads, -1, 2), red,
        _unmetered(roads) if rate is None else rate,
    )  # fmt: skip
    if threads == 1 or roads == 1:
        advance(*arrays, *_numbers_of(scenario))
        return
    # The compiled code holds no lock of the interpreter, so plain threads run side by side.
    count = min(_PARTS * threads, roads)
    bounds = [roads * part // count for part in range(count + 1)]
    parts = [(*(array[a:b] for array in arrays), *_numbers_of(scenario)) for a, b in pairwise(bounds)]
    team(threads).share(advance, parts)


@lru_cache(maxsize=64)
def _unmetered(roads: int) -> NDArray[np.float64]:
    """No limit on any ramp; only to be read."""
    return np.full(roads, np.inf)


@lru_cache(maxsize=64)
def _numbers_of(scenario: Scenario) -> tuple[Any, ...]:
    """The numbers `advance` needs of a scenario, worked out once."""
    return (
        scenario.places, SCHEMES[scenario.scheme], scenario.substeps, scenario.dt, scenario.dx, scenario.cfl,
        scenario.slack, scenario.decay,
        tuple(scenario.constants()),  # plain: a named one takes three times as long to hand over
    )  # fmt: skip

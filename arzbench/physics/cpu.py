"""CPU engine: `init` makes a batch of roads, `step` advances it by one decision.

Roads do not touch each other, so a batch is a loop over roads and a road's result is the same,
bit for bit, at any batch size and thread count. Along a road, cells go through loops of
`TILE`, whose results stay on the stack until all are done: what a loop reads it cannot have
written, which is what LLVM needs to know to use full vectors.
"""

import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from arzbench.physics.memory import carray, load, stack_pointer, store
from arzbench.physics.model import (
    FASTMATH,
    equilibrium,
    face_speeds,
    greatest,
    hll_mass_flux,
    least,
    limit_fluxes,
    pressures,
    relax,
    supplies,
)
from arzbench.physics.reconstruction import first_order, muscl, weno5
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
    PROFILE_C_C,
    PROFILE_C_M,
    PROFILE_INV_JAM,
    PROFILE_JAM,
    PROFILE_LIMIT,
    QUEUE_C,
    QUEUE_M,
    REFINED,
    SCHEMES,
    STANDING,
    STOPS,
    TILE,
    TOTALS,
    FloatArray,
    Scenario,
    State,
)

_MUSCL, _WENO5 = SCHEMES["muscl"], SCHEMES["weno5"]
_inner = njit(fastmath=FASTMATH, error_model="numpy", nogil=True)
_inlined = njit(fastmath=FASTMATH, error_model="numpy", nogil=True, forceinline=True)

# Rows of the scratch of `_fluxes`. A right-face row holds TILE + 1 values, the first one carried
# over from the tile before: the state on the left of the tile's first face.
_R = TILE + 1
_RHO_M, _W_M, _V_M, _RHO_C, _W_C, _V_C, _LAM = range(7)
_LEFT_ROWS = 7 * _R  # rho_m, v_m, rho_c, v_c, lam at left faces
_FLUX_ROWS = _LEFT_ROWS + 5 * TILE
_HIT_ROW = _FLUX_ROWS + 4 * TILE
_SPEED_ROW = _HIT_ROW + TILE
_FLUXES_SCRATCH = _SPEED_ROW + TILE
_SOURCE_SCRATCH = 9 * TILE


@_inner
def _fill_ghosts(u: Any, stride: Any, n: Any) -> None:
    """Zero-gradient ghosts: free outflow; at the entry the flux is set apart."""
    for field in range(FIELDS):
        row = field * stride
        for g in range(NUM_GHOST):
            store(u, row + g, load(u, row + NUM_GHOST))
            store(u, row + NUM_GHOST + n + g, load(u, row + NUM_GHOST + n - 1))


@_inner
def _clear_ghosts(u: Any, stride: Any, n: Any, k: Any) -> None:
    for field in range(FIELDS):
        row = field * stride
        for g in range(NUM_GHOST):
            store(u, row + g, k.zero)
            store(u, row + NUM_GHOST + n + g, k.zero)


@_inlined
def _put_faces(t: Any, i: Any, left: Any, right: Any, m: Any, c: Any, k: Any) -> None:
    """Store the states at both faces of tile cell i: `left`, `right` are (rho_m, w_m, rho_c, w_c)."""
    v_m, v_c, lam = face_speeds(left[0], left[1], left[2], left[3], m, c, k)
    store(t, _LEFT_ROWS + i, left[0])
    store(t, _LEFT_ROWS + TILE + i, v_m)
    store(t, _LEFT_ROWS + 2 * TILE + i, left[2])
    store(t, _LEFT_ROWS + 3 * TILE + i, v_c)
    store(t, _LEFT_ROWS + 4 * TILE + i, lam)
    v_m, v_c, lam = face_speeds(right[0], right[1], right[2], right[3], m, c, k)
    store(t, _RHO_M * _R + 1 + i, right[0])
    store(t, _W_M * _R + 1 + i, right[1])
    store(t, _V_M * _R + 1 + i, v_m)
    store(t, _RHO_C * _R + 1 + i, right[2])
    store(t, _W_C * _R + 1 + i, right[3])
    store(t, _V_C * _R + 1 + i, v_c)
    store(t, _LAM * _R + 1 + i, lam)


@_inlined
def _weno5_class(
    u: Any, a: Any, b: Any, rho_max: Any, w_free: Any, w_max: Any, k: Any
) -> Any:
    """WENO5 of the class whose rho is at index `a` of u and y at index `b`."""
    return weno5(
        load(u, a - 2), load(u, a - 1), load(u, a), load(u, a + 1), load(u, a + 2),
        load(u, b - 2), load(u, b - 1), load(u, b), load(u, b + 1), load(u, b + 2),
        rho_max, w_free, w_max, k,
    )  # fmt: skip


@_inlined
def _muscl_class(u: Any, a: Any, b: Any, w_free: Any, w_max: Any, k: Any) -> Any:
    return muscl(
        load(u, a - 1), load(u, a), load(u, a + 1),
        load(u, b - 1), load(u, b), load(u, b + 1), w_free, w_max, k,
    )  # fmt: skip


@_inlined
def _reconstruct(
    t: Any, u: Any, road: Any, stride: Any, first: Any, scheme: Any, slack: Any, k: Any
) -> None:
    """Face states of the TILE cells from index `first` on."""
    if scheme == _WENO5:
        for i in range(TILE):
            q = first + i
            top = load(road, PROFILE_JAM * stride + q) + slack
            a, b = q + 2 * stride, q + 3 * stride
            m = _weno5_class(u, q, q + stride, top, k.v_free_m, k.w_max_m, k)
            c = _weno5_class(u, a, b, top, k.v_free_c, k.w_max_c, k)
            c_m = load(road, PROFILE_C_M * stride + q)
            c_c = load(road, PROFILE_C_C * stride + q)
            _put_faces(t, i, (m[0], m[1], c[0], c[1]), (m[2], m[3], c[2], c[3]), c_m, c_c, k)
    elif scheme == _MUSCL:
        for i in range(TILE):
            q = first + i
            m = _muscl_class(u, q, q + stride, k.v_free_m, k.w_max_m, k)
            c = _muscl_class(u, q + 2 * stride, q + 3 * stride, k.v_free_c, k.w_max_c, k)
            c_m = load(road, PROFILE_C_M * stride + q)
            c_c = load(road, PROFILE_C_C * stride + q)
            _put_faces(t, i, (m[0], m[1], c[0], c[1]), (m[2], m[3], c[2], c[3]), c_m, c_c, k)
    else:
        for i in range(TILE):
            q = first + i
            m = first_order(load(u, q), load(u, q + stride), k.v_free_m, k.w_max_m, k)
            c = first_order(
                load(u, q + 2 * stride), load(u, q + 3 * stride), k.v_free_c, k.w_max_c, k
            )
            c_m = load(road, PROFILE_C_M * stride + q)
            c_c = load(road, PROFILE_C_C * stride + q)
            _put_faces(t, i, (m[0], m[1], c[0], c[1]), (m[2], m[3], c[2], c[3]), c_m, c_c, k)


@_inner
def _fluxes(
    u: Any, flux: Any, road: Any, stride: Any, n: Any, scheme: Any, dxdt: Any, slack: Any, k: Any
) -> Any:
    """Fluxes at the left face of each cell; returns (limited faces, largest wave speed)."""
    t = carray(stack_pointer(_FLUXES_SCRATCH, k.zero), (_FLUXES_SCRATCH,))
    for i in range(_FLUXES_SCRATCH):
        store(t, i, k.zero)
    first = NUM_GHOST - 1
    while first < NUM_GHOST + n + 1:
        _reconstruct(t, u, road, stride, first, scheme, slack, k)
        for i in range(TILE):
            q = first + i
            rho_m, rho_c = load(u, q), load(u, q + 2 * stride)
            give_m, give_c = load(u, q - 1) * dxdt, load(u, q + 2 * stride - 1) * dxdt
            jam = load(road, PROFILE_JAM * stride + q)
            room_m = greatest(jam - (rho_m + k.alpha * rho_c), k.zero) * dxdt + slack
            room_c = greatest(jam - (rho_m + rho_c), k.zero) * dxdt + slack
            lam_l, lam_r = load(t, _LAM * _R + i), load(t, _LEFT_ROWS + 4 * TILE + i)
            v_l, v_r = load(t, _V_M * _R + i), load(t, _LEFT_ROWS + TILE + i)
            raw_m = hll_mass_flux(
                load(t, _RHO_M * _R + i), v_l, lam_l, load(t, _LEFT_ROWS + i), v_r, lam_r, k
            )
            speed = greatest(greatest(v_l, v_r), -least(lam_l, lam_r))
            v_l, v_r = load(t, _V_C * _R + i), load(t, _LEFT_ROWS + 3 * TILE + i)
            raw_c = hll_mass_flux(
                load(t, _RHO_C * _R + i), v_l, lam_l, load(t, _LEFT_ROWS + 2 * TILE + i), v_r,
                lam_r, k,
            )  # fmt: skip
            speed = greatest(speed, greatest(v_l, v_r))
            f_m, f_c = limit_fluxes(
                raw_m, raw_c, give_m * k.keep, give_c * k.keep, room_m * k.keep, room_c * k.keep, k
            )
            y_m = least(f_m * load(t, _W_M * _R + i), load(u, q + stride - 1) * dxdt * k.keep)
            y_c = least(f_c * load(t, _W_C * _R + i), load(u, q + 3 * stride - 1) * dxdt * k.keep)
            store(t, _FLUX_ROWS + i, f_m)
            store(t, _FLUX_ROWS + TILE + i, y_m)
            store(t, _FLUX_ROWS + 2 * TILE + i, f_c)
            store(t, _FLUX_ROWS + 3 * TILE + i, y_c)
            cut = abs(raw_m - f_m) + abs(raw_c - f_c)
            hit = load(t, _HIT_ROW + i)
            store(t, _HIT_ROW + i, hit + k.one if cut > k.v_min else hit)
            store(t, _SPEED_ROW + i, greatest(load(t, _SPEED_ROW + i), speed))
        for field in range(FIELDS):
            for i in range(TILE):
                store(flux, field * stride + first + i, load(t, _FLUX_ROWS + field * TILE + i))
        for row in range(7):
            store(t, row * _R, load(t, row * _R + TILE))
        first += TILE
    limited, speed = k.zero, k.zero
    for i in range(TILE):
        limited += load(t, _HIT_ROW + i)
        speed = greatest(speed, load(t, _SPEED_ROW + i))
    return limited, speed


@_inner
def _update(
    u: Any, u0: Any, out: Any, flux: Any, stride: Any, n: Any, share: Any, dtdx: Any, k: Any
) -> None:
    """One Runge-Kutta stage in increment form: `out = u0 + share (u + dt L(u) - u0)`."""
    t = carray(stack_pointer(TILE, k.zero), (TILE,))
    for field in range(FIELDS):
        first = field * stride + NUM_GHOST
        last = first + n
        while first < last:
            for i in range(TILE):
                q = first + i
                base = load(u0, q)
                gain = dtdx * (load(flux, q) - load(flux, q + 1))
                store(t, i, base + share * ((load(u, q) - base) + gain))
            for i in range(min(TILE, last - first)):
                store(out, first + i, load(t, i))
            first += TILE


@_inner
def _entry(
    u: Any, road: Any, demand_m: Any, demand_c: Any, stride: Any, dxdt: Any, slack: Any, k: Any
) -> Any:
    """Fluxes into the first cell: the demand, cut to what the cell can take."""
    q = NUM_GHOST
    rho_m, rho_c = load(u, q), load(u, q + 2 * stride)
    jam = load(road, PROFILE_JAM * stride + q)
    limit = load(road, PROFILE_LIMIT * stride + q)
    supply_m, supply_c = supplies(rho_m, rho_c, jam, limit, k)
    share_m = least(k.one, supply_m / greatest(demand_m + k.alpha * demand_c, k.v_min))
    share_c = least(k.one, supply_c / greatest(demand_m + demand_c, k.v_min))
    room_m = greatest(jam - (rho_m + k.alpha * rho_c), k.zero) * dxdt + slack
    room_c = greatest(jam - (rho_m + rho_c), k.zero) * dxdt + slack
    f_m, f_c = limit_fluxes(
        demand_m * share_m, demand_c * share_c, demand_m * k.keep, demand_c * k.keep,
        room_m * k.keep, room_c * k.keep, k,
    )  # fmt: skip
    p_m, p_c = pressures(
        rho_m, rho_c, load(road, PROFILE_C_M * stride + q), load(road, PROFILE_C_C * stride + q), k
    )
    inv_jam = load(road, PROFILE_INV_JAM * stride + q)
    ve_m, ve_c = equilibrium(rho_m, rho_c, p_m, p_c, inv_jam, limit, k)
    return f_m, f_m * least(ve_m + p_m, k.w_max_m), f_c, f_c * least(ve_c + p_c, k.w_max_c)


@_inner
def _source(
    u: Any, road: Any, before: Any, stride: Any, n: Any, decay_m: Any, decay_c: Any, k: Any
) -> Any:
    """Relaxation of each cell, and what is measured there.

    Returns sums over cells: delay rate, standing, newly standing, negative cells, overfull cells.
    """
    t = carray(stack_pointer(_SOURCE_SCRATCH, k.zero), (_SOURCE_SCRATCH,))
    for i in range(_SOURCE_SCRATCH):
        store(t, i, k.zero)
    first = NUM_GHOST
    while first < NUM_GHOST + n:
        for i in range(TILE):
            q = first + i
            rho_m, y_m = load(u, q), load(u, q + stride)
            rho_c, y_c = load(u, q + 2 * stride), load(u, q + 3 * stride)
            p_m, p_c = pressures(
                rho_m, rho_c, load(road, PROFILE_C_M * stride + q),
                load(road, PROFILE_C_C * stride + q), k,
            )  # fmt: skip
            limit = load(road, PROFILE_LIMIT * stride + q)
            inv_jam = load(road, PROFILE_INV_JAM * stride + q)
            ve_m, ve_c = equilibrium(rho_m, rho_c, p_m, p_c, inv_jam, limit, k)
            bad = k.one if least(least(rho_m, rho_c), least(y_m, y_c)) < k.zero else k.zero
            y_m, flow_m = relax(rho_m, y_m, p_m, ve_m, decay_m, k)
            y_c, flow_c = relax(rho_c, y_c, p_c, ve_c, decay_c, k)
            slow_m = rho_m if flow_m < k.standing * rho_m else k.zero
            slow_c = rho_c if flow_c < k.standing * rho_c else k.zero
            slow = slow_m + slow_c
            late = (rho_m - flow_m / k.v_free_m) + (rho_c - flow_c / k.v_free_c)
            full = (rho_m + k.alpha * rho_c) * inv_jam
            store(t, i, y_m)
            store(t, TILE + i, y_c)
            store(t, 2 * TILE + i, slow)
            store(t, 3 * TILE + i, load(t, 3 * TILE + i) + late)
            store(t, 4 * TILE + i, load(t, 4 * TILE + i) + slow)
            newly = greatest(slow - load(before, q), k.zero)
            store(t, 5 * TILE + i, load(t, 5 * TILE + i) + newly)
            store(t, 6 * TILE + i, load(t, 6 * TILE + i) + bad)
            over = k.one if full > k.over else k.zero
            store(t, 7 * TILE + i, load(t, 7 * TILE + i) + over)
        for i in range(TILE):
            store(u, stride + first + i, load(t, i))
        for i in range(TILE):
            store(u, 3 * stride + first + i, load(t, TILE + i))
        for i in range(TILE):
            store(before, first + i, load(t, 2 * TILE + i))
        first += TILE
    for row in range(3, 8):
        for i in range(1, TILE):
            store(t, row * TILE, load(t, row * TILE) + load(t, row * TILE + i))
    return (
        load(t, 3 * TILE), load(t, 4 * TILE), load(t, 5 * TILE), load(t, 6 * TILE),
        load(t, 7 * TILE),
    )  # fmt: skip


@_inner
def _top_speed(u: Any, road: Any, stride: Any, n: Any, k: Any) -> Any:
    """Largest |lambda| over the cells."""
    t = carray(stack_pointer(TILE, k.zero), (TILE,))
    for i in range(TILE):
        store(t, i, k.zero)
    first = NUM_GHOST
    while first < NUM_GHOST + n:
        for i in range(TILE):
            q = first + i
            m = first_order(load(u, q), load(u, q + stride), k.v_free_m, k.w_max_m, k)
            c = first_order(
                load(u, q + 2 * stride), load(u, q + 3 * stride), k.v_free_c, k.w_max_c, k
            )
            v_m, v_c, lam = face_speeds(
                m[0], m[1], c[0], c[1], load(road, PROFILE_C_M * stride + q),
                load(road, PROFILE_C_C * stride + q), k,
            )  # fmt: skip
            store(t, i, greatest(load(t, i), greatest(greatest(v_m, v_c), -lam)))
        first += TILE
    speed = k.zero
    for i in range(TILE):
        speed = greatest(speed, load(t, i))
    return speed


@_inner
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
        source = u if stage == 0 else (stage1 if stage == 1 else stage2)
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
        _fill_ghosts(source, stride, n)
        limited, speed = _fluxes(source, flux, road, stride, n, scheme, dxdt, slack, k)
        count[LIMITED] += int(limited)
        if stage == 0 and speed * dtdx > k.over:
            count[CFL_EXCEEDED] += 1
        f0, f1, f2, f3 = _entry(source, road, wish_m, wish_c, stride, dxdt, slack, k)
        store(flux, NUM_GHOST, f0)
        store(flux, stride + NUM_GHOST, f1)
        store(flux, 2 * stride + NUM_GHOST, f2)
        store(flux, 3 * stride + NUM_GHOST, f3)
        if closed:
            for field in range(FIELDS):
                store(flux, field * stride + NUM_GHOST + stop, k.zero)
        if stop >= 0:
            face = NUM_GHOST + stop
            total[CROSSED] += weight * dt * (load(flux, face) + load(flux, face + 2 * stride))
        face = NUM_GHOST + n
        total[LEFT] += weight * dt * (load(flux, face) + load(flux, face + 2 * stride))
        total[QUEUE_M] -= weight * dt * f0
        total[QUEUE_C] -= weight * dt * f2
        _update(source, u, target, flux, stride, n, share, dtdx, k)
    result = stage2 if stages == 2 else stage1
    for i in range(size):
        store(u, i, load(result, i))
    total[QUEUE_M] += demand_m * dt
    total[QUEUE_C] += demand_c * dt
    total[ARRIVED] += (demand_m + demand_c) * dt


@_inner
def _road_step(
    u: Any, standing: Any, total: Any, count: Any, road: Any, work: Any, demand_m: Any,
    demand_c: Any, red: Any, stop: Any, stride: Any, n: Any, scheme: Any, substeps: Any, dt: Any,
    dx: Any, cfl: Any, slack: Any, decay: Any, k: Any,
) -> None:  # fmt: skip
    """One road over one decision: Strang splitting, half steps of the source merged between."""
    _source(u, road, standing, stride, n, decay[0], decay[1], k)
    for s in range(substeps):
        parts = 1
        if slack > k.zero:
            number = _top_speed(u, road, stride, n, k) * dt / dx
            if number > cfl:
                parts = int(math.ceil(number / cfl))
                count[REFINED] += 1
        for _ in range(parts):
            _substep(
                u, work, road, total, count, demand_m, demand_c, s < red, stop, stride, n,
                scheme, dt / parts, dx, slack, k,
            )  # fmt: skip
        _clear_ghosts(u, stride, n, k)
        last = 0 if s == substeps - 1 else 2
        late, stood, newly, bad, over = _source(
            u, road, standing, stride, n, decay[last], decay[last + 1], k
        )
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
    for name in ("model.py", "reconstruction.py", "memory.py", "scenario.py"):
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
    decay = tuple(
        real(-math.expm1(-part * dt / tau)) for part in (0.5, 1.0) for tau in (p.tau_m, p.tau_c)
    )
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

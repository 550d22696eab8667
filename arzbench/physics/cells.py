"""Compiled loops over the cells of one road.

Cells go through loops of `TILE`, whose results stay on the stack until all are done: what a
loop reads it cannot have written, which is what LLVM needs to know to use full vectors.
Arrays are flat: field f of cell q is at `f * stride + q`, with ghosts on both sides.
"""

from typing import Any

from numba import njit

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
    FIELDS,
    NUM_GHOST,
    PROFILE_C_C,
    PROFILE_C_M,
    PROFILE_INV_JAM,
    PROFILE_JAM,
    PROFILE_LIMIT,
    SCHEMES,
    TILE,
)

_MUSCL, _WENO5 = SCHEMES["muscl"], SCHEMES["weno5"]
inner = njit(fastmath=FASTMATH, error_model="numpy", nogil=True)
_inlined = njit(fastmath=FASTMATH, error_model="numpy", nogil=True, forceinline=True)

# Rows of the scratch of `fluxes`. A right-face row holds TILE + 1 values, the first one carried
# over from the tile before: the state on the left of the tile's first face.
_R = TILE + 1
_RHO_M, _W_M, _V_M, _RHO_C, _W_C, _V_C, _LAM = range(7)
_LEFT_ROWS = 7 * _R  # rho_m, v_m, rho_c, v_c, lam at left faces
_FLUX_ROWS = _LEFT_ROWS + 5 * TILE
_HIT_ROW = _FLUX_ROWS + 4 * TILE
_SPEED_ROW = _HIT_ROW + TILE
_FLUXES_SCRATCH = _SPEED_ROW + TILE
_SOURCE_SCRATCH = 9 * TILE


@inner
def fill_ghosts(u: Any, stride: Any, n: Any) -> None:
    """Zero-gradient ghosts: free outflow; at the entry the flux is set apart."""
    for field in range(FIELDS):
        row = field * stride
        for g in range(NUM_GHOST):
            store(u, row + g, load(u, row + NUM_GHOST))
            store(u, row + NUM_GHOST + n + g, load(u, row + NUM_GHOST + n - 1))


@inner
def clear_ghosts(u: Any, stride: Any, n: Any, k: Any) -> None:
    """Empty the ghosts, so that sums over whole tiles count the road alone."""
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
def _weno5_class(u: Any, a: Any, b: Any, rho_max: Any, w_free: Any, w_max: Any, k: Any) -> Any:
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
def _reconstruct(t: Any, u: Any, road: Any, stride: Any, first: Any, scheme: Any, slack: Any, k: Any) -> None:
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
            c = first_order(load(u, q + 2 * stride), load(u, q + 3 * stride), k.v_free_c, k.w_max_c, k)
            c_m = load(road, PROFILE_C_M * stride + q)
            c_c = load(road, PROFILE_C_C * stride + q)
            _put_faces(t, i, (m[0], m[1], c[0], c[1]), (m[2], m[3], c[2], c[3]), c_m, c_c, k)


@inner
def fluxes(
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


@inner
def update(u: Any, u0: Any, out: Any, flux: Any, stride: Any, n: Any, share: Any, dtdx: Any, k: Any) -> None:
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


@inner
def entry(
    u: Any, flux: Any, road: Any, demand_m: Any, demand_c: Any, stride: Any, dxdt: Any,
    slack: Any, k: Any,
) -> None:  # fmt: skip
    """Set the fluxes into the first cell: the demand, cut to what the cell can take."""
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
    store(flux, q, f_m)
    store(flux, stride + q, f_m * least(ve_m + p_m, k.w_max_m))
    store(flux, 2 * stride + q, f_c)
    store(flux, 3 * stride + q, f_c * least(ve_c + p_c, k.w_max_c))


@inner
def source(u: Any, road: Any, before: Any, stride: Any, n: Any, decay_m: Any, decay_c: Any, k: Any) -> Any:
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


@inner
def top_speed(u: Any, road: Any, stride: Any, n: Any, k: Any) -> Any:
    """Largest |lambda| over the cells."""
    t = carray(stack_pointer(TILE, k.zero), (TILE,))
    for i in range(TILE):
        store(t, i, k.zero)
    first = NUM_GHOST
    while first < NUM_GHOST + n:
        for i in range(TILE):
            q = first + i
            m = first_order(load(u, q), load(u, q + stride), k.v_free_m, k.w_max_m, k)
            c = first_order(load(u, q + 2 * stride), load(u, q + 3 * stride), k.v_free_c, k.w_max_c, k)
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

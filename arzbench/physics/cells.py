"""Compiled loops over the cells of one road.

Cells go through loops of `TILE`, whose results stay on the stack until all are done: what a
loop reads it cannot have written, which is what LLVM needs to know to use full vectors.
Arrays are flat: field f of cell q is at `f * stride + q`, with ghosts on both sides.
"""

from typing import Any

from numba import njit

from arzbench.physics.memory import carray, load, stack_pointer, store
from arzbench.physics.model import FASTMATH, face_fluxes, face_speeds, greatest, relax_cell, scalar
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
inlined = njit(fastmath=FASTMATH, error_model="numpy", nogil=True, forceinline=True)

# Scratch of `fluxes`: face states of up to BLOCK cells, then fluxes of one tile. They are written
# for a whole block before they are read: a load one cell off a store still in flight stalls.
# A row of right faces starts with the value carried over from the block before, which is the
# state on the left of the block's first face.
_BLOCK = 8 * TILE
_R = _BLOCK + 1
_RHO_M, _W_M, _V_M, _RHO_C, _W_C, _V_C, _LAM = range(7)
_LEFT_ROWS = 7 * _R  # rho_m, v_m, rho_c, v_c, lam at left faces
_FLUX_ROWS = _LEFT_ROWS + 5 * _BLOCK
_HIT_ROW = _FLUX_ROWS + 4 * TILE
_SPEED_ROW = _HIT_ROW + TILE
_FLUXES_SCRATCH = _SPEED_ROW + TILE

# Rows of the scratch of `source`: two of results, then sums.
_Y_M, _Y_C, _SLOW, _LATE, _STOOD, _NEWLY, _BAD, _OVER = (row * TILE for row in range(8))
_SOURCE_SCRATCH = 8 * TILE
_UPDATE_SCRATCH = 2 * TILE


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


@inlined
def _put_faces(t: Any, i: Any, left: Any, right: Any, m: Any, c: Any, k: Any) -> None:
    """Store the states at both faces of the block's cell i: `left`, `right` are (rho_m, w_m, rho_c, w_c)."""
    v_m, v_c, lam = face_speeds(left[0], left[1], left[2], left[3], m, c, k)
    store(t, _LEFT_ROWS + i, left[0])
    store(t, _LEFT_ROWS + _BLOCK + i, v_m)
    store(t, _LEFT_ROWS + 2 * _BLOCK + i, left[2])
    store(t, _LEFT_ROWS + 3 * _BLOCK + i, v_c)
    store(t, _LEFT_ROWS + 4 * _BLOCK + i, lam)
    v_m, v_c, lam = face_speeds(right[0], right[1], right[2], right[3], m, c, k)
    store(t, _RHO_M * _R + 1 + i, right[0])
    store(t, _W_M * _R + 1 + i, right[1])
    store(t, _V_M * _R + 1 + i, v_m)
    store(t, _RHO_C * _R + 1 + i, right[2])
    store(t, _W_C * _R + 1 + i, right[3])
    store(t, _V_C * _R + 1 + i, v_c)
    store(t, _LAM * _R + 1 + i, lam)


@inlined
def _weno5_class(u: Any, a: Any, b: Any, rho_max: Any, w_free: Any, w_max: Any, k: Any) -> Any:
    """WENO5 of the class whose rho is at index `a` of u and y at index `b`."""
    return weno5(
        load(u, a - 2), load(u, a - 1), load(u, a), load(u, a + 1), load(u, a + 2),
        load(u, b - 2), load(u, b - 1), load(u, b), load(u, b + 1), load(u, b + 2),
        rho_max, w_free, w_max, k,
    )  # fmt: skip


@inlined
def _muscl_class(u: Any, a: Any, b: Any, w_free: Any, w_max: Any, k: Any) -> Any:
    return muscl(
        load(u, a - 1), load(u, a), load(u, a + 1),
        load(u, b - 1), load(u, b), load(u, b + 1), w_free, w_max, k,
    )  # fmt: skip


@inlined
def _reconstruct(
    t: Any, u: Any, road: Any, stride: Any, first: Any, place: Any, scheme: Any, slack: Any, k: Any
) -> None:
    """Face states of the TILE cells from index `first` on, put at `place` in the block."""
    if scheme == _WENO5:
        for i in range(TILE):
            q = first + i
            top = load(road, PROFILE_JAM * stride + q) + slack
            a, b = q + 2 * stride, q + 3 * stride
            m = _weno5_class(u, q, q + stride, top, k.v_free_m, k.w_max_m, k)
            c = _weno5_class(u, a, b, top, k.v_free_c, k.w_max_c, k)
            c_m = load(road, PROFILE_C_M * stride + q)
            c_c = load(road, PROFILE_C_C * stride + q)
            _put_faces(t, place + i, (m[0], m[1], c[0], c[1]), (m[2], m[3], c[2], c[3]), c_m, c_c, k)
    elif scheme == _MUSCL:
        for i in range(TILE):
            q = first + i
            m = _muscl_class(u, q, q + stride, k.v_free_m, k.w_max_m, k)
            c = _muscl_class(u, q + 2 * stride, q + 3 * stride, k.v_free_c, k.w_max_c, k)
            c_m = load(road, PROFILE_C_M * stride + q)
            c_c = load(road, PROFILE_C_C * stride + q)
            _put_faces(t, place + i, (m[0], m[1], c[0], c[1]), (m[2], m[3], c[2], c[3]), c_m, c_c, k)
    else:
        for i in range(TILE):
            q = first + i
            m = first_order(load(u, q), load(u, q + stride), k.v_free_m, k.w_max_m, k)
            c = first_order(load(u, q + 2 * stride), load(u, q + 3 * stride), k.v_free_c, k.w_max_c, k)
            c_m = load(road, PROFILE_C_M * stride + q)
            c_c = load(road, PROFILE_C_C * stride + q)
            _put_faces(t, place + i, (m[0], m[1], c[0], c[1]), (m[2], m[3], c[2], c[3]), c_m, c_c, k)


@inlined
def _tile_fluxes(
    t: Any, u: Any, road: Any, stride: Any, n: Any, first: Any, place: Any, dxdt: Any, slack: Any, k: Any
) -> None:
    """Fluxes at the left faces of the TILE cells from index `first` on, `place` in the block."""
    for i in range(TILE):
        q, j = first + i, place + i
        left = (
            load(t, _RHO_M * _R + j), load(t, _W_M * _R + j), load(t, _V_M * _R + j),
            load(t, _RHO_C * _R + j), load(t, _W_C * _R + j), load(t, _V_C * _R + j),
            load(t, _LAM * _R + j),
        )  # fmt: skip
        right = (
            load(t, _LEFT_ROWS + j), load(t, _LEFT_ROWS + _BLOCK + j),
            load(t, _LEFT_ROWS + 2 * _BLOCK + j), load(t, _LEFT_ROWS + 3 * _BLOCK + j),
            load(t, _LEFT_ROWS + 4 * _BLOCK + j),
        )  # fmt: skip
        donor = (
            load(u, q - 1), load(u, q + stride - 1), load(u, q + 2 * stride - 1),
            load(u, q + 3 * stride - 1),
        )  # fmt: skip
        receiver = load(u, q), load(u, q + 2 * stride), load(road, PROFILE_JAM * stride + q)
        f_m, y_m, f_c, y_c, cut, speed = face_fluxes(left, right, donor, receiver, dxdt, slack, k)
        store(t, _FLUX_ROWS + i, f_m)
        store(t, _FLUX_ROWS + TILE + i, y_m)
        store(t, _FLUX_ROWS + 2 * TILE + i, f_c)
        store(t, _FLUX_ROWS + 3 * TILE + i, y_c)
        real = (q >= NUM_GHOST) & (q <= NUM_GHOST + n)  # a tile reaches past the road
        hit = load(t, _HIT_ROW + i)
        store(t, _HIT_ROW + i, hit + k.one if real & (cut > k.v_min) else hit)
        store(t, _SPEED_ROW + i, greatest(load(t, _SPEED_ROW + i), speed if real else k.zero))


@inner
def fluxes(
    u: Any, flux: Any, road: Any, stride: Any, n: Any, scheme: Any, dxdt: Any, slack: Any, k: Any
) -> Any:
    """Fluxes at the left face of each cell; returns (limited faces, largest wave speed)."""
    t = carray(stack_pointer(_FLUXES_SCRATCH, k.zero), (_FLUXES_SCRATCH,))
    for row in range(7):
        store(t, row * _R, k.zero)
    for i in range(2 * TILE):
        store(t, _HIT_ROW + i, k.zero)
    first = NUM_GHOST - 1
    while first < NUM_GHOST + n + 1:
        size = TILE * min(_BLOCK // TILE, (NUM_GHOST + n - first) // TILE + 1)
        for place in range(0, size, TILE):
            _reconstruct(t, u, road, stride, first + place, place, scheme, slack, k)
        for place in range(0, size, TILE):
            _tile_fluxes(t, u, road, stride, n, first + place, place, dxdt, slack, k)
            for field in range(FIELDS):
                for i in range(TILE):
                    q = field * stride + first + place + i
                    store(flux, q, load(t, _FLUX_ROWS + field * TILE + i))
        for row in range(7):
            store(t, row * _R, load(t, row * _R + size))
        first += size
    limited, speed = k.zero, k.zero
    for i in range(TILE):
        limited += load(t, _HIT_ROW + i)
        speed = greatest(speed, load(t, _SPEED_ROW + i))
    return limited, speed


@scalar
def increment(base: Any, now: Any, flux: Any, flux_next: Any, share: Any, dtdx: Any) -> Any:
    """A field of a cell after one Runge-Kutta stage in increment form."""
    return base + share * ((now - base) + dtdx * (flux - flux_next))


@inner
def update(u: Any, u0: Any, out: Any, flux: Any, stride: Any, n: Any, share: Any, dtdx: Any, k: Any) -> None:
    """One Runge-Kutta stage in increment form: `out = u0 + share (u + dt L(u) - u0)`."""
    t = carray(stack_pointer(_UPDATE_SCRATCH, k.zero), (_UPDATE_SCRATCH,))
    for field in range(FIELDS):
        first, last = field * stride + NUM_GHOST, field * stride + NUM_GHOST + n
        while first < last:
            for i in range(2 * TILE):
                q = first + i
                new = increment(load(u0, q), load(u, q), load(flux, q), load(flux, q + 1), share, dtdx)
                store(t, i, new)
            if last - first >= 2 * TILE:
                for i in range(2 * TILE):
                    store(out, first + i, load(t, i))
            else:
                for i in range(last - first):
                    store(out, first + i, load(t, i))
            first += 2 * TILE


@inlined
def _relax_tile(
    t: Any, u: Any, road: Any, before: Any, stride: Any, first: Any, decay_m: Any, decay_c: Any, k: Any
) -> None:
    """Relaxed y of the TILE cells from index `first` on, and what is measured there."""
    for i in range(TILE):
        q = first + i
        y_m, y_c, slow, newly, late, bad, over = relax_cell(
            load(u, q), load(u, q + stride), load(u, q + 2 * stride), load(u, q + 3 * stride),
            load(before, q), load(road, PROFILE_C_M * stride + q),
            load(road, PROFILE_C_C * stride + q), load(road, PROFILE_INV_JAM * stride + q),
            load(road, PROFILE_LIMIT * stride + q), decay_m, decay_c, k,
        )  # fmt: skip
        store(t, _Y_M + i, y_m)
        store(t, _Y_C + i, y_c)
        store(t, _SLOW + i, slow)
        store(t, _LATE + i, load(t, _LATE + i) + late)
        store(t, _STOOD + i, load(t, _STOOD + i) + slow)
        store(t, _NEWLY + i, load(t, _NEWLY + i) + newly)
        store(t, _BAD + i, load(t, _BAD + i) + bad)
        store(t, _OVER + i, load(t, _OVER + i) + over)


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
        _relax_tile(t, u, road, before, stride, first, decay_m, decay_c, k)
        for i in range(TILE):
            store(u, stride + first + i, load(t, _Y_M + i))
        for i in range(TILE):
            store(u, 3 * stride + first + i, load(t, _Y_C + i))
        for i in range(TILE):
            store(before, first + i, load(t, _SLOW + i))
        first += TILE
    late, stood, newly, bad, over = k.zero, k.zero, k.zero, k.zero, k.zero
    for i in range(TILE):
        late += load(t, _LATE + i)
        stood += load(t, _STOOD + i)
        newly += load(t, _NEWLY + i)
        bad += load(t, _BAD + i)
        over += load(t, _OVER + i)
    return late, stood, newly, bad, over


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

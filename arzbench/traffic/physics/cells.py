"""Compiled passes over the cells of one road, a pack of cells at a time, and its boundaries.

Arrays are flat: field f of cell q is at `f * stride + q`, with ghosts on both sides, and so is the flux
of it out of cell q. Packs begin at the last ghost before the road, which is aligned, and go past the
last cell, into ghosts and padding: what a pass makes there is never used.
"""

from typing import Any

from numba import njit

from arzbench.traffic.physics.junction import beyond, enter, merge
from arzbench.traffic.physics.memory import load, store
from arzbench.traffic.physics.model import (
    FASTMATH,
    choose,
    face_fluxes,
    face_speeds,
    greatest,
    relax_cell,
    scalar,
)
from arzbench.traffic.physics.reconstruction import bounded, first_order, muscl, weno5_values
from arzbench.traffic.physics.scenario import (
    FIELDS,
    NUM_GHOST,
    PROFILE_C_C,
    PROFILE_C_M,
    PROFILE_INV_JAM,
    PROFILE_JAM,
    PROFILE_LIMIT,
    SCHEMES,
)
from arzbench.traffic.physics.simd import lanes, largest, load_pack, spread, store_pack, total, within

_MUSCL, _WENO5 = SCHEMES["muscl"], SCHEMES["weno5"]
# All in one function: a call would hand over the constants one by one, on the stack, at each pass.
inlined = njit(fastmath=FASTMATH, error_model="numpy", nogil=True, forceinline=True)

# Rows of face states: of a class at the left face of each cell, then at the right one; speeds.
_LEFT_RHO_M, _LEFT_W_M, _RHO_M, _W_M, _LEFT_RHO_C, _LEFT_W_C, _RHO_C, _W_C = range(8)
_LEFT_V_M, _LEFT_V_C, _LEFT_LAM, _V_M, _V_C, _LAM = range(8, 14)
FACE_ROWS = 14


@njit(nogil=True)
def copy_rows(source: Any, target: Any, rows: Any, stride: Any, target_stride: Any) -> None:
    """Copy rows of whole packs, as far as both go."""
    for row in range(rows):
        for q in range(0, min(stride, target_stride), lanes(source[0])):
            store_pack(target, row * target_stride + q, load_pack(source, row * stride + q))


@inlined
def fill_ghosts(u: Any, stride: Any, n: Any) -> None:
    """Zero-gradient ghosts: free outflow; at the entry the flux is set apart."""
    for field in range(FIELDS):
        row = field * stride
        for g in range(NUM_GHOST):
            store(u, row + g, load(u, row + NUM_GHOST))
            store(u, row + NUM_GHOST + n + g, load(u, row + NUM_GHOST + n - 1))


@inlined
def _weno5_faces(
    u: Any, faces: Any, values: Any, road: Any, stride: Any, n: Any, row: Any, w_free: Any, w_max: Any,
    slack: Any, k: Any,
) -> None:  # fmt: skip
    """Face states of the class in rows `row` and `row + 1` of u.

    In two passes, four rows of `values` between them: the chain of operations that wait for each
    other would be too long for a core to have enough of them under way.
    """
    a, b, to = row * stride, (row + 1) * stride, 2 * row * stride
    for q in range(NUM_GHOST - 1, NUM_GHOST + n + 1, lanes(k.zero)):
        states = weno5_values(
            load_pack(u, a + q - 2), load_pack(u, a + q - 1), load_pack(u, a + q),
            load_pack(u, a + q + 1), load_pack(u, a + q + 2), load_pack(u, b + q - 2),
            load_pack(u, b + q - 1), load_pack(u, b + q), load_pack(u, b + q + 1),
            load_pack(u, b + q + 2), w_free, k,
        )  # fmt: skip
        for i in range(4):
            store_pack(values, i * stride + q, states[i])
    for q in range(NUM_GHOST - 1, NUM_GHOST + n + 1, lanes(k.zero)):
        top = load_pack(road, PROFILE_JAM * stride + q) + slack
        states = bounded(
            load_pack(values, q), load_pack(values, q + stride), load_pack(values, q + 2 * stride),
            load_pack(values, q + 3 * stride), load_pack(u, a + q), load_pack(u, b + q),
            top, w_free, w_max, k,
        )  # fmt: skip
        for i in range(4):
            store_pack(faces, to + i * stride + q, states[i])


@inlined
def _muscl_faces(u: Any, faces: Any, stride: Any, n: Any, row: Any, w_free: Any, w_max: Any, k: Any) -> None:
    a, b, to = row * stride, (row + 1) * stride, 2 * row * stride
    for q in range(NUM_GHOST - 1, NUM_GHOST + n + 1, lanes(k.zero)):
        states = muscl(
            load_pack(u, a + q - 1), load_pack(u, a + q), load_pack(u, a + q + 1),
            load_pack(u, b + q - 1), load_pack(u, b + q), load_pack(u, b + q + 1), w_free, w_max, k,
        )  # fmt: skip
        for i in range(4):
            store_pack(faces, to + i * stride + q, states[i])


@inlined
def _first_order_faces(
    u: Any, faces: Any, stride: Any, n: Any, row: Any, w_free: Any, w_max: Any, k: Any
) -> None:
    a, b, to = row * stride, (row + 1) * stride, 2 * row * stride
    for q in range(NUM_GHOST - 1, NUM_GHOST + n + 1, lanes(k.zero)):
        states = first_order(load_pack(u, a + q), load_pack(u, b + q), w_free, w_max, k)
        for i in range(4):
            store_pack(faces, to + i * stride + q, states[i])


@inlined
def reconstruct(
    u: Any, faces: Any, values: Any, road: Any, stride: Any, n: Any, scheme: Any, slack: Any, k: Any
) -> None:
    """Face states of the cells, and of one ghost on each side; four rows of `values` are overwritten."""
    if scheme == _WENO5:
        _weno5_faces(u, faces, values, road, stride, n, 0, k.v_free_m, k.w_max_m, slack, k)
        _weno5_faces(u, faces, values, road, stride, n, 2, k.v_free_c, k.w_max_c, slack, k)
    elif scheme == _MUSCL:
        _muscl_faces(u, faces, stride, n, 0, k.v_free_m, k.w_max_m, k)
        _muscl_faces(u, faces, stride, n, 2, k.v_free_c, k.w_max_c, k)
    else:
        _first_order_faces(u, faces, stride, n, 0, k.v_free_m, k.w_max_m, k)
        _first_order_faces(u, faces, stride, n, 2, k.v_free_c, k.w_max_c, k)


@inlined
def speeds(faces: Any, road: Any, stride: Any, n: Any, k: Any) -> None:
    """Speeds and smallest eigenvalue of each face state."""
    for q in range(NUM_GHOST - 1, NUM_GHOST + n + 1, lanes(k.zero)):
        c_m, c_c = load_pack(road, PROFILE_C_M * stride + q), load_pack(road, PROFILE_C_C * stride + q)
        for side in range(2):
            row, to = 2 * side, _LEFT_V_M + 3 * side
            v_m, v_c, lam = face_speeds(
                load_pack(faces, (_LEFT_RHO_M + row) * stride + q),
                load_pack(faces, (_LEFT_W_M + row) * stride + q),
                load_pack(faces, (_LEFT_RHO_C + row) * stride + q),
                load_pack(faces, (_LEFT_W_C + row) * stride + q), c_m, c_c, k,
            )  # fmt: skip
            store_pack(faces, to * stride + q, v_m)
            store_pack(faces, (to + 1) * stride + q, v_c)
            store_pack(faces, (to + 2) * stride + q, lam)


@inlined
def fluxes(
    u: Any, faces: Any, flux: Any, road: Any, stride: Any, n: Any, dxdt: Any, slack: Any, k: Any
) -> Any:
    """Fluxes out of each cell, and into the first; returns (limited faces, largest wave speed)."""
    hits, fastest = spread(k.zero), spread(k.zero)
    for p in range(NUM_GHOST - 1, NUM_GHOST + n, lanes(k.zero)):
        q = p + 1
        left = (
            load_pack(faces, _RHO_M * stride + p), load_pack(faces, _W_M * stride + p),
            load_pack(faces, _V_M * stride + p), load_pack(faces, _RHO_C * stride + p),
            load_pack(faces, _W_C * stride + p), load_pack(faces, _V_C * stride + p),
            load_pack(faces, _LAM * stride + p),
        )  # fmt: skip
        right = (
            load_pack(faces, _LEFT_RHO_M * stride + q), load_pack(faces, _LEFT_V_M * stride + q),
            load_pack(faces, _LEFT_RHO_C * stride + q), load_pack(faces, _LEFT_V_C * stride + q),
            load_pack(faces, _LEFT_LAM * stride + q),
        )  # fmt: skip
        donor = (
            load_pack(u, p), load_pack(u, p + stride), load_pack(u, p + 2 * stride),
            load_pack(u, p + 3 * stride),
        )  # fmt: skip
        receiver = load_pack(u, q), load_pack(u, q + 2 * stride), load_pack(road, PROFILE_JAM * stride + q)
        f_m, y_m, f_c, y_c, cut, speed = face_fluxes(left, right, donor, receiver, dxdt, slack, k)
        store_pack(flux, p, f_m)
        store_pack(flux, p + stride, y_m)
        store_pack(flux, p + 2 * stride, f_c)
        store_pack(flux, p + 3 * stride, y_c)
        real = within(q - NUM_GHOST, n + 1, k.zero)
        hits = hits + choose(real & (cut > k.v_min), k.one, k.zero)
        fastest = choose(real, greatest(fastest, speed), fastest)
    return total(hits), largest(fastest)


@scalar
def increment(base: Any, now: Any, inflow: Any, outflow: Any, share: Any, dtdx: Any) -> Any:
    """A field of a cell after one Runge-Kutta stage in increment form."""
    return base + share * ((now - base) + dtdx * (inflow - outflow))


@inlined
def update(u: Any, u0: Any, out: Any, flux: Any, stride: Any, n: Any, share: Any, dtdx: Any, k: Any) -> None:
    """One Runge-Kutta stage: `out = u0 + share (u + dt L(u) - u0)`, zero off the road.

    `out` may be `u` or `u0`.
    """
    for q in range(NUM_GHOST - 1, NUM_GHOST + n, lanes(k.zero)):
        real = within(q - NUM_GHOST, n, k.zero)
        for field in range(FIELDS):
            i = field * stride + q
            new = increment(
                load_pack(u0, i), load_pack(u, i), load_pack(flux, i - 1), load_pack(flux, i), share, dtdx
            )
            store_pack(out, i, choose(real, new, k.zero))


@inlined
def source(u: Any, road: Any, standing: Any, stride: Any, n: Any, decay_m: Any, decay_c: Any, k: Any) -> Any:
    """Relaxation of each cell, and what is measured there.

    Returns sums over cells: delay rate, standing, newly standing, negative cells, overfull cells.
    """
    nothing = spread(k.zero)
    late, stood, newly, bad, over = nothing, nothing, nothing, nothing, nothing
    for q in range(NUM_GHOST - 1, NUM_GHOST + n, lanes(k.zero)):
        real = within(q - NUM_GHOST, n, k.zero)  # nobody is off the road, to be counted
        y_m, y_c, slow, grown, lost, negative, overfull = relax_cell(
            choose(real, load_pack(u, q), k.zero), choose(real, load_pack(u, q + stride), k.zero),
            choose(real, load_pack(u, q + 2 * stride), k.zero),
            choose(real, load_pack(u, q + 3 * stride), k.zero), load_pack(standing, q),
            load_pack(road, PROFILE_C_M * stride + q), load_pack(road, PROFILE_C_C * stride + q),
            load_pack(road, PROFILE_INV_JAM * stride + q), load_pack(road, PROFILE_LIMIT * stride + q),
            decay_m, decay_c, k,
        )  # fmt: skip
        store_pack(u, q + stride, y_m)
        store_pack(u, q + 3 * stride, y_c)
        store_pack(standing, q, slow)
        late, stood, newly = late + lost, stood + slow, newly + grown
        bad, over = bad + negative, over + overfull
    return total(late), total(stood), total(newly), total(bad), total(over)


@inlined
def top_speed(u: Any, road: Any, stride: Any, n: Any, k: Any) -> Any:
    """Largest |lambda| over the cells."""
    fastest = spread(k.zero)
    for q in range(NUM_GHOST - 1, NUM_GHOST + n, lanes(k.zero)):
        a, b = q + 2 * stride, q + 3 * stride
        m = first_order(load_pack(u, q), load_pack(u, q + stride), k.v_free_m, k.w_max_m, k)
        c = first_order(load_pack(u, a), load_pack(u, b), k.v_free_c, k.w_max_c, k)
        v_m, v_c, lam = face_speeds(
            m[0], m[1], c[0], c[1], load_pack(road, PROFILE_C_M * stride + q),
            load_pack(road, PROFILE_C_C * stride + q), k,
        )  # fmt: skip
        speed = greatest(greatest(v_m, v_c), -lam)
        fastest = choose(within(q - NUM_GHOST, n, k.zero), greatest(fastest, speed), fastest)
    return largest(fastest)


@inlined
def _cell(u: Any, road: Any, stride: Any, q: Any) -> Any:
    return (
        load(u, q), load(u, q + 2 * stride),
        load(road, PROFILE_C_M * stride + q), load(road, PROFILE_C_C * stride + q),
        load(road, PROFILE_JAM * stride + q), load(road, PROFILE_INV_JAM * stride + q),
        load(road, PROFILE_LIMIT * stride + q),
    )  # fmt: skip


@inlined
def entering(
    u: Any, road: Any, wish_m: Any, wish_c: Any, stride: Any, q: Any, dxdt: Any, slack: Any, k: Any
) -> Any:
    """Fluxes into the first cell, q."""
    return enter(_cell(u, road, stride, q), wish_m, wish_c, dxdt, slack, k)


@inlined
def set_exit(u: Any, road: Any, stride: Any, n: Any, k: Any) -> None:
    """Set the ghosts past the exit: free traffic."""
    q = NUM_GHOST + n - 1
    share = beyond(load(u, q), load(u, q + 2 * stride), load(road, PROFILE_INV_JAM * stride + q), k)
    for field in range(FIELDS):
        value = share * load(u, field * stride + q)
        for g in range(NUM_GHOST):
            store(u, field * stride + q + 1 + g, value)


@inlined
def set_merge(
    u: Any, flux: Any, road: Any, wish_m: Any, wish_c: Any, rate: Any, stride: Any, q: Any,
    dxdt: Any, slack: Any, k: Any,
) -> Any:  # fmt: skip
    """Set the mainline's fluxes into cell q and return the on-ramp's."""
    p = q - 1
    main = load(flux, p), load(flux, p + stride), load(flux, p + 2 * stride), load(flux, p + 3 * stride)
    f = merge(_cell(u, road, stride, q), main, wish_m, wish_c, rate, dxdt, slack, k)
    for field in range(FIELDS):
        store(flux, field * stride + p, f[field])
    return f[4], f[5], f[6], f[7]


@inlined
def add_to_cell(out: Any, q: Any, stride: Any, amounts: Any) -> None:
    """Add four amounts to the fields of cell q."""
    for field in range(FIELDS):
        store(out, field * stride + q, load(out, field * stride + q) + amounts[field])

"""The kernel of the CUDA engine: a block for each road, a thread for each cell.

The road lives in shared memory for all substeps and stages of a decision. Thread i has the cell
of number i - 1, its two ghosts next to the road included; thread 0 has the boundaries. The
arithmetic is in the scalar functions that the CPU engine uses.
"""

from functools import lru_cache
from typing import Any

from numba import cuda

from arzbench.physics.junction import enter, merge
from arzbench.physics.model import face_fluxes, face_speeds, relax_cell
from arzbench.physics.reconstruction import first_order, muscl, weno5
from arzbench.physics.scenario import (
    ARRIVED,
    CFL_EXCEEDED,
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
    RAMP_C,
    RAMP_M,
    REFINED,
    SCHEMES,
    STANDING,
    STOPS,
)

_MUSCL, _WENO5 = SCHEMES["muscl"], SCHEMES["weno5"]
_RHO_M, _Y_M, _RHO_C, _Y_C = range(FIELDS)
_WARP = 32

device = cuda.jit(device=True)


@device
def _class_faces(e: Any, rho: int, q: Any, top: Any, w_free: Any, w_max: Any, scheme: int, k: Any) -> Any:
    """Reconstruction of the class in rows `rho` and `rho + 1` of e, in cell q."""
    y = rho + 1
    if scheme == _WENO5:
        return weno5(
            e[rho, q - 2], e[rho, q - 1], e[rho, q], e[rho, q + 1], e[rho, q + 2],
            e[y, q - 2], e[y, q - 1], e[y, q], e[y, q + 1], e[y, q + 2], top, w_free, w_max, k,
        )  # fmt: skip
    if scheme == _MUSCL:
        return muscl(
            e[rho, q - 1], e[rho, q], e[rho, q + 1], e[y, q - 1], e[y, q], e[y, q + 1], w_free, w_max, k
        )
    return first_order(e[rho, q], e[y, q], w_free, w_max, k)


@device
def _faces(e: Any, road: Any, right: Any, i: Any, q: Any, scheme: int, slack: Any, k: Any) -> Any:
    """Face states of cell q: the right one goes to `right[:, i]`, the left one is returned."""
    top = road[PROFILE_JAM, q] + slack
    m = _class_faces(e, _RHO_M, q, top, k.v_free_m, k.w_max_m, scheme, k)
    c = _class_faces(e, _RHO_C, q, top, k.v_free_c, k.w_max_c, scheme, k)
    c_m, c_c = road[PROFILE_C_M, q], road[PROFILE_C_C, q]
    v_m, v_c, lam = face_speeds(m[2], m[3], c[2], c[3], c_m, c_c, k)
    right[0, i], right[1, i], right[2, i] = m[2], m[3], v_m
    right[3, i], right[4, i], right[5, i] = c[2], c[3], v_c
    right[6, i] = lam
    v_m, v_c, lam = face_speeds(m[0], m[1], c[0], c[1], c_m, c_c, k)
    return m[0], v_m, c[0], v_c, lam


@device
def _flux(
    e: Any, road: Any, right: Any, flux: Any, i: Any, q: Any, ours: Any, dxdt: Any, slack: Any, k: Any
) -> Any:
    """Fluxes at the left face of cell q, to `flux[:, i - 1]`; returns (what limits cut, speed)."""
    j = i - 1
    theirs = (
        right[0, j], right[1, j], right[2, j], right[3, j], right[4, j], right[5, j], right[6, j],
    )  # fmt: skip
    donor = e[_RHO_M, q - 1], e[_Y_M, q - 1], e[_RHO_C, q - 1], e[_Y_C, q - 1]
    receiver = e[_RHO_M, q], e[_RHO_C, q], road[PROFILE_JAM, q]
    f_m, y_m, f_c, y_c, cut, speed = face_fluxes(theirs, ours, donor, receiver, dxdt, slack, k)
    flux[_RHO_M, j], flux[_Y_M, j], flux[_RHO_C, j], flux[_Y_C, j] = f_m, y_m, f_c, y_c
    return cut, speed


@device
def _cell(e: Any, road: Any, q: Any) -> Any:
    return (
        e[_RHO_M, q], e[_RHO_C, q], road[PROFILE_C_M, q], road[PROFILE_C_C, q],
        road[PROFILE_JAM, q], road[PROFILE_INV_JAM, q], road[PROFILE_LIMIT, q],
    )  # fmt: skip


@device
def _boundaries(
    e: Any, road: Any, flux: Any, ramp_flux: Any, total: Any, wish: Any, places: Any, closed: Any,
    rate: Any, duration: Any, dxdt: Any, slack: Any, k: Any,
) -> None:  # fmt: skip
    """Entry, stop line and on-ramp, with their vehicles booked; one thread does this."""
    n, stop, ramp = places
    f = enter(_cell(e, road, NUM_GHOST), wish[0], wish[1], dxdt, slack, k)
    for field in range(FIELDS):
        flux[field, 0] = f[field]
        if closed:
            flux[field, stop] = k.zero
    if ramp >= 0:
        main = flux[_RHO_M, ramp], flux[_Y_M, ramp], flux[_RHO_C, ramp], flux[_Y_C, ramp]
        g = merge(_cell(e, road, NUM_GHOST + ramp), main, wish[2], wish[3], rate, dxdt, slack, k)
        for field in range(FIELDS):
            flux[field, ramp] = g[field]
            ramp_flux[field] = g[FIELDS + field]
        total[RAMP_M] -= duration * ramp_flux[_RHO_M]
        total[RAMP_C] -= duration * ramp_flux[_RHO_C]
    total[QUEUE_M] -= duration * flux[_RHO_M, 0]
    total[QUEUE_C] -= duration * flux[_RHO_C, 0]
    if stop >= 0:
        total[CROSSED] += duration * (flux[_RHO_M, stop] + flux[_RHO_C, stop])
    total[LEFT] += duration * (flux[_RHO_M, n] + flux[_RHO_C, n])


@device
def _update(
    e: Any, flux: Any, ramp_flux: Any, base: Any, i: Any, q: Any, ramp: Any, share: Any, dtdx: Any, k: Any
) -> None:
    """One stage for cell q, whose number is i - 1."""
    j = i - 1
    for field in range(FIELDS):
        gain = dtdx * (flux[field, j] - flux[field, j + 1])
        new = base[field] + share * ((e[field, q] - base[field]) + gain)
        if j == ramp:
            new += (share * dtdx) * ramp_flux[field]
        e[field, q] = new


@device
def _fill_ghosts(e: Any, i: Any, n: Any) -> None:
    if i < NUM_GHOST:
        for field in range(FIELDS):
            e[field, i] = e[field, NUM_GHOST]
            e[field, NUM_GHOST + n + i] = e[field, NUM_GHOST + n - 1]


@device
def _substep(
    e: Any, right: Any, flux: Any, ramp_flux: Any, road: Any, total: Any, count: Any, wish: Any,
    places: Any, closed: Any, rate: Any, scheme: int, weights: Any, shares: Any, dt: Any, dx: Any,
    slack: Any, k: Any,
) -> Any:  # fmt: skip
    """Transport over dt; returns at how many of this thread's faces a limit acted."""
    i = cuda.threadIdx.x
    n, _, ramp = places
    q = i + NUM_GHOST - 1
    dtdx, dxdt = dt / dx, dx / dt
    inside = i >= 1 and i <= n
    base = (k.zero, k.zero, k.zero, k.zero)
    if inside:
        base = (e[_RHO_M, q], e[_Y_M, q], e[_RHO_C, q], e[_Y_C, q])
    hits = k.zero
    for stage in range(1 + scheme):
        _fill_ghosts(e, i, n)
        cuda.syncthreads()
        ours = (k.zero, k.zero, k.zero, k.zero, k.zero)
        if i <= n + 1:
            ours = _faces(e, road, right, i, q, scheme, slack, k)
        cuda.syncthreads()
        cut, speed = k.zero, k.zero
        if i >= 1 and i <= n + 1:
            cut, speed = _flux(e, road, right, flux, i, q, ours, dxdt, slack, k)
        if cut > k.v_min:
            hits += k.one
        fast = cuda.syncthreads_or(1 if speed * dtdx > k.over else 0)
        if i == 0:
            if fast:
                count[CFL_EXCEEDED] += 1
            duration = weights[stage] * dt
            _boundaries(e, road, flux, ramp_flux, total, wish, places, closed, rate, duration, dxdt, slack, k)
        cuda.syncthreads()
        if inside:
            _update(e, flux, ramp_flux, base, i, q, ramp, shares[stage], dtdx, k)
        cuda.syncthreads()
    return hits


@device
def _parts(e: Any, road: Any, scratch: Any, n: Any, dt: Any, dx: Any, cfl: Any, k: Any) -> Any:
    """Parts a substep must be divided into to keep `cfl` with the speeds there are now."""
    i = cuda.threadIdx.x
    if i >= 1 and i <= n:
        q = i + NUM_GHOST - 1
        m = first_order(e[_RHO_M, q], e[_Y_M, q], k.v_free_m, k.w_max_m, k)
        c = first_order(e[_RHO_C, q], e[_Y_C, q], k.v_free_c, k.w_max_c, k)
        v_m, v_c, lam = face_speeds(m[0], m[1], c[0], c[1], road[PROFILE_C_M, q], road[PROFILE_C_C, q], k)
        scratch[i] = max(max(v_m, v_c), -lam)
    cuda.syncthreads()
    top = k.zero
    for j in range(1, n + 1):
        top = max(top, scratch[j])
    cuda.syncthreads()
    number = top * dt / dx
    parts = k.one
    while parts * cfl < number:
        parts += k.one
    return parts


@device
def _arrive(total: Any, arrivals: Any, dt: Any) -> None:
    for origin in range(4):
        total[QUEUE_M + origin] += arrivals[origin] * dt
        total[ARRIVED] += arrivals[origin] * dt


@device
def _transport(
    shared: Any, road: Any, total: Any, count: Any, arrivals: Any, places: Any, closed: Any,
    rate: Any, scheme: int, weights: Any, shares: Any, dt: Any, dx: Any, cfl: Any, slack: Any, k: Any,
) -> Any:  # fmt: skip
    """Transport over dt, divided into parts where a soft set needs it; returns limited faces."""
    e, right, flux, ramp_flux, sums = shared
    i = cuda.threadIdx.x
    parts = k.one
    if slack > k.zero:
        parts = _parts(e, road, sums[0], places[0], dt, dx, cfl, k)
    part, done, hits = dt / parts, k.zero, k.zero
    while done < parts:
        wish = (
            total[QUEUE_M] / part + arrivals[0], total[QUEUE_C] / part + arrivals[1],
            total[RAMP_M] / part + arrivals[2], total[RAMP_C] / part + arrivals[3],
        )  # fmt: skip
        cuda.syncthreads()
        hits += _substep(
            e, right, flux, ramp_flux, road, total, count, wish, places, closed, rate, scheme,
            weights, shares, part, dx, slack, k,
        )  # fmt: skip
        if i == 0:
            _arrive(total, arrivals, part)
        cuda.syncthreads()
        done += k.one
    if i == 0 and parts > k.one:
        count[REFINED] += 1
    return hits


@device
def _relax(e: Any, road: Any, before: Any, q: Any, decay_m: Any, decay_c: Any, k: Any) -> Any:
    """Relax cell q; returns (standing, newly standing, time lost, negative, overfull)."""
    y_m, y_c, slow, newly, late, bad, over = relax_cell(
        e[_RHO_M, q], e[_Y_M, q], e[_RHO_C, q], e[_Y_C, q], before, road[PROFILE_C_M, q],
        road[PROFILE_C_C, q], road[PROFILE_INV_JAM, q], road[PROFILE_LIMIT, q], decay_m, decay_c, k,
    )  # fmt: skip
    e[_Y_M, q], e[_Y_C, q] = y_m, y_c
    return slow, newly, late, bad, over


@device
def _sum_up(sums: Any, total: Any, count: Any, threads: Any, dx: Any, k: Any) -> None:
    """Add up what the threads measured: standing, newly standing, time lost, then counts."""
    stood, newly, late, bad, over, hits = k.zero, k.zero, k.zero, k.zero, k.zero, k.zero
    for j in range(threads):
        stood += sums[0, j]
        newly += sums[1, j]
        late += sums[2, j]
        bad += sums[3, j]
        over += sums[4, j]
        hits += sums[5, j]
    total[STANDING] = stood * dx
    total[STOPS] += newly * dx
    total[DELAY] += late * dx
    count[NEGATIVE] += int(bad)
    count[OVERFULL] += int(over)
    count[LIMITED] += int(hits)


@lru_cache(maxsize=32)
def kernel(real: Any, n: int, scheme: int) -> tuple[Any, int]:
    """Return the kernel for a type, a number of cells and a scheme, and its threads in a block."""
    width, cells, faces = n + 2 * NUM_GHOST, n + 2, n + 1  # shapes must be constants to the compiler
    threads = -(-width // _WARP) * _WARP

    @cuda.jit
    def advance(
        u: Any, standing: Any, totals: Any, counts: Any, profile: Any, demand: Any, red: Any,
        rates: Any, places: Any, substeps: Any, dt: Any, dx: Any, cfl: Any, slack: Any, decay: Any,
        weights: Any, shares: Any, k: Any,
    ) -> None:  # fmt: skip
        e = cuda.shared.array((FIELDS, width), real)
        right = cuda.shared.array((7, cells), real)
        flux = cuda.shared.array((FIELDS, faces), real)
        ramp_flux = cuda.shared.array(FIELDS, real)
        sums = cuda.shared.array((6, threads), real)
        b, i = cuda.blockIdx.x, cuda.threadIdx.x
        q = i + NUM_GHOST - 1
        inside = i >= 1 and i <= n
        road, total, count = profile[b], totals[b], counts[b]
        if i < width:
            for field in range(FIELDS):
                e[field, i] = u[b, field, i]
        cuda.syncthreads()
        slow, newly, late, bad, over, hits = k.zero, k.zero, k.zero, k.zero, k.zero, k.zero
        if inside:
            slow, newly, _, _, _ = _relax(e, road, standing[b, q], q, decay[0], decay[1], k)
        for s in range(substeps):
            cuda.syncthreads()
            hits += _transport(
                (e, right, flux, ramp_flux, sums), road, total, count, demand[b], places, s < red[b],
                rates[b], scheme, weights, shares, dt, dx, cfl, slack, k,
            )  # fmt: skip
            last = 0 if s == substeps - 1 else 2
            if inside:
                slow, more, lost, wrong, full = _relax(e, road, slow, q, decay[last], decay[last + 1], k)
                newly, late, bad, over = newly + more, late + lost * dt, bad + wrong, over + full
            if i == 0:
                total[DELAY] += dt * (total[QUEUE_M] + total[QUEUE_C] + total[RAMP_M] + total[RAMP_C])
        if inside:
            standing[b, q] = slow
            for field in range(FIELDS):
                u[b, field, q] = e[field, q]
        cuda.syncthreads()
        sums[0, i], sums[1, i], sums[2, i] = slow, newly, late
        sums[3, i], sums[4, i], sums[5, i] = bad, over, hits
        cuda.syncthreads()
        if i == 0:
            _sum_up(sums, total, count, threads, dx, k)

    return advance, threads

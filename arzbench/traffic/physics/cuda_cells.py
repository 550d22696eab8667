"""Device functions of the CUDA kernel for one road: faces, fluxes, boundaries, stages, relaxation, reports.

A road's arrays are in shared memory. Thread i of a road has cell `q = i + NUM_GHOST - 1`. The
arithmetic is in the scalar functions that the CPU engine uses; accounts, rewards and observations
are those that `detectors` writes on the CPU.
"""

from typing import Any

from numba import cuda

from arzbench.traffic.physics.detectors import ACCOUNTS, SEGMENTS, see
from arzbench.traffic.physics.junction import beyond, enter, merge
from arzbench.traffic.physics.model import face_fluxes, face_speeds, relax_cell
from arzbench.traffic.physics.reconstruction import first_order, muscl, weno5
from arzbench.traffic.physics.scenario import (
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
    RAMP_C,
    RAMP_M,
    SCHEMES,
    STANDING,
    STOPS,
    TOTALS,
)

_MUSCL, _WENO5 = SCHEMES["muscl"], SCHEMES["weno5"]
_RHO_M, _Y_M, _RHO_C, _Y_C = range(FIELDS)

# Columns of what the kernel reports of an environment: ACCOUNTS, then the reward.
REWARD = len(ACCOUNTS)
REPORT = REWARD + 1
_BEFORE = REWARD  # of a road's account: its queue when the decision began

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
def faces_of(e: Any, road: Any, right: Any, i: Any, q: Any, scheme: int, slack: Any, k: Any) -> Any:
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
def set_flux(
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
def set_boundaries(
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
def update_cell(
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
def fill_ghosts(e: Any, road: Any, i: Any, n: Any, k: Any) -> None:
    """Copy the first cell to the ghosts before the road, and set those past its exit."""
    if i < NUM_GHOST:
        last = NUM_GHOST + n - 1
        share = beyond(e[_RHO_M, last], e[_RHO_C, last], road[PROFILE_INV_JAM, last], k)
        for field in range(FIELDS):
            e[field, i] = e[field, NUM_GHOST]
            e[field, last + 1 + i] = share * e[field, last]


@device
def relax_at(e: Any, road: Any, before: Any, q: Any, decay_m: Any, decay_c: Any, k: Any) -> Any:
    """Relax cell q; returns (standing, newly standing, time lost, negative, overfull)."""
    y_m, y_c, slow, newly, late, bad, over = relax_cell(
        e[_RHO_M, q], e[_Y_M, q], e[_RHO_C, q], e[_Y_C, q], before, road[PROFILE_C_M, q],
        road[PROFILE_C_C, q], road[PROFILE_INV_JAM, q], road[PROFILE_LIMIT, q], decay_m, decay_c, k,
    )  # fmt: skip
    e[_Y_M, q], e[_Y_C, q] = y_m, y_c
    return slow, newly, late, bad, over


@device
def safe_parts(e: Any, road: Any, scratch: Any, i: Any, n: Any, dt: Any, dx: Any, cfl: Any, k: Any) -> Any:
    """Parts a substep must be divided into to keep `cfl` with the speeds there are now."""
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
def queue_of(total: Any) -> Any:
    """Vehicles standing on a road or waiting at its origins."""
    queue = total[STANDING]
    for origin in range(RAMP_C + 1):
        queue += total[origin]
    return queue


@device
def book(sums: Any, total: Any, count: Any, account: Any, gone: Any, dx: Any) -> None:
    """Add what the threads measured to a road's totals, and make its account; one thread does this."""
    total[STANDING] = sums[0, 0] * dx
    total[STOPS] += sums[1, 0] * dx
    total[DELAY] += sums[2, 0] * dx
    count[NEGATIVE] += int(sums[3, 0])
    count[OVERFULL] += int(sums[4, 0])
    count[LIMITED] += int(sums[5, 0])
    account[0], account[1], account[2], account[3] = total[gone], queue_of(total), total[DELAY], total[STOPS]


@device
def keep(total: Any, count: Any, totals: Any, counts: Any, i: Any) -> None:
    """Store a road's totals: levels as they are, sums added to those of the decisions before."""
    if i < TOTALS:
        if i <= RAMP_C or i == STANDING:
            totals[i] = total[i]
        else:
            totals[i] += total[i]
    if i < len(COUNTERS):
        counts[i] += count[i]


@device
def report(account: Any, row: Any, by_delay: Any, unit: Any, roads: int, k: Any) -> None:
    """Sum the accounts of an environment's roads, and its reward; one thread does this."""
    before = k.zero
    for column in range(REWARD):
        row[column] = k.zero
    for r in range(roads):
        for column in range(REWARD):
            row[column] += account[r, column]
        before += account[r, _BEFORE]
    row[REWARD] = (row[2] if by_delay else row[1] - before) / unit


@device
def detect(e: Any, total: Any, narrowing: Any, seen: Any, at: Any, i: Any, sight: Any, k: Any) -> None:
    """Write what a road's detectors see to `seen` from index `at`; a thread for each detector."""
    _, queues, length, scale, half, _, _ = sight
    if i < SEGMENTS:
        rho_m, y_m, rho_c, y_c = k.zero, k.zero, k.zero, k.zero
        for q in range(NUM_GHOST + i * length, NUM_GHOST + (i + 1) * length):
            rho_m += e[0, q]
            y_m += e[1, q]
            rho_c += e[2, q]
            y_c += e[3, q]
        x_m, v_m, x_c, v_c = see(rho_m * scale, y_m * scale, rho_c * scale, y_c * scale, narrowing[i], k)
        seen[at + i] = x_m
        seen[at + SEGMENTS + i] = v_m
        seen[at + 2 * SEGMENTS + i] = x_c
        seen[at + 3 * SEGMENTS + i] = v_c
    if i <= queues:
        queue = max(total[STANDING if i == queues else i], k.zero)
        seen[at + 4 * SEGMENTS + i] = queue / (queue + half)

"""The kernel of the CUDA engine: a block for each environment, a thread for each cell.

All roads of an environment stay in shared memory for all substeps and stages of a decision; then
the block writes what happened and what the environment observes. Thread (i, r) has the cell of
number i - 1 of road r, its two ghosts next to the road included; thread (0, r) has its boundaries.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from arzbench.traffic.physics.cuda_cells import (
    REPORT,
    book,
    detect,
    device,
    faces_of,
    fill_ghosts,
    keep,
    queue_of,
    relax_at,
    report,
    safe_parts,
    set_boundaries,
    set_flux,
    update_cell,
)
from arzbench.traffic.physics.detectors import SEGMENTS
from arzbench.traffic.physics.model import source_tag
from arzbench.traffic.physics.scenario import (
    ARRIVED,
    CFL_EXCEEDED,
    COUNTERS,
    DELAY,
    FIELDS,
    NUM_GHOST,
    PROFILE_LIMIT,
    PROFILE_ROWS,
    QUEUE_C,
    QUEUE_M,
    RAMP_C,
    RAMP_M,
    REFINED,
    STANDING,
    TOTALS,
)

WARP = 32
# With the most registers a thread can have, a block of so many can start on every GPU.
MAX_THREADS = 256
MAX_SHARED = 48 * 1024  # bytes that every GPU has without being asked

# Columns of a road's orders for a decision, all of the state's type: substeps for which its stop
# line is closed, the on-ramp's rate [veh/s], the speed limit of the zone [m/s], arrivals [veh/s].
RED, RATE, LIMIT, ARRIVALS = range(4)
ORDERS = ARRIVALS + 4

# Rows of a road's `right`: face states of a stage; between the stages, sums over the threads.
_FACE_ROWS = 7
_SUMS = 6
_COUNTED = len(COUNTERS)  # a shape must be a constant to the compiler

# All that a kernel is made of.
_SOURCES = "cuda_cells", "cuda_kernel", "detectors", "junction", "model", "reconstruction", "scenario"


@device
def _substep(
    arrays: Any, i: Any, places: Any, closed: Any, rate: Any, scheme: int, weights: Any, shares: Any,
    dt: Any, dx: Any, slack: Any, k: Any,
) -> Any:  # fmt: skip
    """Transport over dt; returns at how many of this thread's faces a limit acted."""
    e, right, flux, ramp_flux, road, total, count, wish, fast = arrays
    n, _, ramp = places
    q = i + NUM_GHOST - 1
    dtdx, dxdt = dt / dx, dx / dt
    inside = i >= 1 and i <= n
    base = (k.zero, k.zero, k.zero, k.zero)
    if inside:
        base = (e[0, q], e[1, q], e[2, q], e[3, q])
    hits = k.zero
    for stage in range(1 + scheme):
        fill_ghosts(e, road, i, n, k)
        cuda.syncthreads()
        ours = (k.zero, k.zero, k.zero, k.zero, k.zero)
        if i <= n + 1:
            ours = faces_of(e, road, right, i, q, scheme, slack, k)
        cuda.syncthreads()
        if i >= 1 and i <= n + 1:
            cut, speed = set_flux(e, road, right, flux, i, q, ours, dxdt, slack, k)
            if cut > k.v_min:
                hits += k.one
            if speed * dtdx > k.over:
                fast[0] = 1  # whoever writes it, writes the same
        cuda.syncthreads()
        if i == 0:
            count[CFL_EXCEEDED] += fast[0]
            fast[0] = 0
            duration = weights[stage] * dt
            set_boundaries(
                e, road, flux, ramp_flux, total, wish, places, closed, rate, duration, dxdt, slack, k
            )
        cuda.syncthreads()
        if inside:
            update_cell(e, flux, ramp_flux, base, i, q, ramp, shares[stage], dtdx, k)
        cuda.syncthreads()
    return hits


@device
def _begin(total: Any, wish: Any, order: Any, dt: Any) -> None:
    """Flows that wish to enter: who waits at an origin could, together with who arrives."""
    for origin in range(4):
        wish[origin] = total[QUEUE_M + origin] / dt + order[ARRIVALS + origin]


@device
def _arrive(total: Any, order: Any, dt: Any) -> None:
    for origin in range(4):
        total[QUEUE_M + origin] += order[ARRIVALS + origin] * dt
        total[ARRIVED] += order[ARRIVALS + origin] * dt


@device
def _most(parts: Any, right: Any, r: Any, i: Any, roads: int, k: Any) -> Any:
    """Largest number of parts of all roads: they pass the block's barriers together."""
    if i == 0:
        right[r, 0, 0] = parts
    cuda.syncthreads()
    most = k.one
    for other in range(roads):
        most = max(most, right[other, 0, 0])
    cuda.syncthreads()
    return most


@device
def _transport(
    arrays: Any, right: Any, order: Any, where: Any, places: Any, closed: Any, scheme: int,
    weights: Any, shares: Any, dt: Any, dx: Any, cfl: Any, slack: Any, k: Any,
) -> Any:  # fmt: skip
    """Transport over dt, divided into parts where a soft set needs it; returns limited faces."""
    e, own, _, _, road, total, count, wish, _ = arrays
    i, r, roads = where
    n = places[0]
    parts, most = k.one, k.one
    if slack > k.zero:
        parts = safe_parts(e, road, own[0], i, n, dt, dx, cfl, k)
        most = _most(parts, right, r, i, roads, k)
    part, done, hits = dt / parts, k.zero, k.zero
    while done < most:
        # A road that needs fewer parts than another idles: its threads become those past its end.
        me = i if done < parts else n + 2
        if me == 0:
            _begin(total, wish, order, part)
        hits += _substep(arrays, me, places, closed, order[RATE], scheme, weights, shares, part, dx, slack, k)
        if me == 0:
            _arrive(total, order, part)
        done += k.one
    if i == 0 and parts > k.one:
        count[REFINED] += 1
    return hits


@device
def _load(
    arrays: Any, order: Any, i: Any, row: Any, n: Any, width: int, zone: Any, u: Any, totals: Any,
    profile: Any, k: Any,
) -> None:  # fmt: skip
    """Bring a road into shared memory; what is summed up starts at zero, what is a level goes on."""
    e, _, _, _, road, total, count, _, fast = arrays
    if i < width:
        for field in range(FIELDS):
            e[field, i] = u[row, field, i]
        for line in range(PROFILE_ROWS):
            road[line, i] = profile[row, line, i]
        if i >= zone[0] and i < zone[1]:
            road[PROFILE_LIMIT, i] = order[LIMIT]
    if i < TOTALS:
        total[i] = totals[row, i] if i <= RAMP_C or i == STANDING else k.zero
    if i < len(COUNTERS):
        count[i] = 0
    if i == 0:
        fast[0] = 0


@device
def _run(
    arrays: Any, right: Any, order: Any, standing: Any, where: Any, places: Any, substeps: Any,
    scheme: int, weights: Any, shares: Any, dt: Any, dx: Any, cfl: Any, slack: Any, decay: Any, k: Any,
) -> Any:  # fmt: skip
    """One decision of a road; returns what this thread's cell adds to the sums."""
    e, _, _, _, road, total, _, _, _ = arrays
    i = where[0]
    q = i + NUM_GHOST - 1
    inside = i >= 1 and i <= places[0]
    red = int(order[RED])
    slow, newly, late, bad, over, hits = k.zero, k.zero, k.zero, k.zero, k.zero, k.zero
    if inside:
        slow, newly, _, _, _ = relax_at(e, road, standing[q], q, decay[0], decay[1], k)
    for s in range(substeps):
        cuda.syncthreads()
        hits += _transport(
            arrays, right, order, where, places, s < red, scheme, weights, shares, dt, dx, cfl, slack, k
        )
        last = 0 if s == substeps - 1 else 2
        if inside:
            slow, more, lost, wrong, full = relax_at(e, road, slow, q, decay[last], decay[last + 1], k)
            newly, late, bad, over = newly + more, late + lost * dt, bad + wrong, over + full
        if i == 0:
            total[DELAY] += dt * (total[QUEUE_M] + total[QUEUE_C] + total[RAMP_M] + total[RAMP_C])
    if inside:
        standing[q] = slow
    return slow, newly, late, bad, over, hits


@device
def _add_up(sums: Any, i: Any, threads: int, ours: Any, k: Any) -> None:
    """Leave the sums over a road's threads in `sums[:, 0]`, always added in the same order."""
    cuda.syncthreads()
    for row in range(_SUMS):
        sums[row, i] = ours[row]
    cuda.syncthreads()
    if i < _SUMS:
        added = k.zero
        for j in range(threads):
            added += sums[i, j]
        sums[i, 0] = added
    cuda.syncthreads()


@device
def _report(
    arrays: Any, account: Any, where: Any, totals: Any, counts: Any, narrowing: Any, orders: Any,
    seen: Any, row: Any, dx: Any, sight: Any, k: Any,
) -> None:  # fmt: skip
    """Write what happened in a decision, and what the environment observes after it."""
    e, sums, _, _, _, total, count, _, _ = arrays
    i, r, roads = where
    if i == 0:
        book(sums, total, count, account[r], sight[0], dx)
    cuda.syncthreads()
    keep(total, count, totals, counts, i)
    size = 4 * SEGMENTS + sight[1] + 1
    detect(e, total, narrowing, seen, r * size, i, sight, k)
    if r == 0 and i < len(orders) - roads * ORDERS:
        seen[roads * size + i] = orders[roads * ORDERS + i]
    if r == 0 and i == 0:
        report(account, row, sight[5], sight[6], roads, k)


def block_threads(n: int) -> int:
    """Threads of a road of n cells: whole warps, a thread for each cell and ghost."""
    return -(-(n + 2 * NUM_GHOST) // WARP) * WARP


def shared_bytes(real: Any, n: int, roads: int) -> int:
    """Shared memory of a block."""
    cells = (FIELDS + PROFILE_ROWS) * (n + 2 * NUM_GHOST) + _FACE_ROWS * block_threads(n) + FIELDS * (n + 1)
    numbers = cells + FIELDS + TOTALS + 4 + ORDERS + REPORT
    return roads * (numbers * np.dtype(real).itemsize + 8 * (len(COUNTERS) + 1))


@lru_cache(maxsize=32)
def kernel(real: Any, n: int, scheme: int, roads: int) -> Any:
    """Return the kernel for a type, cells of a road, a scheme, and roads of an environment.

    It is launched with as many blocks as environments and `(block_threads(n), roads)` threads. Its machine
    code is cached on disk.

    Raises:
        ValueError: If the roads do not fit a block.
    """
    width, faces, threads = n + 2 * NUM_GHOST, n + 1, block_threads(n)
    if roads * threads > MAX_THREADS or shared_bytes(real, n, roads) > MAX_SHARED:
        raise ValueError(
            f"n_cells={n} with {roads} road(s) an environment does not fit a block of {MAX_THREADS} "
            f"threads and {MAX_SHARED} bytes of shared memory; use fewer cells, or the CPU"
        )

    tag = source_tag(*_SOURCES)

    @cuda.jit(cache=True)
    def advance(
        u: Any, standing: Any, totals: Any, counts: Any, profile: Any, orders: Any, narrowing: Any,
        seen: Any, rows: Any, places: Any, zone: Any, substeps: Any, dt: Any, dx: Any, cfl: Any,
        slack: Any, decay: Any, weights: Any, shares: Any, sight: Any, k: Any,
    ) -> None:  # fmt: skip
        assert tag  # part of the cache's key
        all_e = cuda.shared.array((roads, FIELDS, width), real)
        right = cuda.shared.array((roads, _FACE_ROWS, threads), real)
        all_flux = cuda.shared.array((roads, FIELDS, faces), real)
        all_ramp = cuda.shared.array((roads, FIELDS), real)
        all_road = cuda.shared.array((roads, PROFILE_ROWS, width), real)
        all_total = cuda.shared.array((roads, TOTALS), real)
        all_count = cuda.shared.array((roads, _COUNTED), np.int64)
        all_wish = cuda.shared.array((roads, 4), real)
        all_fast = cuda.shared.array((roads, 1), np.int64)
        all_order = cuda.shared.array((roads, ORDERS), real)
        account = cuda.shared.array((roads, REPORT), real)
        b, i, r = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y
        row, order, total, count = b * roads + r, all_order[r], all_total[r], all_count[r]
        arrays = (
            all_e[r], right[r], all_flux[r], all_ramp[r], all_road[r], total, count, all_wish[r], all_fast[r],
        )  # fmt: skip
        if i < ORDERS:
            order[i] = orders[b, r * ORDERS + i]
        cuda.syncthreads()
        _load(arrays, order, i, row, n, width, zone, u, totals, profile, k)
        cuda.syncthreads()
        if i == 0:
            account[r, REPORT - 1] = queue_of(total)
        ours = _run(
            arrays, right, order, standing[row], (i, r, roads), places, substeps, scheme, weights,
            shares, dt, dx, cfl, slack, decay, k,
        )  # fmt: skip
        if i >= 1 and i <= n:
            for field in range(FIELDS):
                u[row, field, i + NUM_GHOST - 1] = all_e[r, field, i + NUM_GHOST - 1]
        _add_up(right[r], i, threads, ours, k)
        _report(
            arrays, account, (i, r, roads), totals[row], counts[row], narrowing[row], orders[b],
            seen[b], rows[b], dx, sight, k,
        )  # fmt: skip

    return advance

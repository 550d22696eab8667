"""Device functions of the CUDA kernel that measure a decision: accounts, reward, observation.

They write what `detectors` writes on the CPU, from the block's shared memory.
"""

from typing import Any

from arzbench.traffic.physics.cuda_cells import device
from arzbench.traffic.physics.detectors import ACCOUNTS, SEGMENTS, see
from arzbench.traffic.physics.scenario import (
    COUNTERS,
    DELAY,
    LIMITED,
    NEGATIVE,
    NUM_GHOST,
    OVERFULL,
    RAMP_C,
    STANDING,
    STOPS,
    TOTALS,
)

# Columns of what the kernel reports of an environment: ACCOUNTS, then the reward.
REWARD = len(ACCOUNTS)
REPORT = REWARD + 1
_BEFORE = REWARD  # of a road's account: its queue when the decision began


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

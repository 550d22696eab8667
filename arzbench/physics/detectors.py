"""Compiled observation and accounts of a batch: what its roads' states say, written in one pass."""

from typing import Any

import numpy as np
from numba import njit

from arzbench.physics.cache import source_tag
from arzbench.physics.scenario import CROSSED, DELAY, LEFT, RAMP_C, STANDING, STOPS

SEGMENTS = 10  # detectors on a road, each the mean of a tenth of it
QUEUE_HALF = 20.0  # veh, observed as 1/2
_ABSENT = 1e-9  # occupancy under which a class is absent, and drives as a single vehicle would

# Columns of `account`'s result.
ACCOUNTS = ("throughput", "queue", "delay", "stops")


def _compile_detect(tag: int) -> Any:
    @njit(error_model="numpy", cache=True, nogil=True)
    def detect(
        u: Any, totals: Any, narrowing: Any, k: Any, first: Any, n: Any, roads: Any, queues: Any, out: Any
    ) -> None:
        """Write what the detectors of each road see, clipped to [0, 1].

        Args:
            u: Fields, shape (all roads, 4, stride).
            totals: Totals of the roads, shape (all roads, TOTALS).
            narrowing: Jam density over that of each segment, shape (all roads, SEGMENTS).
            k: `alpha, rho_jam, k_m, k_c, v_free_m, v_free_c`.
            first: Index of the first cell in a row.
            n: Cells of a road.
            roads: Roads of an environment.
            queues: Origin queues of a road, both classes counted.
            out: Observations, shape (environments, size); a road takes 4 SEGMENTS + queues + 1.
        """
        _ = tag  # in the key of the cache
        alpha, jam, k_m, k_c, free_m, free_c = k
        length = n // SEGMENTS
        width = 4 * SEGMENTS + queues + 1
        for road in range(u.shape[0]):
            row, at = out[road // roads], (road % roads) * width
            for s in range(SEGMENTS):
                rho_m = y_m = rho_c = y_c = 0.0
                for q in range(first + s * length, first + (s + 1) * length):
                    rho_m += u[road, 0, q]
                    y_m += u[road, 1, q]
                    rho_c += u[road, 2, q]
                    y_c += u[road, 3, q]
                scale = 1.0 / (length * jam)
                rho_m, y_m, rho_c, y_c = rho_m * scale, y_m * scale, rho_c * scale, y_c * scale
                x_m = (rho_m + alpha * rho_c) * narrowing[road, s]
                x_c = (rho_m + rho_c) * narrowing[road, s]
                w_m = y_m / rho_m if rho_m > _ABSENT else free_m
                w_c = y_c / rho_c if rho_c > _ABSENT else free_c
                v_m = (w_m - k_m * x_m * np.sqrt(x_m)) / free_m
                v_c = (w_c - k_c * x_c * x_c) / free_c
                row[at + s] = min(rho_m, 1.0)
                row[at + SEGMENTS + s] = min(max(v_m, 0.0), 1.0)
                row[at + 2 * SEGMENTS + s] = min(rho_c, 1.0)
                row[at + 3 * SEGMENTS + s] = min(max(v_c, 0.0), 1.0)
            for i in range(queues + 1):
                queue = max(totals[road, STANDING if i == queues else i], 0.0)
                row[at + 4 * SEGMENTS + i] = queue / (queue + QUEUE_HALF)

    return detect


detect = _compile_detect(source_tag("scenario"))


def _compile_account(tag: int) -> Any:
    @njit(error_model="numpy", cache=True, nogil=True)
    def account(before: Any, now: Any, roads: Any, signalised: Any) -> Any:
        """Sum the step from totals `before` to `now` over each environment's roads.

        Returns:
            ACCOUNTS and the queue before the step, shape (5, environments).
        """
        _ = tag
        gone = CROSSED if signalised else LEFT
        out = np.zeros((5, now.shape[0] // roads))
        for road in range(now.shape[0]):
            env = road // roads
            out[0, env] += now[road, gone] - before[road, gone]
            out[1, env] += now[road, STANDING]
            out[4, env] += before[road, STANDING]
            for origin in range(RAMP_C + 1):
                out[1, env] += now[road, origin]
                out[4, env] += before[road, origin]
            out[2, env] += now[road, DELAY] - before[road, DELAY]
            out[3, env] += now[road, STOPS] - before[road, STOPS]
        return out

    return account


account = _compile_account(source_tag("scenario"))

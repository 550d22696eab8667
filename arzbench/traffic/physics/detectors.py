"""Compiled observation and accounts of a batch: what its roads' states say, written in one pass."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from arzbench.traffic.physics.model import Real, choose, constants, greatest, least, root, scalar, source_tag
from arzbench.traffic.physics.parameters import Parameters
from arzbench.traffic.physics.scenario import CROSSED, DELAY, LEFT, RAMP_C, STANDING, STOPS

SEGMENTS = 10  # detectors on a road, each the mean of a tenth of it
QUEUE_HALF = 20.0  # veh, observed as 1/2

# Columns of `account`'s result.
ACCOUNTS = ("throughput", "queue", "delay", "stops")


class Sight(NamedTuple):
    """Those of `Constants` that `see` needs: all of them would take longer to hand over than to use."""

    zero: float
    one: float
    rho_min: float
    alpha: float
    k_m: float
    k_c: float
    v_free_m: float
    v_free_c: float


def sight_of(parameters: Parameters) -> tuple[float, ...]:
    """Return the constants of `parameters` that `detect` needs, a `Sight` as a plain tuple."""
    k = constants(parameters)
    return tuple(float(getattr(k, name)) for name in Sight._fields)


@scalar
def see(rho_m: Real, y_m: Real, rho_c: Real, y_c: Real, narrowing: Real, k: Any) -> tuple[Real, ...]:
    """What a detector shows of each class, in [0, 1]: density, then speed over free speed.

    Args:
        rho_m: Density of motorcycles over jam density; under `rho_min` it is absent, and drives as
            a single vehicle would.
        y_m: `rho_m w_m` [m/s].
        rho_c: The same for cars.
        y_c: The same for cars.
        narrowing: Jam density over that of the detector's cells.
        k: `Constants` or a `Sight`.
    """
    x_m = (rho_m + k.alpha * rho_c) * narrowing
    x_c = (rho_m + rho_c) * narrowing
    w_m = choose(rho_m > k.rho_min, y_m, k.v_free_m) / choose(rho_m > k.rho_min, rho_m, k.one)
    w_c = choose(rho_c > k.rho_min, y_c, k.v_free_c) / choose(rho_c > k.rho_min, rho_c, k.one)
    v_m = (w_m - k.k_m * x_m * root(x_m)) / k.v_free_m
    v_c = (w_c - k.k_c * x_c * x_c) / k.v_free_c
    return (
        least(rho_m, k.one), least(greatest(v_m, k.zero), k.one),
        least(rho_c, k.one), least(greatest(v_c, k.zero), k.one),
    )  # fmt: skip


def _compile_detect(tag: int) -> Any:
    @njit(error_model="numpy", cache=True, nogil=True)
    def detect(
        u: Any, totals: Any, control: Any, time: Any, out: Any, narrowing: Any, jam: Any, sight: Any,
        first: Any, n: Any, roads: Any, queues: Any, decisions: Any,
    ) -> None:  # fmt: skip
        """Write observations: what the detectors of each road see, clipped to [0, 1], control and time.

        Args:
            u: Fields, shape (all roads, 4, stride).
            totals: Totals of the roads, shape (all roads, TOTALS).
            control: State of the control, in [0, 1], shape (environments, some).
            time: Decisions taken, shape (environments,).
            out: Observations, shape (environments, size): of each road 4 SEGMENTS + queues + 1, then
                the control's state and the share of the episode gone.
            narrowing: Jam density over that of each segment, shape (all roads, SEGMENTS).
            jam: Jam density of the parameter set [veh/m].
            sight: `sight_of` the parameters.
            first: Index of the first cell in a row.
            n: Cells of a road.
            roads: Roads of an environment.
            queues: Origin queues of a road, both classes counted.
            decisions: Decisions of an episode.
        """
        _ = tag  # in the key of the cache
        k = Sight(*sight)
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
                seen = see(rho_m * scale, y_m * scale, rho_c * scale, y_c * scale, narrowing[road, s], k)
                for i in range(4):
                    row[at + i * SEGMENTS + s] = seen[i]
            for i in range(queues + 1):
                queue = max(totals[road, STANDING if i == queues else i], 0.0)
                row[at + 4 * SEGMENTS + i] = queue / (queue + QUEUE_HALF)
        for env in range(out.shape[0]):
            for i in range(control.shape[1]):
                out[env, roads * width + i] = control[env, i]
            out[env, -1] = min(time[env] / decisions, 1.0)

    return detect


detect = _compile_detect(source_tag("detectors", "model", "scenario"))


def _compile_account(tag: int) -> Any:
    @njit(error_model="numpy", cache=True, nogil=True)
    def account(
        before: Any, now: Any, roads: Any, signalised: Any, by_delay: Any, unit: Any
    ) -> Any:  # fmt: skip
        """Sum the step from totals `before` to `now` over each environment's roads.

        Returns:
            ACCOUNTS and the reward, shape (5, environments): the delay, or the growth of the queue,
            over `unit`.
        """
        _ = tag
        gone = CROSSED if signalised else LEFT
        out = np.zeros((5, now.shape[0] // roads))
        for road in range(now.shape[0]):
            env = road // roads
            out[0, env] += now[road, gone] - before[road, gone]
            out[1, env] += now[road, STANDING]
            out[4, env] += before[road, STANDING]  # the queue before
            for origin in range(RAMP_C + 1):
                out[1, env] += now[road, origin]
                out[4, env] += before[road, origin]
            out[2, env] += now[road, DELAY] - before[road, DELAY]
            out[3, env] += now[road, STOPS] - before[road, STOPS]
        for env in range(out.shape[1]):
            out[4, env] = (out[2, env] if by_delay else out[1, env] - out[4, env]) / unit
        return out

    return account


account = _compile_account(source_tag("scenario"))

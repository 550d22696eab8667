"""Runs the CUDA engine in Numba's simulator against the CPU engine; a process of its own.

Prints one line of JSON for each case: its name and the largest difference, relative to the
largest value of each array.
"""

import json
import sys

import numpy as np
from numba import config

from arzbench.traffic.physics import cpu, cuda
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.scenario import Scenario

CASES = {
    "crossing weno5": ({"scheme": "weno5"}, [(0.4, 0.3), (0.1, 0.05)], "light"),
    "crossing muscl": ({"scheme": "muscl"}, [(0.4, 0.3), (0.1, 0.05)], "light"),
    "crossing first_order": ({"scheme": "first_order"}, [(0.4, 0.3), (0.1, 0.05)], "light"),
    "crossing incident": (
        {"scheme": "muscl", "parameters": PARAMETER_SETS["incident"]}, [(0.9, 0.7), (0.1, 0.05)], "light",
    ),
    "on-ramp": (
        {"parameters": PARAMETER_SETS["freeway"], "stop_line": None, "ramp": 250.0, "scheme": "muscl"},
        [(0.5, 0.9, 0.3, 0.4)], "ramp",
    ),
    "lane drop": (
        {"parameters": PARAMETER_SETS["freeway"], "stop_line": None, "scheme": "muscl"},
        [(0.4, 0.9)], "drop",
    ),
}  # fmt: skip


def gap(name: str) -> float:
    options, demand, kind = CASES[name]
    n = 16
    options = {
        "stop_line": 200.0,
        "length": 400.0,
        "n_cells": n,
        "decision_s": 0.9,
        "n_substeps": 3,
        **options,
    }
    scenario = Scenario(**options)
    roads = len(demand)
    state = cpu.init(scenario, roads)
    if kind == "drop":
        state.profile[:] = scenario.profile(jam=np.linspace(0.25, 0.15, n), limit=15.0)
    # Roads that already carry something, so that every branch has work to do.
    rng = np.random.default_rng(1)
    rho = rng.uniform(0.0, 0.12, (roads, 2, n)) * (rng.random((roads, 2, n)) < 0.8)
    state.u[:, ::2, scenario.cells] = rho
    state.u[:, 1::2, scenario.cells] = rho * rng.uniform(4.0, 9.0, rho.shape)
    twin = cuda.upload(scenario, state)
    for i in range(2):
        substeps = scenario.substeps
        red = np.array([[substeps, 0], [0, substeps // 2]][i][:roads] if kind == "light" else [0] * roads)
        rate = np.full(roads, 0.3) if kind == "ramp" else None
        cpu.step(scenario, state, np.array(demand), red, rate)
        cuda.step(scenario, twin, np.array(demand), red, rate)
    host = cuda.download(twin)
    if not np.array_equal(state.counters, host.counters):
        raise SystemExit(f"{name}: counters {state.counters.tolist()} and {host.counters.tolist()}")
    cells = scenario.cells
    pairs = [
        (state.u[..., cells], host.u[..., cells]),
        (state.standing[:, cells], host.standing[:, cells]),
        (state.totals, host.totals),
    ]
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-300)) for a, b in pairs)


if __name__ == "__main__":
    assert config.ENABLE_CUDASIM, "set NUMBA_ENABLE_CUDASIM=1"
    for case in sys.argv[1:]:
        print(json.dumps({"case": case, "gap": gap(case)}))

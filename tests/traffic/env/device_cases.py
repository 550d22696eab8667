"""Steps small environments on the device `cuda`, or its simulator, and on the CPU; a process of its own.

Prints one line of JSON for each case: its name, and the largest difference of observations, rewards,
accounts, totals and fields, relative to the largest value of each.
"""

import copy
import json
import sys
from typing import Any

import numpy as np

from arzbench.traffic.env.base import ArzEnv
from arzbench.traffic.env.batch import ArzBatch
from arzbench.traffic.env.crossing import CrossingBatch, TrafficLightEnv
from arzbench.traffic.env.freeway import LaneDropBatch, RampBatch
from arzbench.traffic.env.vector import ArzVectorEnv
from arzbench.traffic.physics import cpu, cuda
from arzbench.traffic.physics.scenario import REFINED, Scenario

SHORT = {"length": 200.0, "n_cells": 20, "decision_s": 0.6, "n_substeps": 2}
LAYOUTS: dict[type[ArzBatch], dict[str, Any]] = {
    CrossingBatch: {"stop_line": 100.0},
    RampBatch: {"stop_line": None, "ramp": 120.0},
    LaneDropBatch: {"stop_line": None},
}
CASES: dict[str, tuple[type[ArzBatch], dict[str, Any]]] = {
    "crossing": (CrossingBatch, {}),
    "crossing, queue_change, float32": (
        CrossingBatch,
        {"reward": "queue_change", "dtype": "float32", "scheme": "muscl"},
    ),
    "crossing, incident": (CrossingBatch, {"parameters": "incident", "scheme": "muscl"}),
    "on-ramp": (RampBatch, {"reward": "queue_change", "scheme": "muscl"}),
    "lane drop": (LaneDropBatch, {"scheme": "first_order"}),
}


def small(kind: type[ArzBatch], **layout: float) -> Any:
    """A batch type of a short road with few cells, otherwise the same."""
    changes = {"layout": {**SHORT, **LAYOUTS[kind], **layout}, "drop": 140.0, "zone": (40.0, 100.0)}
    return type(f"Small{kind.__name__}", (kind,), changes)


def filled(batch: ArzBatch) -> ArzBatch:
    """Start all environments on roads that already carry something, so that every branch has work."""
    rng = np.random.default_rng(1)
    for env in range(batch.num_envs):
        batch.reset_env(env, rng)
    u, cells = batch.state.u, batch.scenario.cells
    shape = (len(u), 2, batch.scenario.n_cells)
    rho = rng.uniform(0.0, 0.12, shape) * (rng.random(shape) < 0.8)
    u[:, ::2, cells] = rho
    u[:, 1::2, cells] = rho * rng.uniform(4.0, 9.0, shape)
    if not batch.scenario.parameters.hard:  # far beyond jam: these substeps must be divided
        u[::2, :, cells] *= 5
    return batch


def gap(pairs: list[tuple[Any, Any]]) -> float:
    # A queue of 1e-16 vehicles is rounding: accounts count from a millionth of a vehicle.
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-6)) for a, b in pairs)


def roads(batch: ArzBatch) -> list[Any]:
    state = batch.state
    return [state.u[..., batch.scenario.cells], state.totals, state.standing]


def compare(name: str) -> float:
    kind, options = CASES[name]
    twins = [filled(small(kind)(2, demand="rush", device=d, **options)) for d in ("cpu", "cuda")]
    assert [twin.device for twin in twins] == ["cpu", "cuda"]
    last = kind.actions - 1
    pairs: list[tuple[Any, Any]] = []
    # Nobody reads the roads in the first two steps: what changes between them goes up with the orders.
    for t, row in enumerate(([last, 0], [0, last], [0, 0])):
        mine, theirs = (twin.report(np.array(row)) for twin in twins)
        pairs += [*zip(mine, theirs, strict=True), (twins[0].observe(), twins[1].observe())]
        for twin in twins:  # one environment starts anew, the other goes on
            if t == 1:
                twin.reset_env(0, np.random.default_rng(5))
    pairs += zip(*map(roads, twins), strict=True)
    counters = [twin.state.counters for twin in twins]
    assert np.array_equal(*counters), f"{name}: counters {[c.tolist() for c in counters]}"
    if "incident" in name:  # or the roads of a block never waited for each other
        assert len(set(counters[0][:, REFINED])) > 1
    return gap(pairs)


def restored() -> float:
    """Bits that differ where an episode goes on from a captured state; 0.0 if none."""

    class Env(ArzEnv):
        batch_type = small(CrossingBatch, n_cells=10, stop_line=100.0, n_substeps=2)

    env, other = Env(device="cuda", scheme="muscl"), Env(device="cuda", scheme="muscl")
    env.reset(seed=3)
    other.reset(seed=4)
    env.step(1)
    other.set_state(env.get_state())
    mine, theirs = env.step(0), other.step(0)
    assert mine[1:] == theirs[1:]
    assert mine[1] != 0
    same = np.array_equal(mine[0], theirs[0]) and np.array_equal(env.state.u, other.state.u)
    return 0.0 if same else 1.0


def episodes() -> float:
    """Of a vector environment, past the end of an episode."""
    name = "arzbench/TrafficLight-v0"
    TrafficLightEnv.batch_type = small(CrossingBatch, n_cells=10, stop_line=100.0, n_substeps=2)
    twins = [ArzVectorEnv(name, 2, device=d, scheme="muscl", demand="rush") for d in ("cpu", "cuda")]
    pairs = [tuple(twin.reset(seed=1)[0] for twin in twins)]
    for twin in twins:
        twin.batch.time[:] = 238, 239
    for actions in ([0, 1], [1, 1]):
        mine, theirs = (twin.step(np.array(actions)) for twin in twins)
        assert mine[3].tolist() == theirs[3].tolist() == [actions[0] == 1, actions[0] == 0]
        pairs += [*zip(mine[:2], theirs[:2], strict=True), (mine[4]["final_obs"], theirs[4]["final_obs"])]
    return gap(pairs)


def engine() -> float:
    """Of roads with a light of their own each, red for a part of a decision."""
    scenario = Scenario(scheme="muscl", stop_line=100.0, **SHORT)
    batch = filled(small(CrossingBatch, stop_line=100.0, n_substeps=2)(1, scheme="muscl"))
    state, twin = batch.state, copy.deepcopy(batch.state)
    gpu = cuda.RoadsOnGpu(scenario, twin, batch.narrowing)
    demand = np.full((2, 1, 2), 0.4)
    for red in ([2, 1], [0, 2]):
        cpu.step(scenario, state, demand, np.array(red))
        gpu.step(demand, np.array(red), None)
    host, cells = gpu.host(), scenario.cells
    assert np.array_equal(state.counters, host.counters)
    return gap([(state.u[..., cells], host.u[..., cells]), (state.totals, host.totals)])


def main() -> None:
    print(json.dumps({"case": "engine", "gap": engine()}), flush=True)
    for case in CASES:
        print(json.dumps({"case": case, "gap": compare(case)}), flush=True)
    print(json.dumps({"case": "restored", "gap": restored()}), flush=True)
    print(json.dumps({"case": "episodes", "gap": episodes()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())

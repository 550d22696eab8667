"""The `freeway` set: capacity drop at a lane drop and at a merge, and jams that leave by the exit."""

import numpy as np
import pytest

from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.scenario import LEFT, Scenario, State, vehicles

FREEWAY = PARAMETER_SETS["freeway"]
SHARE = np.array([0.3, 0.7])  # motorcycles, cars


def bottleneck(kind: str) -> tuple[Scenario, State]:
    ramp = 600.0 if kind == "merge" else None
    scenario = Scenario(parameters=FREEWAY, scheme="muscl", stop_line=None, ramp=ramp)
    state = cpu.init(scenario, 1)
    if kind == "lane drop":
        lanes = np.where(np.arange(scenario.n_cells) < 70, 1.0, 2 / 3)
        state.profile[:] = scenario.profile(jam=lanes * FREEWAY.rho_jam)
    return scenario, state


def flow(scenario: Scenario, state: State, demand: float, steps: int) -> float:
    """Flow past the exit [veh/s] under a demand, of which an on-ramp has 0.2 veh/s."""
    origins = [demand] if scenario.ramp is None else [demand - 0.2, 0.2]
    arrivals = np.outer(origins, SHARE)[None]
    before = state.totals[0, LEFT]
    for _ in range(steps):
        cpu.step(scenario, state, arrivals, np.zeros(1, np.int64))
    return float(state.totals[0, LEFT] - before) / (steps * scenario.decision_s)


@pytest.mark.parametrize(("kind", "capacity"), [("lane drop", 0.81), ("merge", 1.16)])
def test_a_queue_discharges_less_than_free_traffic(kind: str, capacity: float) -> None:
    scenario, state = bottleneck(kind)
    for demand in np.linspace(0.5, 0.98, 40) * capacity:
        flow(scenario, state, demand, 4)
    free = flow(scenario, state, 0.98 * capacity, 60)
    assert free == pytest.approx(0.98 * capacity, rel=0.01)  # carried for a quarter of an hour
    flow(scenario, state, 1.2 * capacity, 60)  # breaks down
    queued = flow(scenario, state, 1.2 * capacity, 60)
    assert 0.05 < 1 - queued / free < 0.20
    assert flow(scenario, state, 0.98 * capacity, 60) < 0.97 * free  # and stays broken down


@pytest.mark.parametrize("scheme", ["weno5", "muscl", "first_order"])
@pytest.mark.parametrize("parameters", ["default", "freeway", "incident"])
def test_a_jam_leaves_by_the_exit(scheme: str, parameters: str) -> None:
    """The exit gives way to free traffic: it does not hold up a jam that has reached it."""
    p = PARAMETER_SETS[parameters]
    scenario = Scenario(parameters=p, scheme=scheme, stop_line=None)
    state = cpu.init(scenario, 1)
    rho = 0.4 * p.rho_jam
    p_m, p_c = p.k_m * (1.4 * 0.4) ** 1.5, p.k_c * 0.8**2
    state.u[0, :, scenario.cells] = np.array([rho, rho * (p_m + 1.0), rho, rho * (p_c + 1.0)])[:, None]
    jammed = vehicles(scenario, state)[0]
    for _ in range(32):
        cpu.step(scenario, state, np.zeros((1, 2)), np.zeros(1, np.int64))
    assert vehicles(scenario, state)[0] < 0.01 * jammed
    assert state.report()["negative_cells"] == 0

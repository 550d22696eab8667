"""RampMetering and SpeedControl: what the control does, and what baselines make of it."""

import pytest

from arzbench.traffic.env.base import ArzEnv
from arzbench.traffic.env.freeway import Alinea, DemandCapacity, RampMeteringEnv, SpeedControlEnv
from arzbench.traffic.physics.scenario import RAMP_C, RAMP_M, WAITING


def hold(env: ArzEnv, action: int, steps: int) -> None:
    for _ in range(steps):
        env.step(action)


def test_the_rate_bounds_the_ramp_flow() -> None:
    env = RampMeteringEnv(demand="rush")
    for action, rate in enumerate(env.batch.settings):
        env.reset(seed=1)
        hold(env, action, 120)
        totals = env.state.totals[0]
        arrived = env.batch.demand[0, :120, 0, 1].sum() * 15
        let_in = arrived - totals[[RAMP_M, RAMP_C]].sum()
        assert let_in <= min(rate * 120 * 15, arrived) * (1 + 1e-9)
        assert let_in > 0.8 * min(rate * 120 * 15, arrived)


def test_a_limit_slows_the_zone_and_costs_time_on_an_empty_road() -> None:
    speeds, delays = [], []
    for action in (0, 4):
        env = SpeedControlEnv(demand="quiet")
        env.reset(seed=0)
        delays.append(sum(env.step(action)[4]["delay"] for _ in range(40)))
        rho, y = env.state.u[0, 2:, 51:53]  # where the zone ends
        speeds.append((y / rho - env.scenario.parameters.k_c * (rho / 0.25) ** 2).mean())
    assert speeds[0] < 0.6 * speeds[1]  # relaxation takes tau_c = 10 s, more than the zone
    assert delays[0] > 2 * delays[1]


def test_a_lane_drop_is_a_bottleneck() -> None:
    env = SpeedControlEnv(demand="rush")
    env.reset(seed=4)
    hold(env, 4, 120)
    density = env.state.u[0, ::2, env.scenario.cells].sum(axis=0) / env.scenario.parameters.rho_jam
    assert density[60:69].mean() > 0.7 > 0.4 > density[75:].mean()
    assert env.state.totals[0, WAITING].sum() > 50


def test_metering_keeps_the_mainline_moving() -> None:
    """The fullest the merge ever gets in a rush hour, without metering and with the strictest."""
    fullest = []
    for action in (4, 0):
        env = RampMeteringEnv(demand="rush")
        env.reset(seed=5)
        peak = 0.0
        for _ in range(240):
            env.step(action)
            peak = max(peak, float(env.batch.occupancy(500.0, 700.0)[0]))
        fullest.append(peak)
    assert fullest[1] < 0.9 * fullest[0]


def test_alinea_lowers_the_rate_where_it_is_dense() -> None:
    env, alinea = RampMeteringEnv(), Alinea(target=0.3, gain=0.5)
    env.reset(seed=0)
    assert alinea.action(env) == 4
    env.state.u[0, 2, env.scenario.cells] = 0.2
    chosen = [alinea.action(env) for _ in range(4)]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[-1] == 0


def test_demand_capacity_leaves_the_ramp_what_the_mainline_does_not_use() -> None:
    env, controller = RampMeteringEnv(), DemandCapacity(capacity=1.48)
    env.reset(seed=0)
    assert controller.action(env) == 4  # an empty mainline
    rho, p = 0.05, env.scenario.parameters
    for flow, setting in ((1.24, 3), (1.34, 2), (1.6, 0)):
        speed = flow / rho  # cars only, wherever the controller looks
        env.state.u[0, 2, env.scenario.cells] = rho
        env.state.u[0, 3, env.scenario.cells] = rho * (speed + p.k_c * (rho / p.rho_jam) ** 2)
        assert env.batch.flow(200, 500)[0] == pytest.approx(flow)
        assert controller.action(env) == setting

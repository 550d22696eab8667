"""RampMetering and SpeedControl: checkers, capture, what the control does, baselines."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

import arzbench.traffic.env
from arzbench.traffic.env.controllers import (
    BASELINES,
    CONTROLLERS,
    Alinea,
    DemandCapacity,
    DensityThreshold,
    NoControl,
)
from arzbench.traffic.env.freeway import FreewayEnv, RampMeteringEnv, SpeedControlEnv
from arzbench.traffic.env.traffic import TrafficLightEnv
from arzbench.traffic.physics.scenario import ARRIVED, RAMP_C, RAMP_M, WAITING

arzbench.traffic.env.register_envs()
FREEWAYS = [RampMeteringEnv, SpeedControlEnv]


def play(env: FreewayEnv, actions: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    seen, rewards = [], []
    for action in actions:
        observation, reward, *_ = env.step(action)
        seen.append(observation)
        rewards.append(reward)
    return seen, rewards


@pytest.mark.parametrize("name", ["arzbench/RampMetering-v0", "arzbench/SpeedControl-v0"])
def test_checkers_have_nothing_to_say(name: str) -> None:
    from stable_baselines3.common.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check(gymnasium.make(name, render_mode="rgb_array").unwrapped)
        check_env(gymnasium.make(name).unwrapped, warn=True)
    assert gymnasium.spec(name).max_episode_steps == 240


@pytest.mark.parametrize("freeway", FREEWAYS)
@pytest.mark.parametrize("demand", ["quiet", "mixed", "rush"])
def test_an_hour_keeps_every_vehicle(freeway: type[FreewayEnv], demand: str) -> None:
    env = freeway(demand=demand)
    for seed in range(3):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        for action in rng.integers(0, 5, 240):
            env.step(action)
            assert env.state.u.min() >= 0
            assert env.state.totals[:, WAITING].min() >= -1e-12
        assert abs(env.balance()) <= 1e-12 * env.state.totals[0, ARRIVED]
        report = env.report()
        assert report["negative_cells"] == report["overfull_cells"] == report["cfl_exceeded"] == 0


@pytest.mark.parametrize("freeway", FREEWAYS)
def test_a_captured_episode_goes_on_bit_for_bit(freeway: type[FreewayEnv]) -> None:
    actions = np.random.default_rng(0).integers(0, 5, 80)
    env, other = freeway(demand="rush"), freeway(demand="rush")
    env.reset(seed=4)
    play(env, actions[:40])
    state = env.get_state()
    seen, rewards = play(env, actions[40:])
    other.reset(seed=9)
    play(other, actions[:3])
    other.set_state(state)
    again = play(other, actions[40:])
    np.testing.assert_array_equal(seen, again[0])
    assert rewards == again[1]


def test_the_rate_bounds_the_ramp_flow() -> None:
    env = RampMeteringEnv(demand="rush")
    for action, rate in enumerate(env.settings):
        env.reset(seed=1)
        play(env, np.full(120, action))
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
    play(env, np.full(120, 4))
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


def test_baselines_cover_the_environments_and_act() -> None:
    assert BASELINES.keys() == arzbench.traffic.env.ENVIRONMENTS.keys()
    for name, controllers in BASELINES.items():
        env = gymnasium.make(name)
        env.reset(seed=0)
        for controller in (CONTROLLERS[c]() for c in controllers):
            controller.reset()
            assert env.action_space.contains(np.int64(controller.action(env)))


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


def test_a_controller_refuses_another_environment() -> None:
    crossing = TrafficLightEnv()
    for controller in (NoControl(), DensityThreshold(), DemandCapacity(), Alinea()):
        with pytest.raises(TypeError, match="CrossingBatch is not a "):
            controller.action(crossing)
    with pytest.raises(TypeError, match="is not a CrossingBatch"):
        CONTROLLERS["max_pressure"]().action(SpeedControlEnv())
    with pytest.raises(TypeError, match="is not a RampBatch"):
        Alinea().action(SpeedControlEnv())


@pytest.mark.parametrize("freeway", FREEWAYS)
def test_an_unknown_action_is_refused(freeway: type[FreewayEnv]) -> None:
    env = freeway()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action=5 is not one of 0, 1, 2, 3, 4"):
        env.step(5)

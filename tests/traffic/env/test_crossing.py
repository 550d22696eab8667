"""TrafficLight: what the light does, what is observed, messages, baselines."""

import numpy as np
import pytest

from arzbench.traffic.env.crossing import CrossingBatch, FixedTime, TrafficLightEnv
from arzbench.traffic.physics.scenario import CROSSED, QUEUE_C, QUEUE_M, STANDING


def test_the_light_decides_who_crosses() -> None:
    """All-green and all-red on an approach differ more than tenfold in throughput."""
    crossed = []
    for action in (0, 1):
        env = TrafficLightEnv(demand="rush")
        env.reset(seed=3)
        crossed.append(sum(env.step(action)[4]["throughput"] for _ in range(240)))
        first = env.state.totals[:, CROSSED]
        assert first[action] > 10 * first[1 - action]
    assert min(crossed) > 500


def test_a_switch_costs_three_seconds_of_all_red() -> None:
    env = TrafficLightEnv()
    env.reset(seed=0)
    substeps = env.scenario.substeps
    keep, switch = np.array([0]), np.array([1])
    assert env.batch.apply(keep)[0].tolist() == [0, substeps]
    closed, _ = env.batch.apply(switch)
    assert closed[0] == substeps
    assert closed[1] * env.scenario.decision_s / substeps == pytest.approx(3.0)
    assert env.batch.apply(switch)[0].tolist() == [substeps, 0]


def test_observation_shows_phase_and_time() -> None:
    env = TrafficLightEnv()
    first, _ = env.reset(seed=0)
    assert first[-4:].tolist() == [1, 0, 0, 0]
    observation = env.step(0)[0]
    assert observation[-4:] == pytest.approx([1, 0, 1 / 20, 1 / 240])
    assert env.step(1)[0][-4:] == pytest.approx([0, 1, 0, 2 / 240])


def test_observation_is_what_the_roads_hold() -> None:
    """Against the definitions in NumPy, on a crossing with a queue."""
    env = TrafficLightEnv(demand="rush")
    env.reset(seed=1)
    for t in range(40):
        env.step(t // 3 % 2)
    observation, p = env.step(0)[0], env.scenario.parameters
    for road in range(2):
        mean = env.state.u[road, :, env.scenario.cells].reshape(4, 10, 10).mean(axis=2)
        rho_m, y_m, rho_c, y_c = mean
        v_m = y_m / rho_m - p.k_m * ((rho_m + p.alpha * rho_c) / p.rho_jam) ** 1.5
        v_c = y_c / rho_c - p.k_c * ((rho_m + rho_c) / p.rho_jam) ** 2
        queues = env.state.totals[road, [QUEUE_M, QUEUE_C, STANDING]]
        parts = rho_m / p.rho_jam, v_m / p.v_free_m, rho_c / p.rho_jam, v_c / p.v_free_c
        expected = np.clip(np.concatenate([*parts, queues / (queues + 20)]), 0, 1)
        np.testing.assert_allclose(observation[43 * road : 43 * (road + 1)], expected, atol=1e-6)


def test_reward_is_what_info_says() -> None:
    delay, change = TrafficLightEnv(), TrafficLightEnv(reward="queue_change")
    delay.reset(seed=6)
    _, info = change.reset(seed=6)
    for action in (0, 1, 1, 1, 0, 0, 1, 0) * 6:
        _, reward, _, _, now = delay.step(action)
        assert reward == -now["delay"] / 1000
        queue = info["queue"]
        _, reward, _, _, info = change.step(action)
        assert reward == pytest.approx(-(info["queue"] - queue) / 10)


def test_the_control_matters() -> None:
    """On the same two episodes for each baseline."""
    delays = {}
    for name, make in TrafficLightEnv.baseline_controllers.items():
        delays[name] = CrossingBatch(2).play([0, 1], make().actions)["delay [veh h]"]
    assert (delays["max_pressure"] < 0.8 * delays["fixed_time"]).all()
    assert (delays["longest_queue"] < 0.8 * delays["fixed_time"]).all()


def test_fixed_time_is_sixty_sixty() -> None:
    controller, env = FixedTime(), TrafficLightEnv()
    for seed in range(2):
        env.reset(seed=seed)
        chosen = []
        for _ in range(10):
            chosen.append(controller.action(env))
            env.step(chosen[-1])
        assert chosen == [0] * 4 + [1] * 4 + [0] * 2


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def log(self, tag: str, template: str, *args: object) -> None:
        self.lines.append((tag, template % args))


def test_messages_come_seven_for_each_boundary_application_and_change_nothing() -> None:
    env, quiet = TrafficLightEnv(), TrafficLightEnv()
    env.reset(seed=3)
    quiet.reset(seed=3)
    for action in (0, 1, 1, 0):
        env.message_log = log = Lines()
        np.testing.assert_array_equal(quiet.step(action)[0], env.step(action)[0])
    applications = env.scenario.substeps * 3 * 2
    assert len(log.lines) == 7 * applications
    assert sum(tag == "DEBUG_BC_GPU" for tag, _ in log.lines) == 4 * applications
    assert sum(tag == "DEBUG_BC_DISPATCHER" for tag, _ in log.lines) == 3 * applications
    rho_m = float(env.state.u[0, 0, 3])
    assert log.lines[0][1].startswith(f"inflow_L: [{rho_m!r}, ")

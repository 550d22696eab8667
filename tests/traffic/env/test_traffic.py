"""TrafficLight: the checkers, determinism, capture, control, messages, baselines."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

import arzbench.traffic.env
from arzbench.traffic.env.controllers import CONTROLLERS, FixedTime
from arzbench.traffic.env.demand import CROSSING, LANE_DROP, RAMP, Demands
from arzbench.traffic.env.traffic import TrafficLightEnv
from arzbench.traffic.physics.scenario import CROSSED, QUEUE_C, QUEUE_M, STANDING

ID = "arzbench/TrafficLight-v0"
arzbench.traffic.env.register_envs()


def play(env: gymnasium.Env, steps: int, seed: int) -> tuple[list[np.ndarray], list[float]]:
    """Observations and rewards under actions drawn from `seed`."""
    actions = np.random.default_rng(seed).integers(0, 2, steps)
    seen, rewards = [], []
    for action in actions:
        observation, reward, *_ = env.step(action)
        seen.append(observation)
        rewards.append(reward)
    return seen, rewards


def delay_of(name: str, seed: int, demand: str = "mixed") -> float:
    env = gymnasium.make(ID, demand=demand)
    controller = CONTROLLERS[name]()
    controller.reset()
    env.reset(seed=seed)
    delay, done = 0.0, False
    while not done:
        _, _, terminated, truncated, info = env.step(controller.action(env))
        delay += info["delay"]
        done = terminated or truncated
    return delay


@pytest.mark.parametrize("options", [{}, {"reward": "queue_change", "dtype": "float32", "scheme": "muscl"}])
@pytest.mark.parametrize("checker", ["gymnasium", "sb3"])
def test_checkers_have_nothing_to_say(checker: str, options: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ID, render_mode="rgb_array", **options)
        if checker == "gymnasium":
            gymnasium_check(env.unwrapped)
        else:
            from stable_baselines3.common.env_checker import check_env

            check_env(env.unwrapped, warn=True)


def test_registering_twice_is_silent_and_loads_no_engine() -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error'); import arzbench.traffic.env as e;"
        "e.register_envs();"
        "import gymnasium; s = gymnasium.spec('arzbench/TrafficLight-v0');"
        "print(s.max_episode_steps, sorted({'numba', 'torch'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[0] == "240 []"
    assert out.stderr == ""


def test_other_seed_other_episode() -> None:
    env = TrafficLightEnv()
    env.reset(seed=1)
    first = play(env, 20, seed=0)[1]
    env.reset(seed=2)
    assert play(env, 20, seed=0)[1] != first


@pytest.mark.parametrize("reward", ["delay", "queue_change"])
def test_a_captured_episode_goes_on_bit_for_bit(reward: str) -> None:
    env = TrafficLightEnv(reward=reward, render_mode="rgb_array")
    env.reset(seed=4)
    play(env, 50, seed=1)
    state, bits = env.get_state(), env.np_random.bit_generator.state
    seen, rewards = play(env, 60, seed=2)
    image, after = env.render(), env.reset()[0]

    other = TrafficLightEnv(reward=reward, render_mode="rgb_array")
    other.reset(seed=99)
    play(other, 7, seed=3)
    other.set_state(state)
    other.np_random.bit_generator.state = bits
    seen_again, rewards_again = play(other, 60, seed=2)
    np.testing.assert_array_equal(seen, seen_again)
    assert rewards == rewards_again
    np.testing.assert_array_equal(image, other.render())
    np.testing.assert_array_equal(after, other.reset()[0])


def test_captured_state_is_plain_and_apart() -> None:
    env = TrafficLightEnv()
    env.reset(seed=0)
    state = env.get_state()
    assert all(isinstance(value, np.ndarray | int | float | bool) for value in state.values())
    before = state["u"].copy()
    play(env, 5, seed=0)
    np.testing.assert_array_equal(state["u"], before)


def test_a_foreign_state_is_refused() -> None:
    env = TrafficLightEnv()
    env.reset(seed=0)
    state = env.get_state()
    with pytest.raises(ValueError, match="lacks phase"):
        env.set_state({k: v for k, v in state.items() if k != "phase"})
    with pytest.raises(ValueError, match="u has shape"):
        env.set_state(state | {"u": state["u"][:1]})
    with pytest.raises(ValueError, match="type float32"):
        TrafficLightEnv(dtype="float64").set_state(state | {"u": state["u"].astype(np.float32)})


@pytest.mark.parametrize(
    ("option", "valid"),
    [
        ("parameters", "default, incident"),
        ("scheme", "first_order, muscl, weno5"),
        ("dtype", "float32, float64"),
        ("demand", "quiet, mixed, rush"),
        ("reward", "delay, queue_change"),
        ("render_mode", "human, rgb_array"),
    ],
)
def test_an_unknown_value_names_itself_and_the_valid_ones(option: str, valid: str) -> None:
    with pytest.raises(ValueError, match=f"{option}='nonsense' is not one of {valid}"):
        TrafficLightEnv(**{option: "nonsense"})


def test_an_unknown_action_is_refused() -> None:
    env = TrafficLightEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action=2"):
        env.step(2)


def test_the_light_decides_who_crosses() -> None:
    """All-green and all-red on an approach differ more than tenfold in throughput."""
    crossed = []
    for action in (0, 1):
        env = TrafficLightEnv(demand="rush")
        env.reset(seed=3)
        crossed.append(sum(env.step(action)[4]["throughput"] for _ in range(240)))
        assert abs(env.balance()) <= 1e-12 * env.state.totals.sum()
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
    play(env, 40, seed=5)
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
    for seed in (0, 1):
        fixed = delay_of("fixed_time", seed)
        assert delay_of("max_pressure", seed) < 0.8 * fixed
        assert delay_of("longest_queue", seed) < 0.8 * fixed


def test_fixed_time_is_sixty_sixty() -> None:
    controller, env = FixedTime(), TrafficLightEnv()
    for seed in range(2):
        env.reset(seed=seed)
        chosen = []
        for _ in range(10):
            chosen.append(controller.action(env))
            env.step(chosen[-1])
        assert chosen == [0] * 4 + [1] * 4 + [0] * 2


@pytest.mark.parametrize("demands", [CROSSING, RAMP, LANE_DROP])
def test_demand_is_ordered_quiet_to_rush(demands: Demands) -> None:
    for origin in range(len(demands["quiet"])):
        means = []
        for name in ("quiet", "mixed", "rush"):
            rng = np.random.default_rng(0)
            samples = [demands[name][origin].sample(240, rng) for _ in range(20)]
            assert min(s.min() for s in samples) > 0
            means.append(np.mean(samples))
        assert means == sorted(means)


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def log(self, tag: str, template: str, *args: object) -> None:
        self.lines.append((tag, template % args))


def test_messages_come_seven_for_each_boundary_application() -> None:
    env = TrafficLightEnv()
    env.reset(seed=0)
    env.step(0)
    env.message_log = log = Lines()
    env.step(0)
    applications = env.scenario.substeps * 3 * 2
    assert len(log.lines) == 7 * applications
    assert sum(tag == "DEBUG_BC_GPU" for tag, _ in log.lines) == 4 * applications
    assert sum(tag == "DEBUG_BC_DISPATCHER" for tag, _ in log.lines) == 3 * applications
    rho_m = float(env.state.u[0, 0, 3])
    assert log.lines[0][1].startswith(f"inflow_L: [{rho_m!r}, ")


def test_messages_change_nothing() -> None:
    quiet, loud = TrafficLightEnv(), TrafficLightEnv()
    loud.message_log = Lines()
    quiet.reset(seed=3)
    loud.reset(seed=3)
    np.testing.assert_array_equal(play(quiet, 5, seed=0)[0], play(loud, 5, seed=0)[0])


def test_render_shows_both_roads() -> None:
    env = TrafficLightEnv(render_mode="rgb_array")
    env.reset(seed=0)
    play(env, 30, seed=0)
    image = env.render()
    assert image.shape == (2 * 201, 60, 3)
    assert image.dtype == np.uint8
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10

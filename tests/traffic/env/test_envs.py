"""What all environments have in common: the checkers, seeds, capture, options, baselines, pictures."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from arzbench.traffic.env import ENVIRONMENTS
from arzbench.traffic.env.base import ArzEnv
from arzbench.traffic.env.crossing import FixedTime, TrafficLightEnv
from arzbench.traffic.env.freeway import Alinea, NoControl, SpeedControlEnv
from arzbench.traffic.env.vector import env_class

NAMES = sorted(ENVIRONMENTS)


def play(env: ArzEnv, steps: int, seed: int) -> tuple[list[np.ndarray], list[float]]:
    """Observations and rewards under actions drawn from `seed`."""
    actions = np.random.default_rng(seed).integers(0, env.batch.actions, steps)
    observations, rewards, *_ = zip(*map(env.step, actions), strict=True)
    return list(observations), list(rewards)


@pytest.mark.parametrize(
    "imports",
    ["arzbench.traffic.env", "arzbench._plugin, arzbench.traffic.env", "arzbench._plugin, gymnasium"],
)
def test_registering_is_silent_and_loads_no_engine(imports: str) -> None:
    """`arzbench._plugin` is what Python imports at its start where arzbench is installed."""
    code = (
        f"import sys, warnings; warnings.simplefilter('error'); import {imports};"
        "import gymnasium; print(gymnasium.spec('arzbench/TrafficLight-v0').max_episode_steps);"
        "print(*{'numba', 'torch'} & set(sys.modules)); import arzbench.traffic.env as e; e.register_envs()"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "240\n\n"
    assert out.stderr == ""


@pytest.mark.parametrize("options", [{}, {"reward": "queue_change", "dtype": "float32", "scheme": "muscl"}])
@pytest.mark.parametrize("name", NAMES)
def test_checkers_have_nothing_to_say(name: str, options: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(name, render_mode="rgb_array", **options)
        gymnasium_check(env.unwrapped)
        sb3_check(env.unwrapped, warn=True)


@pytest.mark.parametrize("reward", ["delay", "queue_change"])
@pytest.mark.parametrize("name", NAMES)
def test_a_captured_episode_goes_on_bit_for_bit(name: str, reward: str) -> None:
    env, other = (env_class(name)(reward=reward, demand="rush", render_mode="rgb_array") for _ in range(2))
    env.reset(seed=4)
    play(env, 50, seed=1)
    state, bits = env.get_state(), env.np_random.bit_generator.state
    assert all(isinstance(value, np.ndarray | int | float | bool) for value in state.values())
    expected = (*play(env, 60, seed=2), env.render(), env.reset()[0])
    other.reset(seed=99)
    assert play(other, 7, seed=3)[1] != expected[1][:7]
    other.set_state(state)
    other.np_random.bit_generator.state = bits
    for a, b in zip((*play(other, 60, seed=2), other.render(), other.reset()[0]), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("option", "valid"),
    [
        ("parameters", "default, incident"),
        ("scheme", "first_order, muscl, weno5"),
        ("dtype", "float32, float64"),
        ("demand", "quiet, mixed, rush"),
        ("reward", "delay, queue_change"),
        ("render_mode", "human, rgb_array"),
        ("device", "cpu, cuda, auto"),
    ],
)
def test_an_unknown_value_names_itself_and_the_valid_ones(option: str, valid: str) -> None:
    with pytest.raises(ValueError, match=f"{option}='nonsense' is not one of {valid}"):
        TrafficLightEnv(**{option: "nonsense"})


@pytest.mark.parametrize("name", NAMES)
def test_demand_is_ordered_quiet_to_rush(name: str) -> None:
    demands = env_class(name).batch_type.demands
    for origin in range(len(demands["quiet"])):
        means = []
        for level in ("quiet", "mixed", "rush"):
            rng = np.random.default_rng(0)
            samples = [demands[level][origin].sample(240, rng) for _ in range(20)]
            assert min(s.min() for s in samples) > 0
            means.append(np.mean(samples))
        assert means == sorted(means)


@pytest.mark.parametrize("name", NAMES)
def test_baselines_act_and_other_actions_are_refused(name: str) -> None:
    env = gymnasium.make(name)
    env.reset(seed=0)
    controllers = [make() for make in env.unwrapped.baseline_controllers.values()]
    for controller in controllers:
        controller.reset()
        assert env.action_space.contains(np.int64(controller.action(env)))
    choices = range(env.action_space.n)
    with pytest.raises(
        ValueError, match=f"action={len(choices)} is not one of {', '.join(map(str, choices))}$"
    ):
        env.step(len(choices))


@pytest.mark.parametrize(
    ("controller", "env", "needed"),
    [
        (FixedTime, SpeedControlEnv, "CrossingBatch"),
        (NoControl, TrafficLightEnv, "FreewayBatch"),
        (Alinea, SpeedControlEnv, "RampBatch"),
    ],
)
def test_a_controller_refuses_another_environment(controller: type, env: type, needed: str) -> None:
    with pytest.raises(TypeError, match=f"is not a {needed}"):
        controller().action(env())


def test_a_picture_shows_both_roads() -> None:
    env = TrafficLightEnv(render_mode="rgb_array")
    env.reset(seed=0)
    play(env, 30, seed=0)
    image = env.render()
    assert image.shape == (2 * 201, 60, 3)
    assert image.dtype == np.uint8
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10

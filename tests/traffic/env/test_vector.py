"""Vector environments: the numbers of single ones, episode ends, threads, capture."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from arzbench.traffic.env import ENVIRONMENTS
from arzbench.traffic.env.vec_env import ArzVecEnv
from arzbench.traffic.env.vector import ArzVectorEnv, env_class

ENVS, STEPS = 3, 245  # past the end of an episode
KINDS = {
    "arzbench/TrafficLight-v0": {"demand": "rush", "reward": "delay", "dtype": "float64"},
    "arzbench/RampMetering-v0": {"demand": "rush", "reward": "queue_change", "dtype": "float64"},
    "arzbench/SpeedControl-v0": {"demand": "rush", "reward": "delay", "dtype": "float32"},
}


def draw(name: str, seed: int) -> np.ndarray:
    """Actions of ENVS environments for STEPS decisions."""
    return np.random.default_rng(seed).integers(0, env_class(name).batch_type.actions, (STEPS, ENVS))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_make_vec_makes_one_batch_that_speaks_as_gymnasiums_own(name: str, threads: int) -> None:
    """Whole episodes that end at different times, against a vector of single environments, bit for bit."""
    batch = gymnasium.make_vec(name, num_envs=ENVS, threads=threads, **KINDS[name])
    assert isinstance(batch.unwrapped, ArzVectorEnv)
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    singles = gymnasium.make_vec(
        name, ENVS, "sync", vector_kwargs=same_step, max_episode_steps=None, **KINDS[name]
    )
    np.testing.assert_equal(batch.reset(seed=7), singles.reset(seed=7))
    for i, env in enumerate(singles.envs):
        batch.unwrapped.batch.time[i] = env.unwrapped.batch.time[0] = i
    ends = 0
    for row in draw(name, 2):
        *values, infos = batch.step(row)
        *expected_values, expected = singles.step(row)
        np.testing.assert_equal(values, expected_values)
        ended = np.flatnonzero(values[3])
        ends += len(ended)
        assert infos.keys() == expected.keys()
        for key in infos:
            for i in range(ENVS) if key.startswith("_") or not key.startswith("final") else ended:
                if key == "final_info":
                    np.testing.assert_equal(
                        *({k: v[i] for k, v in d[key].items()} for d in (infos, expected))
                    )
                else:
                    np.testing.assert_array_equal(infos[key][i], expected[key][i])
    assert ends == ENVS
    counters = batch.unwrapped.batch.counters()
    assert set(counters) - {name for name, count in counters.items() if count == 0} <= {"limited_faces"}


@pytest.mark.parametrize("name", KINDS)
def test_sb3_vector_gives_the_same_numbers(name: str) -> None:
    env, gymnasiums = (kind(name, ENVS, **KINDS[name]) for kind in (ArzVecEnv, ArzVectorEnv))
    env.seed(10)
    np.testing.assert_array_equal(env.reset(), gymnasiums.reset(seed=10)[0])
    for row in draw(name, 0):
        observations, rewards, done, infos = env.step(row)
        expected, expected_rewards, _, truncated, accounts = gymnasiums.step(row)
        np.testing.assert_array_equal(observations, expected)
        np.testing.assert_array_equal(rewards, np.float32(expected_rewards))
        np.testing.assert_array_equal(done, truncated)
        of_step = accounts["final_info"] if done.any() else accounts
        for i, info in enumerate(infos):
            for key in ("throughput", "queue", "delay", "stops"):
                assert info[key] == of_step[key][i]
            assert info["TimeLimit.truncated"] == done[i]
            if done[i]:
                np.testing.assert_array_equal(info["terminal_observation"], accounts["final_obs"][i])


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_captured_environments_go_on_bit_for_bit(name: str) -> None:
    """Past the end of their episodes, so that what is drawn next is the same too."""
    actions = draw(name, 1)
    kinds = ArzVectorEnv, ArzVectorEnv, ArzVecEnv
    env, other, third = (kind(name, ENVS, demand="rush", scheme="muscl") for kind in kinds)
    env.reset(seed=3)
    other.reset(seed=50)
    for row in actions[:100]:
        env.step(row)
    states = env.get_state()
    other.set_state(states)
    third.set_state(states)
    np.testing.assert_array_equal(third.step(actions[100])[0], other.step(actions[100])[0])
    other.set_state(states)
    for row in actions[100:]:
        np.testing.assert_equal(other.step(row), env.step(row))


def test_sb3_trains_on_it() -> None:
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", ArzVecEnv("arzbench/TrafficLight-v0", 4), n_steps=16, batch_size=32, seed=0)
    model.learn(128)
    assert model.num_timesteps == 128


def test_sb3_methods_speak_for_the_batch() -> None:
    env = ArzVecEnv("arzbench/TrafficLight-v0", 2)
    env.reset()
    assert env.get_attr("roads") == [2, 2]
    assert [state["time"] for state in env.env_method("get_state", indices=[1])] == [0]
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False, False]
    with pytest.raises(NotImplementedError, match="threads"):
        env.set_attr("threads", 2)


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match="env='CartPole-v1' is not one of arzbench/TrafficLight-v0"):
        ArzVectorEnv("CartPole-v1", 2)
    with pytest.raises(ValueError, match="scheme='x'"):
        ArzVectorEnv("arzbench/TrafficLight-v0", 2, scheme="x")
    with pytest.raises(ValueError, match="max_episode_steps=10"):
        gymnasium.make_vec("arzbench/TrafficLight-v0", num_envs=2, max_episode_steps=10)
    env = ArzVectorEnv("arzbench/TrafficLight-v0", 2)
    with pytest.raises(ValueError, match="3 seeds: one for each of 2 environments"):
        env.reset(seed=[1, 2, 3])
    env.reset(seed=np.int64(4))
    with pytest.raises(ValueError, match=r"actions \[0.5, 0.0\] are not all whole numbers"):
        env.step(np.array([0.5, 0.0]))
    with pytest.raises(ValueError, match="action=7"):
        env.step(np.array([0, 7]))
    with pytest.raises(ValueError, match=r"actions of shape \(3,\): one for each of 2 environments"):
        env.step(np.array([0, 1, 0]))
    assert env.batch.time.tolist() == [0, 0]
    env.step(np.zeros(2))
    assert env.batch.time.tolist() == [1, 1]


def test_foreign_states_change_nothing() -> None:
    env = ArzVectorEnv("arzbench/TrafficLight-v0", 2)
    env.reset(seed=0)
    env.step(np.array([1, 1]))
    states = env.get_state()
    other = ArzVectorEnv("arzbench/TrafficLight-v0", 2)
    other.reset(seed=1)
    before = other.get_state()
    with pytest.raises(ValueError, match="1 states: one for each of 2 environments"):
        other.set_state(states[:1])
    with pytest.raises(ValueError, match="state lacks np_random, time"):
        other.set_state([states[0], {k: v for k, v in states[1].items() if k not in ("time", "np_random")}])
    with pytest.raises(ValueError, match="u has shape"):
        other.set_state([states[0], states[1] | {"u": states[1]["u"][:1]}])
    with pytest.raises(ValueError, match="type float32"):
        other.set_state([states[0], states[1] | {"u": states[1]["u"].astype(np.float32)}])
    for a, b in zip(before, other.get_state(), strict=True):
        np.testing.assert_equal(a, b)

"""Vector environments: the numbers of single ones, episode ends, threads."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import arzbench.traffic.env
from arzbench.traffic.env.sb3 import ArzVecEnv
from arzbench.traffic.env.vector import BATCHES, ArzVectorEnv

arzbench.traffic.env.register_envs()
ENVS, STEPS = 3, 245  # past the end of an episode


def single(name: str, seed: int, actions: np.ndarray, **options: str) -> list[tuple]:
    """Steps of one environment, reset when it ends: (observation, reward, done, info, last)."""
    env = gymnasium.make(name, **options)
    seen = [(env.reset(seed=seed)[0], 0.0, False, {}, None)]
    for action in actions:
        observation, reward, _, done, info = env.step(action)
        last = observation
        if done:
            observation, _ = env.reset()
        seen.append((observation, reward, done, info, last))
    return seen


@pytest.fixture(scope="module", params=[("arzbench/TrafficLight-v0", "delay", "float64"),
                                        ("arzbench/RampMetering-v0", "queue_change", "float64"),
                                        ("arzbench/SpeedControl-v0", "delay", "float32")])  # fmt: skip
def expected(request: pytest.FixtureRequest) -> tuple[str, dict[str, str], np.ndarray, list[list[tuple]]]:
    name, reward, dtype = request.param
    options = {"reward": reward, "dtype": dtype, "demand": "rush"}
    actions = np.random.default_rng(0).integers(0, BATCHES[name].actions, (STEPS, ENVS))
    return name, options, actions, [single(name, 10 + i, actions[:, i], **options) for i in range(ENVS)]


@pytest.mark.parametrize("threads", [1, 2])
def test_gymnasium_vector_gives_the_single_numbers(expected: tuple, threads: int) -> None:
    name, options, actions, runs = expected
    env = ArzVectorEnv(name, ENVS, threads=threads, **options)
    observations, _ = env.reset(seed=10)
    np.testing.assert_array_equal(observations, [run[0][0] for run in runs])
    for t, row in enumerate(actions, start=1):
        observations, rewards, terminated, truncated, infos = env.step(row)
        np.testing.assert_array_equal(observations, [run[t][0] for run in runs])
        assert rewards.tolist() == [run[t][1] for run in runs]
        assert not terminated.any()
        assert truncated.tolist() == [run[t][2] for run in runs]
        accounts = infos["final_info"] if truncated.any() else infos
        assert accounts["delay"].tolist() == [run[t][3]["delay"] for run in runs]
        if truncated.any():
            assert not infos["delay"].any()  # of the new episode
            np.testing.assert_array_equal(infos["final_obs"], [run[t][4] for run in runs])
            assert infos["_final_obs"].all()


def test_sb3_vector_gives_the_single_numbers(expected: tuple) -> None:
    name, options, actions, runs = expected
    env = ArzVecEnv(name, ENVS, **options)
    env.seed(10)
    np.testing.assert_array_equal(env.reset(), [run[0][0] for run in runs])
    for t, row in enumerate(actions, start=1):
        observations, rewards, done, infos = env.step(row)
        np.testing.assert_array_equal(observations, [run[t][0] for run in runs])
        assert rewards.tolist() == [np.float32(run[t][1]) for run in runs]
        assert done.tolist() == [run[t][2] for run in runs]
        for i, info in enumerate(infos):
            assert {key: info[key] for key in runs[i][t][3]} == runs[i][t][3]
            assert info["TimeLimit.truncated"] == runs[i][t][2]
            if done[i]:
                np.testing.assert_array_equal(info["terminal_observation"], runs[i][t][4])


def test_sb3_trains_on_it() -> None:
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", ArzVecEnv("arzbench/TrafficLight-v0", 4), n_steps=16, batch_size=32, seed=0)
    model.learn(128)
    assert model.num_timesteps == 128


def test_sb3_methods_speak_for_the_batch() -> None:
    env = ArzVecEnv("arzbench/TrafficLight-v0", 2)
    env.reset()
    assert env.get_attr("roads") == [2, 2]
    assert env.env_method("get_control", indices=[1]) == [{"phase": 0, "since_switch": 0}]
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False, False]
    with pytest.raises(NotImplementedError, match="threads"):
        env.set_attr("threads", 2)


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match="env='CartPole-v1' is not one of arzbench/TrafficLight-v0"):
        ArzVectorEnv("CartPole-v1", 2)
    with pytest.raises(ValueError, match="scheme='x'"):
        ArzVectorEnv("arzbench/TrafficLight-v0", 2, scheme="x")
    env = ArzVectorEnv("arzbench/TrafficLight-v0", 2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action=7"):
        env.step(np.array([0, 7]))
    with pytest.raises(ValueError, match=r"actions of shape \(3,\): one for each of 2 environments"):
        env.step(np.array([0, 1, 0]))
    assert env.episodes.batch.time.tolist() == [0, 0]


@pytest.mark.parametrize("name", sorted(BATCHES))
def test_captured_environments_go_on_bit_for_bit(name: str) -> None:
    """Past the end of their episodes, so that what is drawn next is the same too."""
    actions = np.random.default_rng(1).integers(0, BATCHES[name].actions, (STEPS, ENVS))
    env, other = (ArzVectorEnv(name, ENVS, demand="rush", scheme="muscl") for _ in range(2))
    env.reset(seed=3)
    other.reset(seed=50)
    other.step(actions[0])
    for row in actions[:100]:
        env.step(row)
    states = env.get_state()
    seen = [env.step(row) for row in actions[100:]]
    other.set_state(states)
    for row, (observations, rewards, _, done, infos) in zip(actions[100:], seen, strict=True):
        again = other.step(row)
        np.testing.assert_array_equal(again[0], observations)
        np.testing.assert_array_equal(again[1], rewards)
        np.testing.assert_array_equal(again[3], done)
        np.testing.assert_array_equal(again[4]["stops"], infos["stops"])
    third = ArzVecEnv(name, ENVS, demand="rush", scheme="muscl")
    third.set_state(states)
    np.testing.assert_array_equal(third.step(actions[100])[0], seen[0][0])


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
    for a, b in zip(before, other.get_state(), strict=True):
        np.testing.assert_equal(a, b)


@pytest.mark.parametrize("name", sorted(BATCHES))
def test_make_vec_makes_one_batch_that_speaks_as_gymnasiums_own(name: str) -> None:
    """Environments whose episodes end at different times, against a vector of single ones."""
    batch = gymnasium.make_vec(name, num_envs=3, demand="rush", scheme="muscl")
    assert isinstance(batch.unwrapped, ArzVectorEnv)
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    singles = gymnasium.make_vec(
        name, 3, "sync", vector_kwargs=same_step, demand="rush", scheme="muscl", max_episode_steps=None
    )
    np.testing.assert_equal(batch.reset(seed=7), singles.reset(seed=7))
    for i, env in enumerate(singles.envs):
        batch.unwrapped.episodes.batch.time[i] = env.unwrapped.batch.time[0] = 236 + i
    actions = np.random.default_rng(2).integers(0, BATCHES[name].actions, (6, 3))
    ends = 0
    for row in actions:
        *mine, infos = batch.step(row)
        *theirs, expected = singles.step(row)
        np.testing.assert_equal(mine, theirs)
        ended = np.flatnonzero(mine[3])
        ends += len(ended)
        assert infos.keys() == expected.keys()
        for key in infos:
            for i in range(3) if key.startswith("_") or not key.startswith("final") else ended:
                if key == "final_info":
                    np.testing.assert_equal(
                        *({k: v[i] for k, v in d[key].items()} for d in (infos, expected))
                    )
                else:
                    np.testing.assert_array_equal(infos[key][i], expected[key][i])
    assert ends == 3


def test_what_a_batch_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="max_episode_steps=10"):
        gymnasium.make_vec("arzbench/TrafficLight-v0", num_envs=2, max_episode_steps=10)
    env = ArzVectorEnv("arzbench/TrafficLight-v0", 3)
    with pytest.raises(ValueError, match="2 seeds: one for each of 3 environments"):
        env.reset(seed=[1, 2])
    env.reset(seed=np.int64(4))
    with pytest.raises(ValueError, match=r"actions \[0.5, 0.0, 0.0\] are not all whole numbers"):
        env.step(np.array([0.5, 0.0, 0.0]))
    env.step(np.zeros(3))
    assert env.episodes.batch.time.tolist() == [1, 1, 1]

"""Envs that are stepped together: the same bits as one by one, in training and in evaluations."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from arzbench.clock import VirtualClock
from arzbench.facts import StopReason
from arzbench.sb3 import codec, together
from arzbench.sb3.batch_episodes import BatchEpisodes
from arzbench.sb3.env_errors import is_of_env
from arzbench.sb3.plugins import register_plugins
from arzbench.sb3.workload import SB3Workload, make_model
from arzbench.study import TrainConfig
from arzbench.traffic.env import ENVIRONMENTS
from arzbench.traffic.env.base import step_together
from arzbench.workload import StopTraining
from tests.sb3.cases import whole
from tests.sb3.controls import Free, Log, StopAt, config, start, through_bytes, tidy  # noqa: F401
from tests.sb3.envs import Joined

#: each kind of env, in a training of 2,000 steps whose episodes end on the way, and in what it is wrapped
KINDS: dict[str, dict[str, Any]] = {
    "arzbench/TrafficLight-v0": {"n_steps": 50, "batch_size": 100},
    "arzbench/RampMetering-v0": {"n_steps": 50, "batch_size": 100, "vec_normalize": True},
    "arzbench/SpeedControl-v0": {"n_steps": 50, "batch_size": 100, "frame_stack": 2},
}


def one_by_one(study: TrainConfig) -> TrainConfig:
    return msgspec.structs.replace(study, fast=False)


def ppo(env: str, **table: Any) -> TrainConfig:
    """On cheap roads."""
    kwargs = {"scheme": "first_order", "demand": "rush"} if env.startswith("arzbench/") else {}
    return config("ppo", env=env, env_kwargs=kwargs, n_epochs=1, logging={"mode": "off"}, seed=5, **table)


@pytest.fixture(autouse=True)
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many envs were stepped together, each time."""
    register_plugins()
    step, sizes = together.Together.step, []

    def counted(self: together.Together, actions: Any) -> Any:
        sizes.append(len(self._seats))
        return step(self, actions)

    monkeypatch.setattr(together.Together, "step", counted)
    return sizes


@pytest.mark.parametrize("env", sorted(ENVIRONMENTS))
def test_a_vectorised_env_gives_what_single_envs_give(env: str) -> None:
    """Observations, rewards, ends, and every entry of the infos, of a step and of a reset."""
    study = ppo(env, n_envs=4, total_timesteps=100, n_steps=25, batch_size=50)
    ours, singles = (make_model(s)[0].env for s in (study, one_by_one(study)))
    assert (type(ours), "step_wait" in vars(ours), "step_wait" in vars(singles)) == (DummyVecEnv, True, False)
    for vec_env in (ours, singles):
        vec_env.seed(11)
    np.testing.assert_equal(ours.reset(), singles.reset())
    draw, ends = np.random.default_rng(0), 0
    for _ in range(500):
        actions = draw.integers(0, ours.action_space.n, 4)
        found, expected = ours.step(actions), singles.step(actions)
        for info in (*found[3], *expected[3]):
            ends += "terminal_observation" in info
            if "episode" in info:
                assert info["episode"].pop("t") >= 0.0  # the clock's
        np.testing.assert_equal(found, expected)
        assert [list(info) for info in found[3]] == [list(info) for info in expected[3]]
        assert [a.dtype for a in found[:3]] == [a.dtype for a in expected[:3]]
        np.testing.assert_equal(ours.reset_infos, singles.reset_infos)
    assert ends == 2 * 4 * 2
    assert ours.get_attr("render_mode") == [None] * 4
    assert ours.env_method("get_wrapper_attr", "time") == singles.env_method("get_wrapper_attr", "time")


@pytest.mark.parametrize("env", KINDS)
def test_a_training_goes_on_in_the_same_bits_whichever_way_it_was_begun(env: str) -> None:
    evaluation = {"eval_freq": 200, "n_eval_episodes": 2, "final_episodes": 3}
    study = ppo(env, n_envs=4, total_timesteps=2000, evaluation=evaluation, **KINDS[env])
    expected, _, reference = whole(one_by_one(study))
    kinds = [(r.kind, r.num_timesteps) for r in reference.state.episodes.results]
    assert Counter(kinds) == Counter([("evaluation", 800), ("evaluation", 1600), ("final", 2000)])
    for first, then in ((study, study), (one_by_one(study), study), (study, one_by_one(study))):
        training, _ = start(first)
        with pytest.raises(StopTraining):
            training.run(StopAt(333))
        assert 500 < training.num_timesteps < 1500
        state = through_bytes(training.capture())
        resumed, _ = start(then, state)
        assert (state.tier, resumed.resumed) == ("exact", "exact")
        resumed.run(Free())
        assert resumed.fingerprint() == expected
        assert resumed.state.episodes.results == reference.state.episodes.results
        assert resumed.facts() == reference.facts()


@pytest.mark.parametrize("env", sorted(ENVIRONMENTS))
def test_threads_do_not_matter(env: str) -> None:
    study = ppo(env, n_envs=7, total_timesteps=70, n_steps=10, batch_size=35)
    few, many = (make_model(one_by_one(study))[0].env for _ in range(2))
    bare = [[one.unwrapped for one in vec_env.envs] for vec_env in (few, many)]
    for vec_env in (few, many):
        vec_env.seed(2)
        vec_env.reset()
    steps = [step_together(envs, threads) for envs, threads in zip(bare, (1, 3), strict=True)]
    assert all(steps)
    draw = np.random.default_rng(1)
    for _ in range(60):
        actions = draw.integers(0, few.action_space.n, 7)
        np.testing.assert_equal(*(step(actions) for step in steps if step is not None))
    np.testing.assert_equal(*([one.get_state() for one in envs] for envs in bare))


@pytest.mark.parametrize("mode", ["off", "periodic", "every"])
def test_messages_come_in_the_same_order(tmp_path: Path, mode: str, groups: list[int]) -> None:
    study = config("a2c", env="arztest/Joined-v0", n_envs=3, total_timesteps=75,
                   logging={"mode": mode, "log_period": 7},
                   evaluation={"eval_freq": 5, "n_eval_episodes": 2})  # fmt: skip
    texts, logs = [], []
    for way in (study, one_by_one(study)):
        path = tmp_path / f"{way.fast}.log"
        logs.append(Log())
        training = SB3Workload(VirtualClock(), path).create(way, logs[-1])
        training.run(Free())
        training.close()
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    assert bool(texts[0]) == (mode != "off")
    units = [{phase: units for phase, (_, units) in log.totals.totals.items()} for log in logs]
    assert units[0] == units[1]
    at_once = {3} if mode != "off" else {2, 3}  # an evaluation with messages is played one by one
    assert set(groups) == at_once


def test_messages_of_our_own_env_come_in_the_same_order(tmp_path: Path) -> None:
    study = config("a2c", env="arzbench/TrafficLight-v0", env_kwargs={"scheme": "first_order"}, n_envs=2,
                   total_timesteps=20, logging={"mode": "periodic", "log_period": 500})  # fmt: skip
    texts = []
    for way in (study, one_by_one(study)):
        training = SB3Workload(VirtualClock(), tmp_path / f"{way.fast}.log").create(way, Log())
        training.run(Free())
        training.close()
        texts.append((tmp_path / f"{way.fast}.log").read_text())
    assert texts[0] == texts[1] != ""


#: episodes end early and at different times; each evaluation has more than are played at once, or fewer
EVALUATED: dict[str, Any] = {
    "n_envs": 2, "n_steps": 8, "batch_size": 8, "n_epochs": 1, "total_timesteps": 64, "seed": 1,
    "evaluation": {"eval_freq": 7, "n_eval_episodes": 4, "final_episodes": 6},
    "env_kwargs": {"ends": 0.1}, "logging": {"mode": "off"},
}  # fmt: skip


@pytest.mark.parametrize("own", [{}, {"vec_normalize": True}, {"frame_stack": 3, "vec_normalize": True}])
def test_episodes_at_once_are_those_played_one_by_one(own: dict[str, Any], groups: list[int]) -> None:
    study = config("ppo", env="arztest/Joined-v0", **EVALUATED, **own)
    expected, _, reference = whole(one_by_one(study))
    assert not groups
    found, control, training = whole(study)
    assert found == expected
    results = training.state.episodes.results
    assert results == reference.state.episodes.results
    lengths = [n for r in results for n in r.lengths]
    assert len(set(lengths)) > 3
    assert {1, 2, 3, 4} == set(groups)  # episodes that ended drop out
    draw = random.Random(str(own))
    for _ in range(6):  # stopped anywhere, within an evaluation or not
        stop = StopAt(draw.randrange(control.count - 2))
        stopped, _ = start(study)
        with pytest.raises(StopTraining):
            stopped.run(stop)
        way = draw.choice([study, one_by_one(study)])
        resumed, _ = start(way, through_bytes(stopped.capture()))
        resumed.run(Free())
        assert resumed.fingerprint() == expected, f"stopped at {stop.at}: {stop.where}"
        assert resumed.state.episodes.results == results


def test_envs_that_share_an_array_share_it_after_a_resumption(groups: list[int]) -> None:
    study = config("ppo", env="arztest/Shared-v0", **EVALUATED)
    expected, control, reference = whole(one_by_one(study))
    assert not groups
    for first, then in ((study, study), (one_by_one(study), study), (study, one_by_one(study))):
        for at in (control.count // 3, control.count // 2):
            stopped, _ = start(first)
            with pytest.raises(StopTraining):
                stopped.run(StopAt(at))
            resumed, _ = start(then, through_bytes(stopped.capture()))
            assert resumed.resumed == "exact"
            resumed.run(Free())
            found = resumed.fingerprint()
            assert {k for k in found if found[k] != expected[k]} <= {
                "env",
                "evaluations",
            }  # laid out otherwise
            assert resumed.state.episodes.results == reference.state.episodes.results
    assert {2, 4} <= set(groups)


def test_an_episode_that_does_not_end_is_broken_off() -> None:
    table = {**EVALUATED, "evaluation": {**EVALUATED["evaluation"], "max_steps": 4}}
    study = config("ppo", env="arztest/Joined-v0", **table)
    expected, _, reference = whole(one_by_one(study))
    found, _, training = whole(study)
    assert found == expected
    assert training.state.episodes.results == reference.state.episodes.results
    assert training.state.episodes.broken_off == reference.state.episodes.broken_off == 4


def test_a_stop_leaves_what_one_by_one_leaves() -> None:
    """Nothing of the open episodes, and the env of evaluations as it was."""

    class StopIn(Free):
        asked = 0

        def during_episode(self, training: Any) -> None:
            self.asked += 1
            if self.asked == 3:
                raise StopTraining(StopReason.SIGNAL)

    study = config("ppo", env="arztest/Joined-v0", **EVALUATED)
    training, _ = start(study)
    before = codec.digest(training.state.episodes.plain.capture())
    with pytest.raises(StopTraining):
        training.run(StopIn())
    episodes = training.state.episodes
    assert (episodes.returns, episodes.lengths, episodes.results) == ([], [], [])
    assert codec.digest(episodes.plain.capture()) == before


def test_the_control_hears_how_many_are_played_at_once() -> None:
    told: list[tuple[str, int]] = []

    class Hears(Free):
        def before_episode(self, training: Any, kind: str, episodes: int = 1) -> None:
            told.append((kind, episodes))

    study = config("ppo", env="arztest/Joined-v0", **{**EVALUATED, "total_timesteps": 16},
                   baseline={"episodes": 2})  # fmt: skip
    training, _ = start(study)
    training.run(Hears())
    assert told == [("baseline", 1), ("baseline", 1), ("evaluation", 4), ("final", 4), ("final", 2)]


@pytest.mark.parametrize("own", [
    {"fast": False},
    {"env": "arztest/Unlike-v0"},
    {"wrappers": ["gymnasium.wrappers:Autoreset"]},
    {"n_envs": 1, "evaluation": {"eval_freq": 4, "n_eval_episodes": 2, "deterministic": False}},
])  # fmt: skip
def test_where_it_may_differ_envs_are_stepped_one_by_one(own: dict[str, Any], groups: list[int]) -> None:
    table = {**EVALUATED, "env": "arztest/Joined-v0", "total_timesteps": 16, **own}
    training, _ = start(config("ppo", **table))
    training.run(Free())
    assert len(training.state.episodes.results) >= 2
    assert not groups


def test_a_policy_that_draws_is_played_one_by_one(groups: list[int]) -> None:
    """The order of its draws is that of the episodes."""
    study = config("ppo", env="arztest/Joined-v0", **{**EVALUATED, "total_timesteps": 32})

    def played(way: TrainConfig) -> tuple[Any, dict[str, str]]:
        training, _ = start(way)
        predict = training.model.predict

        def whimsical(*args: Any, **kwargs: Any) -> Any:
            action, state = predict(*args, **kwargs)
            return (action + np.random.randint(2)) % 3, state

        training.model.predict = whimsical
        training.run(Free())
        del training.model.predict
        return training.state.episodes.results, training.fingerprint()

    expected = played(one_by_one(study))
    assert not groups
    assert played(study) == expected
    assert max(groups) == 4  # it was tried


def test_a_step_that_fails_leaves_none_behind() -> None:
    """What was made for envs that were not asked is not given out later."""
    study = config("ppo", env="arztest/Joined-v0", **EVALUATED)
    vec_env = make_model(study)[0].env
    vec_env.reset()
    vec_env.envs[1].needs_reset = True  # its Monitor refuses
    with pytest.raises(RuntimeError, match="needs reset"):
        vec_env.step(np.zeros(2, int))
    vec_env.reset()
    assert [env.unwrapped.t for env in vec_env.envs] == [0, 0]
    seen, *_ = vec_env.envs[1].step(0)
    assert vec_env.envs[1].unwrapped.t == 1
    np.testing.assert_array_equal(seen, vec_env.envs[1].unwrapped.observe())


@pytest.mark.parametrize("whose", ["the envs'", "the library's"])
def test_whose_error_it_is(monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    def step_together(envs: Any, threads: int) -> Any:
        return lambda actions: [][1] if whose == "the envs'" else [(None, None)] * len(envs)

    monkeypatch.setattr(Joined, "step_together", staticmethod(step_together))
    vec_env = make_model(config("ppo", env="arztest/Joined-v0", **EVALUATED))[0].env
    vec_env.reset()
    with pytest.raises((IndexError, gymnasium.error.Error)) as raised:
        vec_env.step(np.zeros(2, int))
    assert is_of_env(raised.value) == (whose == "the envs'")


def test_what_can_be_joined() -> None:
    study = config("ppo", env="arztest/Joined-v0", **EVALUATED)
    assert together.can(make_model(study)[1][0])
    plain = msgspec.structs.replace(study, env="arztest/Unlike-v0")
    assert not together.can(make_model(plain)[1][0])


def test_roads_on_a_gpu_are_not_joined() -> None:
    """Nor are more envs made there to evaluate in."""
    study = ppo("arzbench/TrafficLight-v0", n_envs=2, total_timesteps=20, n_steps=10, batch_size=20)
    _, envs = make_model(study)
    envs[1].unwrapped.batch.device = "cuda"
    assert step_together([env.unwrapped for env in envs], 1) is None
    assert BatchEpisodes(envs[1], None, 5, None).count(5) == 1
    envs[1].unwrapped.batch.device = "cpu"
    assert BatchEpisodes(envs[1], None, 5, None).count(3) == 3

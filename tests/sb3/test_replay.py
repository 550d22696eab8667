"""Envs that cannot be captured: the open episode is played again, believed only if it comes out the same."""

import random
from typing import Any

import gymnasium as gym
import msgspec
import numpy as np
import pytest

from arzbench.sb3 import codec, env_state, open_episodes
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import StopTraining
from tests.sb3.controls import Free, StopAt, config, start, through_bytes, tidy  # noqa: F401
from tests.sb3.envs import Drift


class Moody(Drift):
    """Its transitions come from a generator that nobody knows of."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.own = random.Random()

    def step(self, action: Any) -> Any:
        self.x = self.x + self.own.random()
        return super().step(action)


class Growing(Drift):
    """Remembers how many episodes it had: an env made anew is another one."""

    episodes = 0

    def reset(self, **kwargs: Any) -> Any:
        self.episodes += 1
        return super().reset(**kwargs)

    def observe(self) -> Any:
        return super().observe() + np.float32(self.episodes)


class Ending(Drift):
    """Ends at once when it is made anew after the first."""

    made = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        Ending.made += 1
        self.last = Ending.made > 2

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or self.last, truncated, info


for kind in (Moody, Growing, Ending):
    if f"arztest/{kind.__name__}-v0" not in gym.registry:
        gym.register(f"arztest/{kind.__name__}-v0", entry_point=kind)

OFF = {"learning_starts": 20, "batch_size": 8, "total_timesteps": 60, "env_kwargs": {"ends": 0.1}}
ON = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "total_timesteps": 48, "env_kwargs": {"ends": 0.1}}
EVALUATED = {"evaluation": {"eval_freq": 13, "n_eval_episodes": 2, "final_episodes": 1}, "seed": 3}
TOY = {"learning_starts": 10, "batch_size": 8, "total_timesteps": 60, **EVALUATED}
DRIFT = {"env": "arztest/Drift-v0", **EVALUATED}
CASES: dict[str, TrainConfig] = {
    "one env": config("dqn", **DRIFT, **OFF),
    "two envs": config("dqn", n_envs=2, **DRIFT, **OFF),
    "three envs, normalised, on policy": config("ppo", n_envs=3, vec_normalize=True, **DRIFT, **ON),
    "continuous actions": config("td3", n_envs=2, **DRIFT, **OFF),
    "a dict": config("sac", policy="MultiInputPolicy", **DRIFT, **{**OFF, "env_kwargs": {"mapping": True}}),
    "frozen lake": config("dqn", env="FrozenLake-v1", **TOY),
    "taxi": config("ppo", env="Taxi-v4", n_envs=2, n_steps=8, batch_size=8, n_epochs=1, total_timesteps=48),
    "cliff walking, one long episode": config("a2c", env="CliffWalking-v1", total_timesteps=60),
}  # fmt: skip


def stopped(study: TrainConfig, state: TrainingState | None, at: int) -> TrainingState:
    training, _ = start(study, state)
    with pytest.raises(StopTraining):
        training.run(StopAt(at))
    return through_bytes(training.capture())


def check_same_bits(study: TrainConfig) -> None:
    whole, _ = start(study)
    control = StopAt(10**9)
    whole.run(control)
    draw = random.Random(study.env)
    for _ in range(3):
        stops = [draw.randrange(control.count - 1), draw.randrange(1, 20)]
        state = stopped(study, None, stops[0])
        assert state.tier == "replay"
        if stops[0] + stops[1] < control.count - 2:
            state = stopped(study, state, stops[1])
        resumed, _ = start(study, state)
        assert resumed.resumed == "replay"
        resumed.run(Free())
        assert resumed.fingerprint() == whole.fingerprint(), f"stopped at {stops}"
        assert resumed.state.episodes.results == whole.state.episodes.results


@pytest.mark.parametrize("name", CASES)
def test_played_again_it_ends_in_the_same_bits(name: str) -> None:
    check_same_bits(CASES[name])


def test_a_classic_env_that_is_not_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(env_state.CLASSIC, "CartPoleEnv")
    check_same_bits(config("dqn", env="CartPole-v1", n_envs=2, **TOY))


def test_nothing_is_measured_or_told_of_a_replay() -> None:
    study = CASES["two envs"]
    state = stopped(study, None, 30)
    training, log = start(study, state)
    assert {phase.value for phase in log.totals.totals} <= {"build"}
    assert training.state.episodes_ended == [
        tuple(item) for item in state.values["groups"]["counters"]["ended"]
    ]


@pytest.mark.parametrize("env", ["Moody", "Growing", "Ending"])
def test_an_env_that_does_not_come_out_the_same_begins_anew_and_says_so(env: str) -> None:
    Ending.made = 0
    study = config("dqn", env=f"arztest/{env}-v0", **{**OFF, "env_kwargs": {}})
    state = stopped(study, None, 36)  # in its fourth episode
    assert state.tier == "replay"
    resumed, _ = start(study, state)
    assert resumed.resumed == "reset"
    assert [e.unwrapped.t for e in resumed.state.envs] == [0]
    assert not resumed.state.episodes_ended
    again = stopped(study, state, 5)
    assert again.tier == "reset", "what failed once is not promised again"
    resumed.run(Free())
    assert resumed.stage == "done"


@pytest.mark.parametrize("part", ["observation", "monitor", "random"])
def test_each_of_the_checks_alone_refuses(part: str) -> None:
    study = CASES["one env"]
    state = stopped(study, None, 25)
    values, arrays = dict(state.values), dict(state.arrays)
    group = codec.unpack(values["groups"]["env"], arrays)
    one = group["open"][0]
    if part == "observation":
        one["observation"]["None"] = one["observation"]["None"] + 1
    elif part == "monitor":
        one["monitor"]["rewards"]["list"] = one["monitor"]["rewards"]["list"] + 1
    else:
        one["random"]["env"]["state"]["state"] += 1
    values["groups"] = {**values["groups"], "env": codec.pack(group, "changed", arrays)}
    training, _ = start(study, msgspec.structs.replace(state, values=values, arrays=arrays))
    assert training.resumed == "reset"


def test_an_episode_longer_than_the_limit_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_episodes, "MAX_STEPS", 12)
    study = config("dqn", env="arztest/Drift-v0", **{**OFF, "env_kwargs": {"length": 20}})
    assert stopped(study, None, 12).tier == "replay"
    long = stopped(study, None, 16)
    assert long.tier == "reset"
    resumed, _ = start(study, long)
    assert resumed.resumed == "reset"
    assert stopped(study, long, 4).tier == "replay", "the next episode is short again"
    training, _ = start(study)
    with pytest.raises(StopTraining):
        training.run(StopAt(55))
    assert len(training.state.open_episodes._actions) == 12


def test_before_the_first_step_there_is_nothing_to_play() -> None:
    state = stopped(CASES["one env"], None, 0)
    assert state.tier == "replay"
    resumed, _ = start(CASES["one env"], state)
    assert (resumed.resumed, resumed.num_timesteps) == ("replay", 0)


def test_envs_that_are_captured_record_nothing() -> None:
    training, _ = start(config("dqn", **{**OFF, "env_kwargs": {}}))
    assert training.state.open_episodes is None
    assert "step_async" not in vars(open_episodes.innermost(training.model.env))

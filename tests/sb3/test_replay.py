"""Envs that cannot be seen whole: the open episode is played again, believed only if it comes out so."""

import random
from typing import Any

import gymnasium as gym
import pytest

from arzbench.sb3 import open_episodes, plain_walk
from arzbench.sb3.code_reach import name_of
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import StopTraining
from tests.sb3.controls import Free, StopAt, config, start, through_bytes, tidy  # noqa: F401
from tests.sb3.envs import Drift


class Compiled(Drift):
    """Keeps a counter that cannot be looked into, and makes it anew in each reset."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ticks = iter(range(1000))

    def reset(self, **kwargs: Any) -> Any:
        self.ticks = iter(range(1000))
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.x = self.x + 0.1 * next(self.ticks)
        return super().step(action)


class Kept(Compiled):
    """Does not make it anew: an env made anew is another one."""

    def reset(self, **kwargs: Any) -> Any:
        kept = self.ticks
        result = super().reset(**kwargs)
        self.ticks = kept
        return result


class Ending(Compiled):
    """Comes to end at once."""

    def over(self) -> bool:
        return False

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or self.over(), truncated, info


for kind in (Compiled, Kept, Ending):
    if f"arztest/{kind.__name__}-v0" not in gym.registry:
        gym.register(f"arztest/{kind.__name__}-v0", entry_point=kind)

OFF = {"learning_starts": 20, "batch_size": 8, "total_timesteps": 60, "env_kwargs": {"ends": 0.1}}
ON = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "total_timesteps": 48, "env_kwargs": {"ends": 0.1}}
COMPILED = {
    "env": "arztest/Compiled-v0",
    "evaluation": {"eval_freq": 13, "n_eval_episodes": 2, "final_episodes": 1},
    "seed": 3,
}
CASES: dict[str, TrainConfig] = {
    "one env": config("dqn", **COMPILED, **OFF),
    "two envs": config("dqn", n_envs=2, **COMPILED, **OFF),
    "three envs, normalised, on policy": config("ppo", n_envs=3, vec_normalize=True, **COMPILED, **ON),
    "continuous actions": config("td3", n_envs=2, **COMPILED, **OFF),
    "a dict": config("sac", policy="MultiInputPolicy", **COMPILED, **OFF | {"env_kwargs": {"mapping": True}}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the code of these envs had been read."""
    monkeypatch.setattr(plain_walk, "REBUILT", frozenset(map(name_of, (Compiled, Kept, Ending))))


def stopped(study: TrainConfig, state: TrainingState | None, at: int) -> TrainingState:
    training, _ = start(study, state)
    with pytest.raises(StopTraining):
        training.run(StopAt(at))
    return through_bytes(training.capture())


@pytest.mark.parametrize("name", CASES)
def test_played_again_it_ends_in_the_same_bits(name: str) -> None:
    study = CASES[name]
    whole, _ = start(study)
    control = StopAt(10**9)
    whole.run(control)
    draw = random.Random(name)
    for _ in range(3):
        stops = [draw.randrange(3, control.count - 1), draw.randrange(1, 20)]
        state = stopped(study, None, stops[0])
        assert state.tier == "replay"
        if stops[0] + stops[1] < control.count - 2:
            state = stopped(study, state, stops[1])
        resumed, _ = start(study, state)
        assert resumed.resumed == "replay"
        resumed.run(Free())
        assert resumed.fingerprint() == whole.fingerprint(), f"stopped at {stops}"
        assert resumed.state.episodes.results == whole.state.episodes.results


def test_nothing_is_measured_or_told_of_a_replay() -> None:
    study = CASES["two envs"]
    state = stopped(study, None, 30)
    training, log = start(study, state)
    assert training.resumed == "replay"
    assert {phase.value for phase in log.totals.totals} <= {"build"}
    assert training.state.episodes_ended == [
        tuple(item) for item in state.values["groups"]["counters"]["ended"]
    ]


@pytest.mark.parametrize("env", ["Kept", "Ending"])
def test_an_env_that_does_not_come_out_the_same_begins_anew_and_says_so(
    env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = config("dqn", env=f"arztest/{env}-v0", **{**OFF, "env_kwargs": {}})
    state = stopped(study, None, 36)  # in its fourth episode
    assert state.tier == "replay"
    monkeypatch.setattr(Ending, "over", lambda self: True)
    resumed, _ = start(study, state)
    assert resumed.resumed == "reset"
    assert resumed.unseen
    assert [e.unwrapped.t for e in resumed.state.envs] == [0]
    assert not resumed.state.episodes_ended
    again = stopped(study, state, 5) if env == "Kept" else resumed.capture()
    assert again.tier == "reset", "what failed once is not promised again"
    resumed.run(Free())
    assert resumed.stage == "done"


def test_envs_that_are_seen_whole_record_nothing() -> None:
    training, _ = start(config("dqn", env="arztest/Drift-v0", **{**OFF, "env_kwargs": {}}))
    assert training.state.env_state.episodes is None
    assert "step_async" not in vars(open_episodes.innermost(training.model.env))

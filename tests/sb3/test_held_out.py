"""What an env of any package may offer to comparisons: controllers, and a batch that plays at once."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from arzbench.errors import UsageError
from arzbench.sb3.building import make_env
from arzbench.sb3.held_out import FIRST_HELD_OUT, HeldOutEpisodes
from arzbench.sb3.workload import make_baseline
from tests.sb3.controls import config

NAME = "arztest/Offering-v0"


class Left:
    def reset(self) -> None:
        pass

    def action(self, env: Any) -> int:
        return 0


class Offering(CartPoleEnv):
    baseline_controllers = {"left": Left}

    def __init__(self, device: str = "none", **options: Any) -> None:
        super().__init__(**options)
        self.device = device


class Batch:
    def __init__(self, num_envs: int, *, threads: int, **options: Any) -> None:
        self.made = num_envs, threads, options

    def play(self, seeds: list[int], choose: Callable[[Any], Any]) -> dict[str, Any]:
        return {"return": np.array(seeds, float)}

    def counters(self) -> dict[str, int]:
        return {"played": self.made[0]}


class Actions(Left):
    def actions(self, batch: Batch) -> Any:
        return np.zeros(batch.made[0], np.int64)


@pytest.fixture
def registered() -> Iterator[None]:
    gymnasium.register(NAME, Offering, max_episode_steps=50, kwargs={"device": "none"})
    yield
    del gymnasium.registry[NAME]


@pytest.mark.usefixtures("registered")
def test_its_controllers_are_baselines_and_it_gets_the_device_of_the_training() -> None:
    study = config("ppo", env=NAME, total_timesteps=8, baseline={"controller": "left", "episodes": 1})
    env = make_env(study)
    assert env.unwrapped.device == study.device == "cpu"
    assert make_baseline(study, env)(0)(None) == 0
    episodes = HeldOutEpisodes(study, 2)
    assert episodes.baselines == ("left",)
    assert (episodes.play_baseline("left")["length [steps]"] < 15).all()
    assert episodes.counters() == {}
    other = config("ppo", env=NAME, total_timesteps=8, baseline={"controller": "right", "episodes": 1})
    with pytest.raises(UsageError, match="unknown baseline controller 'right'") as caught:
        make_baseline(other, env)
    assert "left, random" in caught.value.hint


@pytest.mark.usefixtures("registered")
def test_its_batch_plays_all_episodes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Offering, "batch_type", Batch, raising=False)
    monkeypatch.setattr(Offering, "baseline_controllers", {"left": Actions})
    study = config("ppo", env=NAME, env_kwargs={"sutton_barto_reward": True}, total_timesteps=8)
    episodes = HeldOutEpisodes(study, 3, threads=2)
    assert episodes.play_baseline("left")["return"].tolist() == [FIRST_HELD_OUT + i for i in range(3)]
    assert episodes.counters() == {"played": 3}

"""Stopped between two gradient steps, an update is undone and made again: the same bits in the end."""

from typing import Any

import pytest
import torch as th

from arzbench.facts import StopReason
from arzbench.sb3 import updates
from arzbench.workload import StopTraining
from tests.sb3.controls import Free, StopAt, config, start, through_bytes, tidy  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch:UserWarning")

CASES: dict[str, dict[str, Any]] = {
    "ppo": {
        "algo": "ppo", "n_steps": 16, "batch_size": 12, "n_epochs": 3, "total_timesteps": 50, "n_envs": 2,
    },
    "ppo, normalised, linear schedules, early stop": {
        "algo": "ppo", "n_steps": 16, "batch_size": 8, "n_epochs": 4, "total_timesteps": 50,
        "vec_normalize": True, "target_kl": 1e-4,
    },
    "ppo, observations by name": {
        "algo": "ppo", "policy": "MultiInputPolicy", "env_kwargs": {"mapping": True}, "n_steps": 16,
        "batch_size": 8, "n_epochs": 3, "total_timesteps": 50, "n_envs": 2,
    },
    "ppo with gSDE": {
        "algo": "ppo", "env": "Pendulum-v1", "use_sde": True, "sde_sample_freq": 5, "n_steps": 16,
        "batch_size": 16, "n_epochs": 2, "total_timesteps": 48,
    },
    "sac": {
        "algo": "sac", "learning_starts": 20, "batch_size": 8, "train_freq": 6, "gradient_steps": 6,
        "total_timesteps": 50, "n_envs": 2,
    },
    "td3": {
        "algo": "td3", "learning_starts": 20, "batch_size": 8, "train_freq": 6, "gradient_steps": 5,
        "total_timesteps": 50, "action_noise": {"sigma": 0.1},
    },
    "dqn, episodes as rollouts": {
        "algo": "dqn", "learning_starts": 20, "train_freq": [2, "episode"], "gradient_steps": -1,
        "total_timesteps": 60, "env_kwargs": {"ends": 0.05},
    },
}  # fmt: skip


class StopInUpdate(Free):
    """Stops before the n-th optimizer step of all, counted from 0."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at
        self.polled = 0

    def during_update(self, training: Any) -> None:
        self.polled += 1
        self.left -= 1
        if self.left < 0:
            raise StopTraining(StopReason.SIGNAL)


@pytest.fixture(autouse=True)
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "LONG_STEPS", 2)
    monkeypatch.setattr(updates, "POLL_S", 0.0)


@pytest.mark.parametrize("name", CASES)
def test_stopped_within_an_update(name: str) -> None:
    study = config(**{**CASES[name], "evaluation": {"eval_freq": 16, "n_eval_episodes": 1}})
    reference, _ = start(study)
    free = StopInUpdate(10**9)
    reference.run(free)
    assert free.polled > 4
    expected = reference.fingerprint()
    for at in (0, 1, free.polled // 2, free.polled - 1):
        training, _ = start(study)
        with pytest.raises(StopTraining):
            training.run(StopInUpdate(at))
        state = through_bytes(training.capture())
        again, _ = start(study, state)
        assert again.fingerprint() == training.fingerprint()
        with pytest.raises(StopTraining):  # within the same update once more
            again.run(StopInUpdate(min(1, free.polled - at - 1)))
        last, _ = start(study, through_bytes(again.capture()))
        last.run(Free())
        assert last.fingerprint() == expected, at
        assert last.state.episodes.results == reference.state.episodes.results
        assert last.state.updates == reference.state.updates


def test_a_training_stopped_in_an_update_may_go_on_in_the_same_process() -> None:
    study = config(**CASES["ppo"])
    training, _ = start(study)
    with pytest.raises(StopTraining):
        training.run(StopInUpdate(7))
    training.run(Free())
    reference, _ = start(study)
    reference.run(Free())
    assert training.fingerprint() == reference.fingerprint()


def test_short_updates_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "LONG_STEPS", 100)
    training, _ = start(config(**CASES["ppo"]))
    control = StopAt(10**9)
    control.during_update = lambda training: pytest.fail("polled")  # type: ignore[method-assign]
    training.run(control)


@pytest.mark.skipif(not th.set_flush_denormal(False), reason="this CPU cannot flush denormals")
def test_denormals_are_flushed_within_an_update_and_only_there() -> None:
    def tiny() -> float:
        return float(th.tensor([1e-30]) * 1e-10)

    training, _ = start(config(**CASES["ppo"]))
    seen: list[float] = []
    training.model.hooks.update(lambda: seen.append(tiny()), 1)
    assert seen == [0.0]
    assert tiny() > 0.0

    def fails() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        training.model.hooks.update(fails, 1)
    assert tiny() > 0.0

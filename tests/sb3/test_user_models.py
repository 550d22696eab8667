"""Every algorithm of sb3-contrib, and what else users build: the library's own bits, also after a stop."""

import random
from pathlib import Path
from typing import Any

import pytest
import sb3_contrib
from stable_baselines3 import SAC, HerReplayBuffer

from arzbench.facts import StopReason
from arzbench.saves import segments
from arzbench.sb3 import updates
from arzbench.workload import StopTraining
from tests.saves.states import header, newest, opened
from tests.sb3.adopted import around, bare, weights
from tests.sb3.controls import Free, StopAt, through_bytes, tidy  # noqa: F401
from tests.sb3.user_models import MODELS, ON, Flipping, Masked, small

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch:UserWarning")


@pytest.fixture(autouse=True)
def short_updates_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop may fall between any two gradient steps."""
    monkeypatch.setattr(updates, "LONG_STEPS", 2)
    monkeypatch.setattr(updates, "POLL_S", 0.0)


@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_those_of_the_library_s_own_learn(name: str) -> None:
    make, total = MODELS[name]
    training, _ = around(make, total)
    training.run(Free())
    expected = bare(make, total)
    assert training.num_timesteps == expected.num_timesteps
    assert training.model._n_updates == expected._n_updates
    found = weights(training.model)
    assert found.keys() == weights(expected).keys()
    assert [n for n, value in weights(expected).items() if found[n] != value] == []
    expected.env.close()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "subproc"])
def test_stopped_anywhere_it_ends_in_the_same_bits(name: str) -> None:
    make, total = MODELS[name]
    whole, _ = around(make, total)
    control = StopAt(10**9)
    whole.run(control)
    expected = whole.fingerprint()
    draw = random.Random(name)
    for _ in range(4):
        first = draw.randrange(control.count - 1)
        stops, state, places = [first, draw.randrange(max(1, control.count - first - 1))], None, []
        for stop in stops:
            training, _ = around(make, total, state)
            stopped = StopAt(stop)
            with pytest.raises(StopTraining):
                training.run(stopped)
            places.append(stopped.where)
            state = through_bytes(training.capture())
            assert state.tier == "exact"
            again, _ = around(make, total, state)
            assert again.fingerprint() == training.fingerprint(), f"stopped at {stops}: {places}"
        last, _ = around(make, total, state)
        last.run(Free())
        found = last.fingerprint()
        assert [g for g in expected if found[g] != expected[g]] == [], f"stopped at {stops}: {places}"
        assert last.facts() == whole.facts()


def lasting(steps: int, **kwargs: Any) -> Any:
    """An env whose episodes have that many steps."""
    return Masked(length=steps, **kwargs)


RECURRENT = {"lstm_hidden_size": 4, "net_arch": [4]}
SHORT: dict[str, tuple[Any, int]] = {
    "recurrent": (lambda: sb3_contrib.RecurrentPPO(
        "MlpLstmPolicy", lasting(4), n_steps=5, batch_size=3, n_epochs=1, policy_kwargs=RECURRENT, **ON), 10),
    "masked": (lambda: sb3_contrib.MaskablePPO(
        "MlpPolicy", lasting(4), n_steps=5, batch_size=5, n_epochs=1, **ON), 10),
    "trust region": (lambda: sb3_contrib.TRPO(
        "MlpPolicy", lasting(4), n_steps=6, batch_size=6, n_critic_updates=2, cg_max_steps=4, **ON), 12),
    "random search": (lambda: sb3_contrib.ARS(
        "LinearPolicy", lasting(3), n_delta=1, n_eval_episodes=2, seed=0), 20),
    "hindsight, in a buffer that is full": (lambda: SAC(
        "MultiInputPolicy", Flipping(n_bits=4, continuous=True), replay_buffer_class=HerReplayBuffer,
        buffer_size=11, learning_starts=6, batch_size=4, policy_kwargs=small(), seed=0), 26),
}  # fmt: skip


@pytest.mark.parametrize("name", SHORT)
def test_every_point_of_a_short_training(name: str) -> None:
    make, total = SHORT[name]
    whole, _ = around(make, total)
    control = StopAt(10**9)
    whole.run(control)
    for stop in range(control.count):
        training, _ = around(make, total)
        stopped = StopAt(stop)
        with pytest.raises(StopTraining):
            training.run(stopped)
        resumed, _ = around(make, total, through_bytes(training.capture()))
        resumed.run(Free())
        assert resumed.fingerprint() == whole.fingerprint(), f"stopped at {stop}: {stopped.where}"


@pytest.mark.parametrize("name", ["her", "prioritised", "dqn_frugal"])
def test_a_buffer_that_changes_later_comes_back_from_the_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saves share what stays as it was; the last of several holds what was written over since the first."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 256)
    make, total = MODELS[name]
    whole, _ = around(make, total)
    whole.run(Free())
    checkpoints = opened(tmp_path)

    class Saves(Free):
        def before_step(self, training: Any, updates: int) -> None:
            if training.num_timesteps % 9 == 8:
                checkpoints.save(training.capture(), header(training.num_timesteps))
            if training.num_timesteps >= total - 5:
                raise StopTraining(StopReason.SIGNAL)

    training, _ = around(make, total)
    with pytest.raises(StopTraining):
        training.run(Saves())
    resumed, _ = around(make, total, newest(tmp_path).load())
    assert 0 < resumed.num_timesteps < total
    resumed.run(Free())
    assert resumed.fingerprint() == whole.fingerprint()

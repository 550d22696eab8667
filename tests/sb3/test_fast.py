"""The fast path gives the library's bits, and steps aside where it would not."""

import random
from typing import Any

import pytest
import torch as th

from arzbench.sb3.fast.dqn import DQNLearner
from arzbench.sb3.models import release
from arzbench.study import TrainConfig
from tests.sb3.controls import Free, StopAt, config, start, through_bytes, tidy  # noqa: F401 (a fixture)

#: algorithm, env, and what decides which kernels are called
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dqn": ("dqn", "CartPole-v1", {"learning_starts": 100, "batch_size": 16, "train_freq": 2}),
    "dqn, four envs": ("dqn", "CartPole-v1", {"learning_starts": 100, "n_envs": 4, "gradient_steps": -1}),
    "dqn, tanh": ("dqn", "CartPole-v1", {"policy_kwargs": {"activation_fn": "torch.nn:Tanh"}}),
    "dqn, odd nets": ("dqn", "CartPole-v1", {"policy_kwargs": {"net_arch": [13, 7]}}),
    "dqn, a falling rate": ("dqn", "CartPole-v1", {"learning_rate": "lin_1e-3", "max_grad_norm": 0.5}),
    "dqn, normalised": ("dqn", "CartPole-v1", {"vec_normalize": True, "train_freq": [1, "episode"]}),
}  # fmt: skip
STEPS = 2000


def case(name: str, **more: Any) -> TrainConfig:
    algo, env, table = CASES[name]
    return config(algo, env, **{"total_timesteps": STEPS, "logging": {"mode": "off"}, **table, **more})


def whole(study: TrainConfig) -> tuple[dict[str, str], str]:
    """The fingerprint at the end, and which way updates were computed."""
    training, _ = start(study)
    training.run(Free())
    return training.fingerprint(), training.computed


@pytest.mark.parametrize("name", CASES)
def test_it_ends_in_the_bits_of_the_library_also_when_stopped_on_the_way(name: str) -> None:
    library, said = whole(case(name, fast=False))
    assert said == "the library's own (fast = false)"
    training, _ = start(case(name))
    with pytest.raises(BaseException, match="signal"):
        training.run(StopAt(random.Random(name).randrange(STEPS // 8)))
    state = through_bytes(training.capture())
    training.run(Free())  # the same object goes on
    assert training.computed.startswith("fast")
    assert training.fingerprint() == library
    resumed, _ = start(case(name), state)
    resumed.run(Free())
    assert resumed.computed.startswith("fast")
    assert resumed.fingerprint() == library


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"policy_kwargs": {"activation_fn": "torch.nn:ELU"}}, "a net with ELU"),
        ({"policy_kwargs": {"optimizer_class": "torch.optim:AdamW"}}, "the optimizer AdamW"),
        ({"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.1}}}, "settings of Adam"),
        ({"env": "FrozenLake-v1"}, "observations Discrete(16)"),
    ],
)
def test_what_is_not_known_goes_the_librarys_way(change: dict[str, Any], why: str) -> None:
    table = {"total_timesteps": 300, "learning_starts": 100, **change}
    env = table.pop("env", "CartPole-v1")
    library, _ = whole(config("dqn", env, fast=False, **table))
    assert whole(config("dqn", env, **table)) == (library, f"the library's own ({why})")


@pytest.mark.parametrize(
    ("method", "why"), [("_step", "it gave other weights"), ("act", "it chose other actions")]
)
def test_one_that_differs_is_given_up(monkeypatch: pytest.MonkeyPatch, method: str, why: str) -> None:
    study = case("dqn", total_timesteps=400)
    library, _ = whole(case("dqn", total_timesteps=400, fast=False))
    inner = getattr(DQNLearner, method)

    def other(self: Any, *args: Any, **kwargs: Any) -> Any:
        if method == "act":
            action, state = inner(self, *args, **kwargs)
            return 1 - action, state
        loss = inner(self, *args, **kwargs)
        weights = self._parameters.values
        weights[-1] = th.nextafter(weights[-1], th.tensor(9.0))  # the last bit of one weight
        return loss

    monkeypatch.setattr(DQNLearner, method, other)
    assert whole(study) == (library, f"the library's own ({why})")


def test_an_optimizer_that_was_replaced_is_the_librarys_again() -> None:
    training, _ = start(case("dqn", total_timesteps=400))
    training.model.policy.optimizer = th.optim.Adam(training.model.policy.q_net.parameters(), lr=1e-3)
    training.run(Free())
    assert training.computed == "the library's own (its parameters or optimizers were replaced)"


def test_a_model_that_is_given_back_has_its_memory_to_itself() -> None:
    training, _ = start(case("dqn", total_timesteps=400))
    training.run(Free())
    assert training.computed.startswith("fast")
    model = training.model
    release(model)
    state = model.policy.optimizer.state.values()
    for tensor in [*model.policy.parameters(), *(t for fields in state for t in fields.values())]:
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    model.learn(200, reset_num_timesteps=False)

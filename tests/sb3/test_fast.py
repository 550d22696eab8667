"""The fast path gives the library's bits, and steps aside where it would not."""

import random
from typing import Any

import pytest

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

"""Tensors looked for once: what is saved is what they hold, wherever they lie now."""

from typing import Any

import numpy as np
import pytest
import torch as th

from arzbench.sb3.tensors import Tensors
from tests.sb3.controls import Free, config, start, tidy  # noqa: F401

STUDY = config("sac", total_timesteps=60, learning_starts=20, batch_size=8)


@pytest.fixture
def trained() -> Any:
    training, _ = start(STUDY)
    training.capture()  # everything was looked for before it changed
    training.run(Free())
    return training


def arrays(training: Any) -> dict[str, Any]:
    return {name: array.copy() for name, array in training.capture().arrays.items()}


def expected(training: Any) -> dict[str, Any]:
    """By way of PyTorch alone."""
    model, found = training.model, {}
    for name, tensor in model.policy.state_dict().items():
        found[f"weights/policy/{name}"] = tensor.numpy().copy()
    for path, optimizer in {
        "actor.optimizer": model.actor.optimizer,
        "critic.optimizer": model.critic.optimizer,
        "ent_coef_optimizer": model.ent_coef_optimizer,
    }.items():
        for number, fields in optimizer.state_dict()["state"].items():
            for name, tensor in fields.items():
                found[f"optimizer/{path}/state/{number}/{name}"] = tensor.numpy().copy()
    return found


def compare(training: Any) -> None:
    found, wanted = arrays(training), expected(training)
    assert len(wanted) > 30
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_they_are_those_of_pytorch(trained: Any) -> None:
    compare(trained)


def test_memory_that_moved_is_found(trained: Any) -> None:
    for parameter in trained.model.policy.parameters():
        parameter.data = parameter.data + 1.0
    compare(trained)


def test_an_optimizer_that_was_loaded_is_found(trained: Any) -> None:
    optimizer = trained.model.actor.optimizer
    state = optimizer.state_dict()
    state["state"] = {k: {n: v + 1 for n, v in fields.items()} for k, fields in state["state"].items()}
    optimizer.load_state_dict(state)
    compare(trained)


def test_a_buffer_that_was_replaced_is_found() -> None:
    training, _ = start(STUDY)
    actor = training.model.policy.actor
    actor.register_buffer("scale", th.ones(2))
    training.state.tensors = Tensors(training.model)
    assert arrays(training)["weights/policy/actor.scale"].tolist() == [1.0, 1.0]
    actor.scale = th.full((2,), 5.0)
    assert arrays(training)["weights/policy/actor.scale"].tolist() == [5.0, 5.0]


def test_off_the_cpu_they_are_copied_each_time(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, values_before = arrays(trained), trained.capture().values
    monkeypatch.setattr(trained.state.tensors, "_fixed", False)
    trained.state.tensors._views.clear()
    found = arrays(trained)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert trained.capture().values == values_before
    assert not trained.state.tensors._views

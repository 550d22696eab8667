"""The fast path gives the library's bits, and steps aside where it would not."""

import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.sac.policies import SACPolicy

from arzbench.facts import StopReason
from arzbench.sb3.fast.dqn import DQNLearner
from arzbench.sb3.fast.path import ACTIONS
from arzbench.sb3.fast.td3 import TD3Learner
from arzbench.sb3.models import release
from arzbench.study import TrainConfig
from arzbench.workload import StopTraining
from tests.sb3.adopted import around
from tests.sb3.controls import Free, StopAt, config, start, through_bytes, tidy  # noqa: F401 (a fixture)
from tests.sb3.user_models import OFF, known

HALF = {"total_timesteps": 1000}
ROLLOUT = {**HALF, "n_steps": 64, "batch_size": 32, "n_epochs": 3}
REPLAYED = {
    "total_timesteps": 400, "learning_starts": 100, "batch_size": 33, "policy_kwargs": {"net_arch": [13, 7]},
}  # fmt: skip
TF_LIKE = "stable_baselines3.common.sb2_compat.rmsprop_tf_like:RMSpropTFLike"
#: algorithm, env, and what decides which kernels are called
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dqn": ("dqn", "CartPole-v1", {"learning_starts": 100, "batch_size": 16, "train_freq": 2}),
    "dqn, four envs": ("dqn", "CartPole-v1", {"learning_starts": 100, "n_envs": 4, "gradient_steps": -1}),
    "dqn, tanh": ("dqn", "CartPole-v1", {"policy_kwargs": {"activation_fn": "torch.nn:Tanh"}}),
    "dqn, odd nets": ("dqn", "CartPole-v1", {"policy_kwargs": {"net_arch": [13, 7]}}),
    "dqn, a falling rate": ("dqn", "CartPole-v1", {"learning_rate": "lin_1e-3", "max_grad_norm": 0.5}),
    "dqn, normalised": ("dqn", "CartPole-v1", {"vec_normalize": True, "train_freq": [1, "episode"]}),
    "qrdqn": ("qrdqn", "CartPole-v1", {**HALF, "learning_starts": 100, "policy_kwargs": {"n_quantiles": 13}}),
    "qrdqn, four envs": ("qrdqn", "CartPole-v1", {
        "n_envs": 4, "learning_starts": 100, "batch_size": 7, "max_grad_norm": 0.5, "vec_normalize": True,
        "policy_kwargs": {"n_quantiles": 5, "net_arch": [13, 7]}}),
    "ppo": ("ppo", "CartPole-v1", {**ROLLOUT, "policy_kwargs": {"net_arch": [16, 16]}}),
    "ppo, four envs": ("ppo", "CartPole-v1", {
        **ROLLOUT, "n_envs": 4, "batch_size": 60, "ent_coef": 0.01,
        "policy_kwargs": {"net_arch": {"pi": [57, 47], "vf": [46, 63]}}}),
    "ppo, one step left": ("ppo", "CartPole-v1", {**ROLLOUT, "n_steps": 65, "clip_range_vf": 0.05}),
    "ppo, stopped early": ("ppo", "CartPole-v1", {**ROLLOUT, "learning_rate": 1e-2, "target_kl": 0.003}),
    "ppo, continuous": ("ppo", "Pendulum-v1", {
        **ROLLOUT, "clip_range_vf": "lin_0.2", "clip_range": "lin_0.1", "learning_rate": "lin_1e-2"}),
    "ppo, normalised": ("ppo", "arztest/Known-v0", {
        **ROLLOUT, "n_envs": 4, "vec_normalize": True, "ent_coef": 0.01, "target_kl": 0.01,
        "env_kwargs": {"continuous": True}, "policy_kwargs": {"log_std_init": -1.0, "net_arch": [7]}}),
    "ppo, two nets": ("ppo", "CartPole-v1", {**ROLLOUT, "normalize_advantage": False, "policy_kwargs": {
        "net_arch": {"pi": [], "vf": [9, 5]}, "share_features_extractor": False,
        "activation_fn": "torch.nn:ReLU", "optimizer_class": TF_LIKE}}),
    "a2c": ("a2c", "CartPole-v1", {**HALF, "n_steps": 8, "learning_rate": "lin_1e-3"}),
    "a2c, four envs": ("a2c", "CartPole-v1", {"n_envs": 4, "ent_coef": 0.01, "normalize_advantage": True}),
    "a2c, continuous": ("a2c", "Pendulum-v1", {
        **HALF, "n_steps": 8, "ent_coef": 0.01, "use_rms_prop": False,
        "policy_kwargs": {"net_arch": [13, 7]}}),
    "td3": ("td3", "Pendulum-v1", {**REPLAYED, "action_noise": {"sigma": 0.1}}),
    "td3, four envs": ("td3", "Pendulum-v1", {
        **REPLAYED, **HALF, "n_envs": 4, "gradient_steps": 3, "policy_delay": 3, "vec_normalize": True,
        "learning_rate": "lin_1e-3", "policy_kwargs": {"n_critics": 3, "net_arch": [9]}}),
    "td3, episodes": ("td3", "Pendulum-v1", {
        **REPLAYED, "train_freq": [1, "episode"], "gradient_steps": 110, "n_steps": 3,
        "policy_kwargs": {"share_features_extractor": True, "activation_fn": "torch.nn:Tanh"}}),
    "ddpg": ("ddpg", "arztest/Known-v0", {
        **REPLAYED, "env_kwargs": {"continuous": True, "double": True}, "policy_kwargs": {"net_arch": []}}),
    "sac, auto": ("sac", "Pendulum-v1", REPLAYED),
    "sac, four envs": ("sac", "arztest/Known-v0", {
        **REPLAYED, **HALF, "n_envs": 4, "gradient_steps": -1, "target_update_interval": 2, "n_steps": 3,
        "vec_normalize": True, "env_kwargs": {"continuous": True, "double": True},
        "policy_kwargs": {"net_arch": {"pi": [9, 5], "qf": [17]}, "share_features_extractor": True}}),
    "sac, a fixed coefficient": ("sac", "arztest/Known-v0", {
        **REPLAYED, "ent_coef": 0.1, "train_freq": 2, "env_kwargs": {"continuous": True, "double": True},
        "policy_kwargs": {"n_critics": 3, "net_arch": [7], "activation_fn": "torch.nn:Tanh"}}),
    "tqc": ("tqc", "Pendulum-v1", {**REPLAYED, "ent_coef": "auto_0.1"}),
    "tqc, more critics": ("tqc", "arztest/Known-v0", {
        **REPLAYED, **HALF, "n_envs": 2, "train_freq": 2, "top_quantiles_to_drop_per_net": 1,
        "env_kwargs": {"continuous": True, "double": True},
        "policy_kwargs": {"n_critics": 3, "n_quantiles": 7, "net_arch": [9]}}),
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


class StopWithin(Free):
    """Stops at the n-th poll within updates, counted from 0, and nowhere else."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def during_update(self, training: Any) -> None:
        if not self.left:
            raise StopTraining(StopReason.SIGNAL)
        self.left -= 1


@pytest.mark.parametrize("at", [3, 20, 40])  # as the library does it, as it is tried, and in earnest
def test_an_update_that_is_stopped_while_it_is_tried_is_tried_again(at: int) -> None:
    table = {**ROLLOUT, "total_timesteps": 600, "n_steps": 200, "batch_size": 20, "n_epochs": 10}
    library, _ = whole(config("ppo", "CartPole-v1", target_kl=0.1, fast=False, **table))
    training, _ = start(config("ppo", "CartPole-v1", target_kl=0.1, **table))
    with pytest.raises(StopTraining):
        training.run(StopWithin(at))
    assert training.computed.startswith("fast") == (at == 40)
    training.run(Free())
    assert training.computed.startswith("fast")
    assert training.fingerprint() == library


@pytest.mark.parametrize(
    ("algo", "change", "why"),
    [
        ("dqn", {"policy_kwargs": {"activation_fn": "torch.nn:ELU"}}, "a net with ELU"),
        ("dqn", {"policy_kwargs": {"optimizer_class": "torch.optim:AdamW"}}, "the optimizer AdamW"),
        ("dqn", {"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.1}}}, "settings of Adam"),
        ("dqn", {"env": "FrozenLake-v1"}, "observations Discrete(16)"),
        ("a2c", {"env": "Pendulum-v1", "use_sde": True}, "the distribution StateDependentNoiseDistribution"),
        ("a2c", {"env_kwargs": {"pairs": True}}, "the distribution MultiCategoricalDistribution"),
        ("a2c", {"env_kwargs": {"mapping": True}, "policy": "MultiInputPolicy"},
         "MultiInputActorCriticPolicy in place of ActorCriticPolicy"),
        ("trpo", {"n_steps": 64, "batch_size": 32}, "none for TRPO"),
        ("sac", {"use_sde": True}, "the noise of StateDependentNoiseDistribution"),
        ("sac", {"policy_kwargs": {"optimizer_class": "torch.optim:AdamW"}}, "the optimizer AdamW"),
        ("td3", {"policy_kwargs": {"activation_fn": "torch.nn:ELU"}}, "a net with ELU"),
        ("tqc", {"env_kwargs": {"mapping": True}, "policy": "MultiInputPolicy"},
         "the policy MultiInputPolicy"),
        ("crossq", {}, "none for CrossQ"),
    ],
)  # fmt: skip
def test_what_is_not_known_goes_the_librarys_way(algo: str, change: dict[str, Any], why: str) -> None:
    early = {} if "n_steps" in change or algo == "a2c" else {"learning_starts": 100}
    table = {"total_timesteps": 300, **early, **change}
    env = table.pop("env", "arztest/Known-v0")
    library, _ = whole(config(algo, env, fast=False, **table))
    assert whole(config(algo, env, **table)) == (library, f"the library's own ({why})")


class OwnSAC(SAC):
    """May do anything."""


class OwnPolicy(SACPolicy):
    """May do anything."""


@pytest.mark.parametrize(
    ("kind", "policy", "why"),
    [(OwnSAC, "MlpPolicy", "none for OwnSAC"), (SAC, OwnPolicy, "the policy OwnPolicy")],
)
def test_classes_of_the_users_own_are_left_to_themselves(kind: Any, policy: Any, why: str) -> None:
    training, _ = around(lambda: kind(policy, known(continuous=True), **OFF), 60)
    training.run(Free())
    assert training.computed == f"the library's own ({why})"


@pytest.mark.parametrize(
    "name", ["dqn", "qrdqn", "ppo", "ppo, continuous", "a2c, four envs", "td3", "sac, four envs"]
)
@pytest.mark.parametrize("deterministic", [True, False])
def test_it_predicts_what_the_library_would(name: str, deterministic: bool) -> None:
    training, _ = start(case(name, total_timesteps=400))
    training.run(Free())
    assert training.computed.startswith("fast")
    policy = training.model.policy
    shape = policy.observation_space.shape
    for number in range(3 * ACTIONS):  # the first are tried, and are the library's
        observation = np.random.randn(*shape if number % 2 else (5, *shape)).astype(np.float32)
        th.manual_seed(number)
        action, _ = policy.predict(observation, deterministic=deterministic)
        th.manual_seed(number)
        expected, _ = type(policy).predict(policy, observation, deterministic=deterministic)
        assert action.dtype == expected.dtype
        np.testing.assert_array_equal(action, expected, strict=True)


@pytest.mark.parametrize(
    ("method", "why"), [("_step", "it gave other weights"), ("predict", "it chose other actions")]
)
def test_one_that_differs_is_given_up(monkeypatch: pytest.MonkeyPatch, method: str, why: str) -> None:
    study = case("dqn", total_timesteps=400)
    library, _ = whole(case("dqn", total_timesteps=400, fast=False))
    inner = getattr(DQNLearner, method)

    def other(self: Any, *args: Any, **kwargs: Any) -> Any:
        if method == "predict":
            action, state = inner(self, *args, **kwargs)
            return 1 - action, state
        loss = inner(self, *args, **kwargs)
        weights = self._parameters.values
        weights[0] = th.nextafter(weights[0], th.tensor(9.0))  # the last bit of one weight
        return loss

    monkeypatch.setattr(DQNLearner, method, other)
    assert whole(study) == (library, f"the library's own ({why})")


def test_a_step_of_the_actor_is_tried_however_seldom_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = TD3Learner._actor_step
    monkeypatch.setattr(TD3Learner, "_actor_step", lambda *args: inner(*args) + 1.0)
    _, said = whole(case("td3", total_timesteps=120, policy_delay=9))
    assert said == "the library's own (it gave other weights)"


def test_actions_that_are_no_numbers_are_the_librarys_to_refuse() -> None:
    training, _ = start(case("sac, auto", total_timesteps=150))
    training.run(Free())
    policy = training.model.policy
    with th.no_grad():
        policy.actor.mu.bias.fill_(th.nan)
    with pytest.raises(ValueError, match="loc"):
        policy.predict(np.zeros(3, np.float32))


def test_an_optimizer_that_was_replaced_is_the_librarys_again() -> None:
    training, _ = start(case("dqn", total_timesteps=400))
    training.model.policy.optimizer = th.optim.Adam(training.model.policy.q_net.parameters(), lr=1e-3)
    training.run(Free())
    assert training.computed == "the library's own (its parameters or optimizers were replaced)"


@pytest.mark.parametrize("name", ["dqn", "sac, auto", "ppo", "a2c"])
def test_an_exported_model_is_the_librarys_file(name: str, tmp_path: Path) -> None:
    """Also one that was restored and never trained."""
    files, state = [], None
    for fast in (False, True, True):
        training, _ = start(case(name, total_timesteps=400, fast=fast), state)
        training.run(Free())
        state = through_bytes(training.capture()) if fast else None
        training.export(str(tmp_path / "model.zip"))
        with zipfile.ZipFile(tmp_path / "model.zip") as archive:
            kept = [part for part in archive.namelist() if part.endswith(".pth")]
            files.append({part: archive.read(part) for part in kept})
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("kept", [True, False])
def test_a_model_that_is_given_back_has_its_memory_to_itself(
    monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    if not kept:
        monkeypatch.setattr(DQNLearner, "_step", lambda self, batch_size: 0.0)
    training, _ = start(case("dqn", total_timesteps=400))
    training.run(Free())
    assert training.computed.startswith("fast") is kept
    model = training.model
    release(model)
    state = model.policy.optimizer.state.values()
    for tensor in [*model.policy.parameters(), *(t for fields in state for t in fields.values())]:
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    model.learn(200, reset_num_timesteps=False)

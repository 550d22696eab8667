"""From a study's own words to the library's objects."""

import copy
import inspect
import os
import signal
from typing import Any

import numpy as np
import pytest
import stable_baselines3 as sb3
import torch as th
from sb3_contrib import ARS
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)
from torch import nn

from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.predict.schedule import count_training
from arzbench.sb3.building import algorithm, build, make_env, make_schedule, observations_of
from arzbench.sb3.episodes import by_policy
from arzbench.sb3.model_loop import loop_of
from arzbench.sb3.workload import SB3Workload
from arzbench.study import ALGORITHMS, TrainConfig
from arzbench.study_file import make_config
from arzbench.study_values import SCHEDULED
from arzbench.workload import StopTraining
from tests.sb3 import user_code
from tests.sb3.controls import Free, StopAt, config, start, through_bytes, tidy  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch:UserWarning")
HERE = user_code.__name__
PPO = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "total_timesteps": 32}
PICTURES: dict[str, Any] = {
    "env": f"{HERE}:Camera",
    "policy": "CnnPolicy",
    "frame_stack": 3,
    "n_envs": 2,
    **PPO,
}


def built(study: TrainConfig) -> Any:
    """The library's model, on envs of its own."""
    return build(study, lambda: DummyVecEnv([lambda: Monitor(make_env(study))] * study.n_envs))


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("lin_3e-4", [3e-4, 1.5e-4, 0.0]),
        ({"schedule": "linear", "start": 0.4, "end": 0.2}, [0.4, 0.3, 0.2]),
        ({"schedule": "linear", "start": 0.4, "end": 0.2, "end_fraction": 0.5}, [0.4, 0.2, 0.2]),
        ({"schedule": "constant", "value": 0.1}, [0.1, 0.1, 0.1]),
    ],
)
def test_a_schedule_is_the_library_s_own(written: Any, expected: list[float]) -> None:
    schedule = make_schedule(written)
    assert isinstance(schedule, LinearSchedule | ConstantSchedule)
    assert [schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("fast", "learning_rate = 'fast': expected a number, a schedule or module:attribute"),
        ("lin_fast", "learning_rate = 'lin_fast': expected a number behind lin_"),
        ({"schedule": "cubic"}, "learning_rate = {'schedule': 'cubic'}: Invalid value 'cubic'"),
        ({"schedule": "linear"}, "missing required field `start`"),
        ({"schedule": "linear", "start": 1.0, "stop": 0.0}, "unknown field `stop`"),
        ({"schedule": "linear", "start": 1.0, "end_fraction": 0.0}, "end_fraction must be above 0"),
        (True, "expected a number"),
    ],
)
def test_a_schedule_that_is_none_is_told_with_the_other_problems(written: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        config("ppo", n_envs=0, learning_rate=written)
    assert said in caught.value.message
    assert "n_envs = 0" in caught.value.message


def test_schedules_reach_a_model_and_are_saved_with_it(tmp_path: Any) -> None:
    study = config(
        "ppo", **PPO, learning_rate="lin_3e-4", clip_range={"schedule": "linear", "start": 0.2, "end": 0.1},
        clip_range_vf=f"{HERE}:falling",
    )  # fmt: skip
    training, _ = start(study)
    training.run(Free())
    model = training.model
    assert model.lr_schedule(0.5) == pytest.approx(1.5e-4)
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.0  # its last update
    assert model.clip_range(0.0) == pytest.approx(0.1)
    assert model.clip_range_vf(0.5) == pytest.approx(2.5e-4)
    training.export(str(tmp_path / "model.zip"))
    again = sb3.PPO.load(tmp_path / "model.zip")
    assert again.lr_schedule(0.5) == pytest.approx(1.5e-4)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_whatever_the_library_lets_be_a_schedule_may_be_one(algo: str) -> None:
    kind = algorithm(make_config({"algo": algo, "env": "x", "total_timesteps": 1}, "here"))
    arguments = inspect.signature(kind.__init__).parameters.values()
    assert {a.name for a in arguments if "Callable" in str(a.annotation)} <= SCHEDULED


def test_classes_of_the_library_of_torch_and_of_the_user_are_named() -> None:
    study = config(
        "sac", learning_starts=20, total_timesteps=30,
        replay_buffer_class="stable_baselines3.common.buffers:ReplayBuffer",
        policy_kwargs={
            "net_arch": [8], "activation_fn": "torch.nn:Tanh", "optimizer_class": "torch.optim:AdamW",
            "features_extractor_class": f"{HERE}:Doubling", "features_extractor_kwargs": {"times": 3},
        },
    )  # fmt: skip
    before = copy.deepcopy(study)
    training, _ = start(study)
    training.run(Free())
    policy = training.model.policy
    assert any(isinstance(m, nn.Tanh) for m in policy.modules())
    assert isinstance(policy.actor.optimizer, th.optim.AdamW)
    assert policy.actor.features_extractor.times == 3
    assert study == before


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("policy_kwargs", {"activation_fn": "torch.nn:RLU"},
         "policy_kwargs.activation_fn = 'torch.nn:RLU': torch.nn has no"),
        ("policy_kwargs", {"optimizer_class": "torhc.optim:Adam"},
         "policy_kwargs.optimizer_class = 'torhc.optim:Adam' cannot be imported"),
        ("learning_rate", f"{HERE}:rising", "learning_rate = "),
        ("policy", f"{HERE}:Nested.Outer", "has no 'Nested.Outer'"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_named_by_its_key(key: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        SB3Workload().check(config("ppo", **PPO, **{key: value}))
    assert said in caught.value.message


def test_a_class_of_a_class_is_found() -> None:
    with pytest.raises(UsageError, match="PPO cannot be made as asked"):  # found, and no policy
        built(config("ppo", **PPO, policy=f"{HERE}:Nested.Inner"))


def test_a_bare_name_where_a_class_belongs_is_told_without_importing_anything() -> None:
    with pytest.raises(UsageError, match=r"policy_kwargs.activation_fn = 'ReLU': expected module:attribute"):
        config("ppo", policy_kwargs={"activation_fn": "ReLU"}, total_timesteps=5)


def test_hindsight_is_a_replay_buffer_by_its_name() -> None:
    study = config(
        "dqn", env="stable_baselines3.common.envs:BitFlippingEnv", policy="MultiInputPolicy",
        learning_starts=30, total_timesteps=60, replay_buffer_class="stable_baselines3:HerReplayBuffer",
        replay_buffer_kwargs={"goal_selection_strategy": "future", "n_sampled_goal": 4},
    )  # fmt: skip
    training, _ = start(study)
    training.run(Free())
    assert type(training.model.replay_buffer) is sb3.HerReplayBuffer
    assert training.model.replay_buffer.n_sampled_goal == 4
    assert training.state.updates > 0


@pytest.mark.parametrize(
    "own", [{}, {"n_delta": 2, "n_top": 1}, {"n_delta": 3, "n_eval_episodes": 2, "delta_std": "lin_0.1"}]
)
def test_ars_is_built_and_says_the_same_of_its_loop(own: dict[str, Any]) -> None:
    study = config("ars", total_timesteps=100, policy_kwargs={}, **own)
    model = built(study)
    assert type(model) is ARS
    assert loop_of(model, study.total_timesteps) == study.loop


# ---------------------------------------------------------------- envs


def test_an_env_may_be_a_class_and_have_wrappers_in_their_order() -> None:
    wrappers = [f"{HERE}:Scaled", {"class": "gymnasium.wrappers:TimeLimit", "max_episode_steps": 5},
                {"class": f"{HERE}:Scaled", "by": 5}]  # fmt: skip
    study = config("a2c", env=f"{HERE}:Camera", env_kwargs={"length": 9}, policy="CnnPolicy",
                   wrappers=wrappers, policy_kwargs={}, total_timesteps=20)  # fmt: skip
    env = make_env(study)
    assert [type(env).__name__, type(env.env).__name__, type(env.env.env).__name__] == [
        "Scaled", "TimeLimit", "Scaled"]  # type: ignore[attr-defined]  # fmt: skip
    env.reset(seed=1)
    assert env.step(1)[1] == 10.0
    training, _ = start(study)
    control = Free()
    training.run(control)
    assert [length for _, length in control.episodes] == [5, 5, 5, 5]  # as the policy sees them
    assert all(isinstance(env, Monitor) for env in training.state.envs)  # outside of the wrappers


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"env": f"{HERE}:Nothing"}, "has no class 'Nothing' and registers no env of that name"),
        ({"env": f"{HERE}:NO_ENV"}, "it is a dict, not a gymnasium.Env"),
        ({"env": "no_such_module:Env"}, "No module named 'no_such_module'"),
        ({"wrappers": [f"{HERE}:Gone"]}, f"wrappers[0].class = '{HERE}:Gone': {HERE} has no 'Gone'"),
        ({"wrappers": [{"class": f"{HERE}:Scaled", "times": 3}]}, f"wrappers[0]: {HERE}:Scaled cannot wrap"),
    ],
)
def test_envs_and_wrappers_that_cannot_be_made(table: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        SB3Workload().check(config("a2c", total_timesteps=5, **table))
    assert said in caught.value.message


def test_an_env_that_forbids_no_actions_is_none_for_a_maskable_policy() -> None:
    with pytest.raises(UsageError, match="CartPole-v1 has no action_masks, which MaskablePPO asks for"):
        SB3Workload().check(config("maskableppo", env="CartPole-v1", **PPO))


@pytest.mark.parametrize("wrappers", [["Scaled"], [{"by": 3}], [{"class": 3}]])
def test_a_wrapper_that_names_no_class(wrappers: Any) -> None:
    with pytest.raises(UsageError, match="expected module:Class"):
        config("a2c", total_timesteps=5, wrappers=wrappers)


def test_rewards_alone_or_observations_alone_are_normalised() -> None:
    study = config("ppo", **PPO, gamma=0.9, vec_normalize={"norm_obs": False, "clip_reward": 3.0})
    training, _ = start(study)
    training.run(Free())
    wrapper = training.model.get_vec_normalize_env()
    assert (wrapper.norm_obs, wrapper.norm_reward, wrapper.clip_reward, wrapper.gamma) == (
        False,
        True,
        3.0,
        0.9,
    )
    again, _ = start(study, training.capture())
    assert again.fingerprint() == training.fingerprint()
    other = built(config("ppo", **PPO, vec_normalize={"norm_reward": False, "gamma": 0.5}))
    assert (other.env.norm_obs, other.env.norm_reward, other.env.gamma) == (True, False, 0.5)
    with pytest.raises(UsageError, match="unknown field `norm_abs`"):
        config("ppo", **PPO, vec_normalize={"norm_abs": True})


def layers(vec_env: Any) -> list[type]:
    found = [type(vec_env)]
    while hasattr(vec_env, "venv"):
        vec_env = vec_env.venv
        found.append(type(vec_env))
    return found


def test_pictures_are_stacked_and_turned_outside_of_the_normalisation() -> None:
    study = config("ppo", **PICTURES, policy_kwargs={}, vec_normalize={"norm_obs": False})
    training, log = start(study)
    training.run(Free())
    assert layers(training.model.env) == [VecTransposeImage, VecFrameStack, VecNormalize, DummyVecEnv]
    assert training.model.observation_space.shape == (9, 36, 36)
    assert observations_of(study, make_env(study)) == training.model.observation_space
    assert log.units(Phase.ENV_STEP) == count_training(study, training.facts()).total_timesteps
    again, _ = start(study, training.capture())
    assert again.num_timesteps == training.num_timesteps


@pytest.mark.parametrize("stop_at", [3, 9, 21])
def test_a_training_on_stacked_pictures_goes_on_to_the_same_bits(stop_at: int) -> None:
    """A convolution computes other bits on a picture that lies in memory another way."""
    study = config("ppo", **{**PICTURES, "n_envs": 2, "total_timesteps": 64}, policy_kwargs={})
    whole, _ = start(study)
    whole.run(Free())
    part, _ = start(study)
    with pytest.raises(StopTraining):
        part.run(StopAt(stop_at))
    again, _ = start(study, through_bytes(part.capture()))
    again.run(Free())
    assert again.resumed == "exact"
    ended, expected = again.fingerprint(), whole.fingerprint()
    assert [ended[part] for part in ("weights", "optimizer", "rng")] == [
        expected[part] for part in ("weights", "optimizer", "rng")
    ]


@pytest.mark.parametrize(
    "table",
    [
        {**PICTURES, "policy_kwargs": {}},
        {"frame_stack": 4, **PPO},
        {"frame_stack": 2, "vec_normalize": True, **PPO},
        {"frame_stack": 2, "env_kwargs": {"mapping": True}, "policy": "MultiInputPolicy", **PPO},
    ],
    ids=["pictures", "plain", "normalised", "mapping"],
)
def test_an_evaluation_sees_what_a_training_would(table: dict[str, Any]) -> None:
    """The actions of an episode are those the library's own chain of vectorised envs leads to."""
    study = config("ppo", **table)
    training, _ = start(study)
    training.run(Free())
    model, env = training.model, make_env(study)
    normalizer = model.get_vec_normalize_env()
    chain: Any = DummyVecEnv([lambda: make_env(study)])
    if normalizer is not None:
        chain = VecNormalize(chain, training=False, norm_reward=False)
        chain.obs_rms = normalizer.obs_rms
    chain = VecFrameStack(chain, study.frame_stack)
    chain = sb3.PPO._wrap_env(chain)

    chain.seed(7)
    seen, rewards, done = chain.reset(), [], [False]
    while not done[0]:
        action, _ = model.predict(seen, deterministic=True)
        seen, reward, done, _ = chain.step(action)
        rewards.append(float(reward[0]))

    choose = by_policy(model, env, deterministic=True, frame_stack=study.frame_stack)(7)  # type: ignore[arg-type]
    observation, _ = env.reset(seed=7)
    played, ended = [], False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(choose(observation))
        played.append(float(reward))
        ended = terminated or truncated
    assert played == pytest.approx(rewards)


def test_a_recurrent_policy_remembers_within_an_evaluated_episode() -> None:
    study = config("recurrentppo", **PPO, policy_kwargs={"net_arch": [4], "lstm_hidden_size": 4})
    training, _ = start(study)
    model, env = training.model, make_env(study)
    observation, _ = env.reset(seed=3)
    player = by_policy(model, env, deterministic=False)

    def state_after(steps: int) -> Any:
        seen: list[Any] = []
        predict = model.predict
        model.predict = lambda *a, **k: seen.append(predict(*a, **k)) or seen[-1]
        choose = player(0)
        for _ in range(steps):
            choose(observation)
        del model.predict
        return seen[-1][1]

    one, two = state_after(1), state_after(2)
    assert not np.array_equal(one[0], two[0])
    assert np.array_equal(one[0], state_after(1)[0])  # an episode begins without memory


def test_envs_in_processes_of_their_own() -> None:
    table = {"n_envs": 2, "total_timesteps": 40, "logging": {"mode": "off"}, "evaluation": {"eval_freq": 10}}
    study = config("a2c", env="CartPole-v1", vec_env="subproc", **table)
    training, log = start(study)
    training.run(Free())
    assert layers(training.model.env) == [SubprocVecEnv]
    counted = count_training(study, training.facts())
    assert log.units(Phase.ENV_STEP) == counted.total_timesteps
    assert log.units(Phase.RESET) == 0
    assert all(count.phase is not Phase.RESET for count in counted.counts)
    assert training.facts().max_episode_steps == 500
    here, _ = start(config("a2c", env="CartPole-v1", **table))
    here.run(Free())
    assert here.fingerprint()["weights"] == training.fingerprint()["weights"]
    assert training.capture().tier == "reset"  # what other processes hold is not seen
    again, _ = start(study, training.capture())
    assert again.resumed == "reset"


def test_a_signal_to_all_processes_ends_none_with_an_env() -> None:
    training, _ = start(
        config(
            "a2c", env="CartPole-v1", vec_env="subproc", n_envs=2, total_timesteps=20, logging={"mode": "off"}
        )
    )
    for process in training.model.env.processes:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(process.pid, number)
    training.run(Free())
    assert training.num_timesteps == 20


def test_processes_keep_no_messages() -> None:
    with pytest.raises(UsageError, match=r"vec_env = 'subproc'.*logging.mode must be 'off'"):
        config("a2c", vec_env="subproc", total_timesteps=5)

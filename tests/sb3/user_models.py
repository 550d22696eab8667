"""Models as people's own scripts build them, one function each; tests train them with and without us."""

from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import sb3_contrib
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize
from torch import nn

from tests.sb3.envs import Known

Env = gym.Env[Any, Any]
OFF: dict[str, Any] = {
    "learning_starts": 60,
    "buffer_size": 150,
    "batch_size": 16,
    "seed": 0,
    "device": "cpu",
}
ON: dict[str, Any] = {"seed": 0, "device": "cpu"}


def small() -> dict[str, Any]:
    return {"net_arch": [16, 16]}  # the library writes into it


class Masked(Known):
    """Forbids an action, another one at each step."""

    def action_masks(self) -> np.ndarray[Any, Any]:
        return np.arange(3) != self.t % 3


class Choices(Known):
    """Takes two actions at once."""

    def __init__(self) -> None:
        super().__init__(ends=0.05)
        self.action_space = spaces.MultiDiscrete([3, 2])


class Tiny(Known):
    """Shows itself as a picture."""

    def __init__(self) -> None:
        super().__init__(ends=0.05)
        self.observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8, seed=0)  # its policy draws from it

    def observe(self) -> Any:
        return np.full((1, 36, 36), int(abs(self.x[0]) * 60) % 256, np.uint8)


class Flipping(BitFlippingEnv):
    """The library's, with a state that can be captured."""

    def get_state(self) -> dict[str, Any]:
        generator = dict(self._obs_space.np_random.bit_generator.state)
        return {"bits": self.state.copy(), "step": self.current_step, "generator": generator}

    def set_state(self, state: dict[str, Any]) -> None:
        self.state, self.current_step = state["bits"].copy(), int(state["step"])
        self._obs_space.np_random.bit_generator.state = state["generator"]


class Net(BaseFeaturesExtractor):
    """An own features extractor."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 16)
        self.net = nn.Sequential(nn.Linear(space.shape[0], 16), nn.Mish())

    def forward(self, x: th.Tensor) -> th.Tensor:
        out: th.Tensor = self.net(x)
        return out


class Prioritised(ReplayBuffer):
    """Draws by priorities that change as it draws, from a generator of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.priorities = np.zeros(self.buffer_size)
        self.largest = 1.0
        self.own_generator = np.random.default_rng(5)
        self.drawn: deque[int] = deque(maxlen=7)

    def add(self, *args: Any) -> None:
        self.priorities[self.pos] = self.largest
        super().add(*args)

    def sample(self, batch_size: int, env: Any = None) -> Any:
        shares = self.priorities[: self.size()] / self.priorities[: self.size()].sum()
        rows = self.own_generator.choice(self.size(), batch_size, p=shares)
        self.priorities[rows] *= 0.9
        self.largest = float(self.priorities.max())
        self.drawn.extend(rows.tolist())
        self.rewards[rows[0]] += 0.01
        return self._get_samples(rows, env=env)


class Curious(PPO):
    """Learns a network beside its policy, counts, and keeps a tensor."""

    def _setup_model(self) -> None:
        super()._setup_model()
        self.curiosity = nn.Linear(3, 1)
        self.curiosity_optimizer = th.optim.SGD(self.curiosity.parameters(), 0.01, momentum=0.9)
        self.surprise = th.zeros(1)
        self.trainings = 0

    def train(self) -> None:
        super().train()
        rows = th.as_tensor(self.rollout_buffer.observations).reshape(-1, 3)
        loss = self.curiosity(rows).pow(2).mean() * (1 + self.trainings + self.surprise)
        self.curiosity_optimizer.zero_grad()
        loss.sum().backward()
        self.curiosity_optimizer.step()
        self.surprise = loss.detach().reshape(1)
        self.trainings += 1
        with th.no_grad():
            self.policy.value_net.bias += 0.01 * self.surprise


def known(**kwargs: Any) -> Env:
    return Known(ends=0.05, **kwargs)


def vectorised(*made: Callable[[], Env]) -> DummyVecEnv:
    return DummyVecEnv([lambda make=make: Monitor(make()) for make in made])  # type: ignore[misc]


def own_ppo() -> Any:
    venv = VecNormalize(vectorised(known, known), norm_reward=False)
    policy = {"activation_fn": nn.ReLU, "features_extractor_class": Net, "net_arch": {"pi": [16], "vf": [16]}}
    return PPO("MlpPolicy", venv, n_steps=64, batch_size=32, n_epochs=2, policy_kwargs=policy,
               learning_rate=lambda left: left * 3e-4, clip_range=lambda left: 0.2 * left, **ON)  # fmt: skip


def rewards_normalised() -> Any:
    venv = VecNormalize(vectorised(lambda: known(continuous=True)), norm_obs=False)
    return SAC("MlpPolicy", venv, policy_kwargs=small(), **OFF)


def tqc() -> Any:
    return sb3_contrib.TQC("MlpPolicy", gym.make("Pendulum-v1"), policy_kwargs=small(), **OFF)


def tqc_gsde() -> Any:
    return sb3_contrib.TQC("MlpPolicy", gym.make("Pendulum-v1"), use_sde=True, sde_sample_freq=3,
                           train_freq=8, policy_kwargs=small(), **OFF)  # fmt: skip


def qrdqn() -> Any:
    return sb3_contrib.QRDQN("MlpPolicy", gym.make("CartPole-v1"), target_update_interval=40,
                             exploration_fraction=0.5, policy_kwargs=small(), **OFF)  # fmt: skip


def crossq() -> Any:
    return sb3_contrib.CrossQ("MlpPolicy", gym.make("Pendulum-v1"), policy_kwargs=small(), **OFF)


def trpo() -> Any:
    return sb3_contrib.TRPO(
        "MlpPolicy", gym.make("CartPole-v1"), n_steps=64, batch_size=24, n_critic_updates=3, **ON
    )


def maskableppo() -> Any:
    return sb3_contrib.MaskablePPO(
        "MlpPolicy", Masked(ends=0.05), n_steps=48, batch_size=16, n_epochs=2, **ON
    )


def recurrentppo() -> Any:
    return sb3_contrib.RecurrentPPO("MlpLstmPolicy", gym.make("CartPole-v1"), n_steps=40, batch_size=16,
                                    n_epochs=2, policy_kwargs={"lstm_hidden_size": 8, **small()},
                                    **ON)  # fmt: skip


def recurrentppo_dict() -> Any:
    venv = vectorised(*2 * [lambda: known(mapping=True)])
    return sb3_contrib.RecurrentPPO("MultiInputLstmPolicy", venv, n_steps=24, batch_size=16, n_epochs=2,
                                    policy_kwargs={"lstm_hidden_size": 8, **small()}, **ON)  # fmt: skip


def ars() -> Any:
    return sb3_contrib.ARS("LinearPolicy", gym.make("CartPole-v1"), n_delta=3, n_top=2, seed=0)


def ars_normalised() -> Any:
    venv = VecNormalize(vectorised(lambda: known(continuous=True)))
    return sb3_contrib.ARS("MlpPolicy", venv, n_delta=3, n_eval_episodes=2, zero_policy=False, seed=0)


def flipping() -> Env:
    return Flipping(n_bits=7, continuous=True)


def her() -> Any:
    keys = {"n_sampled_goal": 2, "goal_selection_strategy": "future"}
    return SAC("MultiInputPolicy", flipping(), replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=keys,
               train_freq=4, policy_kwargs=small(), **OFF)  # fmt: skip


def her_two_envs() -> Any:
    keys = {"n_sampled_goal": 3, "goal_selection_strategy": "final", "copy_info_dict": True}
    venv = DummyVecEnv([flipping, flipping])  # a Monitor would put the time of day into the infos
    return SAC("MultiInputPolicy", venv, replay_buffer_class=HerReplayBuffer,
               replay_buffer_kwargs=keys, policy_kwargs=small(), **OFF)  # fmt: skip


def prioritised() -> Any:
    return DQN("MlpPolicy", known(), replay_buffer_class=Prioritised, policy_kwargs=small(), **OFF)


def curious() -> Any:
    return Curious("MlpPolicy", known(), n_steps=48, batch_size=16, n_epochs=2, policy_kwargs=small(), **ON)


def frame_stack() -> Any:
    return PPO("MlpPolicy", VecFrameStack(vectorised(known), 3), n_steps=64, batch_size=32, n_epochs=2, **ON)


def subproc() -> Any:
    return PPO(
        "MlpPolicy",
        SubprocVecEnv([lambda: Monitor(known())] * 2, "fork"),
        n_steps=32,
        batch_size=32,
        n_epochs=2,
        **ON,
    )


def ppo_gsde() -> Any:
    return PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=48, batch_size=24, n_epochs=2, use_sde=True,
               sde_sample_freq=5, **ON)  # fmt: skip


def ppo_choices() -> Any:
    return PPO("MlpPolicy", Choices(), n_steps=48, batch_size=24, n_epochs=2, **ON)


def unmonitored() -> Any:
    venv = VecNormalize(DummyVecEnv([known, known]))
    return PPO("MlpPolicy", venv, n_steps=32, batch_size=16, n_epochs=2, **ON)


def dqn_pictures() -> Any:
    return DQN("CnnPolicy", Tiny(), policy_kwargs={"features_extractor_kwargs": {"features_dim": 8}},
               **{**OFF, "batch_size": 4, "buffer_size": 100})  # fmt: skip


def dqn_frugal() -> Any:
    return DQN("MlpPolicy", known(), optimize_memory_usage=True, policy_kwargs=small(),
               replay_buffer_kwargs={"handle_timeout_termination": False}, **OFF)  # fmt: skip


#: by name: what builds it, and env steps of its training
MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    make.__name__: (make, total)
    for make, total in (
        (own_ppo, 300), (tqc, 160), (tqc_gsde, 160), (qrdqn, 300), (crossq, 130), (trpo, 150),
        (maskableppo, 150), (recurrentppo, 130), (recurrentppo_dict, 110), (ars, 300), (ars_normalised, 260),
        (her, 260), (her_two_envs, 240), (prioritised, 220), (curious, 150), (frame_stack, 150),
        (subproc, 150), (ppo_gsde, 120), (ppo_choices, 120), (dqn_pictures, 110), (dqn_frugal, 220),
        (unmonitored, 150), (rewards_normalised, 120),
    )
}  # fmt: skip

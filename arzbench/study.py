"""What to train, as data: a study, its trainings, and a class for each algorithm.

The hyper-parameters that decide how often something happens are fields with SB3's own names and
defaults (a test compares them with SB3's signatures); all others travel in `hyperparameters`.
To add an algorithm: its class here, with its `loop` and where the library has it.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, ClassVar, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from arzbench.digest import digest
from arzbench.loop import TrainingLoop

#: what users name as module:attribute
_REFERENCE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
Scalar = bool | int | float | str | None
_COMMON = frozenset({"learning_rate", "gamma", "policy_kwargs", "stats_window_size"})
_REPLAY = _COMMON | {"tau", "n_steps", "replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage"}
_SDE = frozenset({"use_sde", "sde_sample_freq"})
_ROLLOUT = _COMMON | _SDE | {
    "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "normalize_advantage",
    "rollout_buffer_class", "rollout_buffer_kwargs",
}  # fmt: skip
_ENTROPY = _SDE | {"action_noise", "ent_coef", "target_entropy", "use_sde_at_warmup"}
_CLIPPED = frozenset({"clip_range", "clip_range_vf", "target_kl"})


def is_reference(value: object) -> bool:
    """Whether `value` has the form `module:attribute`."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: keys that records did not always have, and the values that say nothing: they are left out then, so
    #: that a training that needs none of them keeps its identity
    LATER: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems))
        for name, nothing in self.LATER.items():
            if getattr(self, name) == nothing:
                msgspec.structs.force_setattr(self, name, UNSET)

    def problems(self) -> list[str]:
        """What is wrong with the values, each in words."""
        return [
            f"{name} = {value}: must not be negative"
            for name in self.__struct_fields__
            if isinstance(value := getattr(self, name), int | float)
            and value < 0
            and name != "gradient_steps"
        ]


class Evaluation(_Part, frozen=True, kw_only=True):
    """SB3's EvalCallback: every `eval_freq` calls (vectorised steps), 0 = never."""

    eval_freq: int = 0
    n_eval_episodes: int = 5
    deterministic: bool = True
    final_episodes: int = 0  # episodes of the trained policy after the training
    max_steps: int | UnsetType = UNSET  # env steps after which an episode is broken off
    concurrent: bool | UnsetType = UNSET  # played beside the training where that changes no result

    LATER = {"max_steps": 0, "concurrent": True}


class Baseline(_Part, frozen=True, kw_only=True):
    """Episodes under a fixed controller, before the training."""

    controller: str = "random"
    episodes: int = 0


class Checkpoints(_Part, frozen=True, kw_only=True):
    """A save every `checkpoint_freq` calls (vectorised steps), 0 = only at the end."""

    checkpoint_freq: int = 0
    keep_last: int = 2


BOX, DISCRETE = ("Box",), ("Discrete",)
ANY = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")
LogMode = Literal["off", "periodic", "every"]
MODES: tuple[LogMode, ...] = get_args(LogMode)


class Normalization(_Part, frozen=True, kw_only=True):
    """SB3's VecNormalize; without a `gamma` of its own it takes the algorithm's."""

    norm_obs: bool = True
    norm_reward: bool = True
    clip_obs: float = 10.0
    clip_reward: float = 10.0
    gamma: float | None = None
    epsilon: float = 1e-8
    norm_obs_keys: tuple[str, ...] | None = None


class Logging(_Part, frozen=True, kw_only=True):
    """The env's own messages: none, one call in `log_period`, or every call."""

    mode: LogMode = "off"
    log_period: int = 1000


#: what does not change what a unit of a phase costs
_NO_PRICE = frozenset({
    "name", "seed", "total_timesteps", "evaluation", "baseline", "checkpoint", "logging", "env_errors",
})  # fmt: skip


class TrainConfig(_Part, frozen=True, kw_only=True, tag_field="algo"):
    """One training: an env, an algorithm with its hyper-parameters, and its schedules."""

    name: str = "training"
    env: str
    env_kwargs: dict[str, Scalar] = {}
    policy: str = "MlpPolicy"
    hyperparameters: dict[str, Any] = {}
    n_envs: int = 1
    vec_normalize: bool | Normalization = False
    wrappers: tuple[str | dict[str, Any], ...] | UnsetType = UNSET
    frame_stack: int | UnsetType = UNSET
    vec_env: Literal["dummy", "subproc"] | UnsetType = UNSET
    env_errors: int | UnsetType = UNSET
    fast: bool | UnsetType = UNSET
    device: str = "cpu"
    torch_threads: int = 1
    seed: int = 0
    total_timesteps: int
    evaluation: Evaluation = Evaluation()
    baseline: Baseline = Baseline()
    checkpoint: Checkpoints = Checkpoints()
    logging: Logging = Logging()

    #: whether messages of its env can be switched
    MESSAGES: ClassVar[bool] = True
    #: where the algorithm's class is, as module:name
    LIBRARY: ClassVar[str] = ""
    #: kinds of action spaces it can choose from
    ACTIONS: ClassVar[tuple[str, ...]] = ANY
    #: its constructor's arguments that are not fields here
    EXTRA: ClassVar[frozenset[str]] = frozenset()
    LATER = {"wrappers": (), "frame_stack": 0, "vec_env": "dummy", "env_errors": 0, "fast": True}

    def problems(self) -> list[str]:
        problems = super().problems() + self._below_one("n_envs", "total_timesteps", "torch_threads")
        if self.vec_env == "subproc" and self.logging.mode != "off":
            problems.append("vec_env = 'subproc': its processes keep no messages, logging.mode must be 'off'")
        return problems

    def _below_one(self, *names: str) -> list[str]:
        return [f"{n} = {getattr(self, n)}: must be at least 1" for n in names if getattr(self, n) == 0]

    @property
    def algo(self) -> str:
        """The algorithm's name, as in a study file."""
        return str(self.__struct_config__.tag)

    @property
    def loop(self) -> TrainingLoop:
        """When it collects and when it learns."""
        raise TypeError("abstract")

    @property
    def evaluates(self) -> bool:
        """Whether episodes are played beside the training's own, in an env of their own."""
        return bool(self.evaluation.eval_freq or self.evaluation.final_episodes or self.baseline.episodes)

    @property
    def evaluates_beside(self) -> bool:
        """Whether evaluations may be played beside it, as far as the study tells."""
        evaluation = self.evaluation
        wanted = bool(evaluation.eval_freq) and evaluation.concurrent is not False
        # actions that are drawn and messages come in order; more threads have no core to spare
        alone = evaluation.deterministic and self.logging.mode == "off" and self.torch_threads == 1
        return wanted and alone and self.device != "cuda"

    @property
    def own_env(self) -> bool:
        """Whether it is on an env of this package."""
        return self.env.rpartition(":")[2].startswith("arzbench/")

    @property
    def normalizes_observations(self) -> bool:
        """Whether a policy needs running statistics to see what it learned from."""
        return bool(getattr(self.vec_normalize, "norm_obs", self.vec_normalize))

    @property
    def rollout_steps(self) -> int:
        """Env steps of one rollout: SB3 trains in whole rollouts."""
        return self.loop.rollout_steps

    @classmethod
    def schedule_fields(cls) -> list[str]:
        """The hyper-parameters that are fields of this kind."""
        return [f for f in cls.__struct_fields__ if f not in TrainConfig.__struct_fields__]

    def constructor_arguments(self) -> dict[str, Any]:
        """Hyper-parameters as SB3's constructor takes them."""
        fields = {name: getattr(self, name) for name in self.schedule_fields()}
        return {**fields, **self.hyperparameters}

    def workload_digest(self) -> str:
        """Identity of what a unit of each phase costs; budgets and schedules do not enter."""
        return digest({k: v for k, v in msgspec.to_builtins(self).items() if k not in _NO_PRICE})


class OffPolicyConfig(TrainConfig, frozen=True, kw_only=True):
    """What counts for algorithms with a replay buffer."""

    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 256
    train_freq: int | tuple[int, str] = 1
    gradient_steps: int = 1

    EXTRA = _REPLAY

    def problems(self) -> list[str]:
        problems = super().problems() + self._below_one("buffer_size", "batch_size")
        loop = self.loop
        if loop.unit not in ("step", "episode") or loop.frequency < 1:
            problems.append(f"train_freq = {self.train_freq}: a number of steps, or [n, 'episode']")
        if loop.unit == "episode" and self.n_envs > 1:
            problems.append("train_freq in episodes needs n_envs = 1 (a limit of SB3)")
        return problems

    @property
    def loop(self) -> TrainingLoop:
        frequency, unit = (self.train_freq, "step") if isinstance(self.train_freq, int) else self.train_freq
        return TrainingLoop(
            n_envs=self.n_envs,
            frequency=frequency,
            unit=unit,  # type: ignore[arg-type]
            learning_starts=self.learning_starts,
            gradient_steps=self.gradient_steps,
            buffer_size=self.buffer_size,
        )


class EpsilonGreedyConfig(OffPolicyConfig, frozen=True, kw_only=True):
    """What counts where a share of the actions is random."""

    batch_size: int = 32
    train_freq: int | tuple[int, str] = 4
    exploration_fraction: float = 0.1
    exploration_initial_eps: float = 1.0
    exploration_final_eps: float = 0.05

    ACTIONS = DISCRETE
    EXTRA = _REPLAY | {"target_update_interval", "max_grad_norm"}

    @property
    def loop(self) -> TrainingLoop:
        return msgspec.structs.replace(
            super().loop,
            exploration_initial_eps=self.exploration_initial_eps,
            exploration_final_eps=self.exploration_final_eps,
            exploration_steps=self.exploration_fraction * self.total_timesteps,
            exploration_horizon=self.total_timesteps,
        )


class DQN(EpsilonGreedyConfig, frozen=True, kw_only=True, tag="dqn"):
    """Mnih et al. 2015, SB3's DQN."""

    LIBRARY = "stable_baselines3:DQN"


class QRDQN(EpsilonGreedyConfig, frozen=True, kw_only=True, tag="qrdqn"):
    """Dabney et al. 2017, sb3-contrib's QRDQN."""

    exploration_fraction: float = 0.005
    exploration_final_eps: float = 0.01

    LIBRARY = "sb3_contrib:QRDQN"


class SAC(OffPolicyConfig, frozen=True, kw_only=True, tag="sac"):
    """Haarnoja et al. 2018, SB3's SAC."""

    LIBRARY = "stable_baselines3:SAC"
    ACTIONS = BOX
    EXTRA = _REPLAY | _ENTROPY | {"target_update_interval"}


class TQC(OffPolicyConfig, frozen=True, kw_only=True, tag="tqc"):
    """Kuznetsov et al. 2020, sb3-contrib's TQC."""

    LIBRARY = "sb3_contrib:TQC"
    ACTIONS = BOX
    EXTRA = _REPLAY | _ENTROPY | {"target_update_interval", "top_quantiles_to_drop_per_net"}


class CrossQ(OffPolicyConfig, frozen=True, kw_only=True, tag="crossq"):
    """Bhatt et al. 2024, sb3-contrib's CrossQ."""

    LIBRARY = "sb3_contrib:CrossQ"
    ACTIONS = BOX
    EXTRA = (_REPLAY | _ENTROPY | {"policy_delay"}) - {"tau"}


class TD3(OffPolicyConfig, frozen=True, kw_only=True, tag="td3"):
    """Fujimoto et al. 2018, SB3's TD3."""

    LIBRARY = "stable_baselines3:TD3"
    ACTIONS = BOX
    EXTRA = _REPLAY | {"action_noise", "policy_delay", "target_policy_noise", "target_noise_clip"}


class DDPG(OffPolicyConfig, frozen=True, kw_only=True, tag="ddpg"):
    """Lillicrap et al. 2016, SB3's DDPG."""

    LIBRARY = "stable_baselines3:DDPG"
    ACTIONS = BOX
    EXTRA = (_REPLAY | {"action_noise"}) - {"stats_window_size"}


class OnPolicyConfig(TrainConfig, frozen=True, kw_only=True):
    """What counts for algorithms that learn from each rollout once."""

    n_steps: int = 5

    EXTRA = _ROLLOUT

    def problems(self) -> list[str]:
        return super().problems() + self._below_one("n_steps")

    @property
    def loop(self) -> TrainingLoop:
        return TrainingLoop.on_policy(self.n_envs, self.n_steps)


class MinibatchConfig(OnPolicyConfig, frozen=True, kw_only=True):
    """What counts for PPO and its kin, which go over each rollout in minibatches."""

    n_steps: int = 2048
    batch_size: int = 64
    n_epochs: int = 10

    def problems(self) -> list[str]:
        problems = super().problems() + self._below_one("n_epochs")
        name = type(self).__name__
        if 0 <= self.batch_size < 2:
            problems.append(f"batch_size = {self.batch_size}: {name} needs at least 2")
        if self.n_envs * self.n_steps == 1:
            problems.append(f"{name} needs n_steps x n_envs > 1 (it normalises advantages)")
        return problems

    @property
    def loop(self) -> TrainingLoop:
        return TrainingLoop.on_policy(
            self.n_envs, self.n_steps, batch_size=self.batch_size, n_epochs=self.n_epochs
        )


class PPO(MinibatchConfig, frozen=True, kw_only=True, tag="ppo"):
    """Schulman et al. 2017, SB3's PPO."""

    LIBRARY = "stable_baselines3:PPO"
    EXTRA = _ROLLOUT | _CLIPPED


class RecurrentPPO(MinibatchConfig, frozen=True, kw_only=True, tag="recurrentppo"):
    """PPO with an LSTM, sb3-contrib's RecurrentPPO."""

    policy: str = "MlpLstmPolicy"
    n_steps: int = 128
    batch_size: int = 128

    LIBRARY = "sb3_contrib:RecurrentPPO"
    EXTRA = (_ROLLOUT | _CLIPPED) - {"rollout_buffer_class", "rollout_buffer_kwargs"}


class MaskablePPO(MinibatchConfig, frozen=True, kw_only=True, tag="maskableppo"):
    """PPO where an env forbids actions, sb3-contrib's MaskablePPO."""

    LIBRARY = "sb3_contrib:MaskablePPO"
    ACTIONS = ("Discrete", "MultiDiscrete", "MultiBinary")
    EXTRA = (_ROLLOUT | _CLIPPED) - _SDE


class TRPO(OnPolicyConfig, frozen=True, kw_only=True, tag="trpo"):
    """Schulman et al. 2015, sb3-contrib's TRPO: one step of the policy, then its critic is fitted."""

    n_steps: int = 2048
    batch_size: int = 128
    n_critic_updates: int = 10

    LIBRARY = "sb3_contrib:TRPO"
    EXTRA = (_ROLLOUT - {"ent_coef", "vf_coef", "max_grad_norm"}) | {
        "cg_damping", "cg_max_steps", "line_search_max_iter", "line_search_shrinking_factor",
        "sub_sampling_factor", "target_kl",
    }  # fmt: skip

    def problems(self) -> list[str]:
        return super().problems() + self._below_one("batch_size")

    @property
    def loop(self) -> TrainingLoop:
        return TrainingLoop.on_policy(
            self.n_envs,
            self.n_steps,
            batch_size=self.batch_size,
            n_epochs=self.n_critic_updates,
            works_on_whole=True,
        )


class A2C(OnPolicyConfig, frozen=True, kw_only=True, tag="a2c"):
    """Mnih et al. 2016, SB3's A2C."""

    LIBRARY = "stable_baselines3:A2C"
    EXTRA = _ROLLOUT | {"rms_prop_eps", "use_rms_prop"}


class ARS(TrainConfig, frozen=True, kw_only=True, tag="ars"):
    """Mania et al. 2018, sb3-contrib's ARS: learns from whole episodes of perturbed policies."""

    n_delta: int = 8
    n_eval_episodes: int = 1

    LIBRARY = "sb3_contrib:ARS"
    ACTIONS = ("Box", "Discrete")
    EXTRA = frozenset({
        "alive_bonus_offset", "delta_std", "learning_rate", "n_top", "policy_kwargs", "stats_window_size",
        "zero_policy",
    })  # fmt: skip

    def problems(self) -> list[str]:
        return super().problems() + self._below_one("n_delta", "n_eval_episodes")

    @property
    def loop(self) -> TrainingLoop:
        return TrainingLoop(
            frequency=2 * self.n_delta * self.n_eval_episodes,
            unit="episode",
            gradient_steps=1,
            candidates=2 * self.n_delta,
        )


class Code(_Part, frozen=True, kw_only=True):
    """The user's Python code that builds a model.

    A script is run whole, `arguments` are its command line, and its `number`th call of `arzbench.learn` is
    meant. A factory is a function, `module:name`, that returns an unlearned model; `kwargs` are its own.
    """

    script: str = ""
    arguments: tuple[str, ...] = ()
    number: int = 0
    factory: str = ""
    kwargs: dict[str, Any] = {}

    @property
    def is_named(self) -> bool:
        """Whether a command line can name it: not what a notebook or a test holds."""
        return bool(self.factory) or (self.script.endswith(".py") and "__main__" not in self.script)

    @property
    def command(self) -> str:
        """How it is named on a command line."""
        if self.factory:
            return f"--factory {self.factory}"
        return shlex.join([self.script, *(["--", *self.arguments] if self.arguments else [])])


class Factory(TrainConfig, frozen=True, kw_only=True, tag="factory"):
    """A training of the model that a user's function returns, which nobody has called yet.

    `factory` is module:name or file.py:name, `kwargs` are its arguments. What it builds makes it a `Built`.
    """

    env: str = ""
    factory: str
    kwargs: dict[str, Any] = {}

    @property
    def loop(self) -> TrainingLoop:
        raise TypeError("read from the model when it is built")


class Built(TrainConfig, frozen=True, kw_only=True, tag="built"):
    """A training of a model that the user's own code builds: its loop was read from the model.

    `policy` and `env` are the names of its policy's class and of its env.
    """

    code: Code
    #: the algorithm's class
    model: str
    #: of the shapes of all weights
    network: str
    loop: TrainingLoop
    #: whether a callback of the user evaluates, as `evaluation` says
    evaluated_by_callback: bool = False

    MESSAGES = False

    @property
    def algo(self) -> str:
        return self.model.lower()

    @property
    def evaluates_beside(self) -> bool:
        return super().evaluates_beside and not self.evaluated_by_callback

    def workload_digest(self) -> str:
        values = msgspec.to_builtins(self)
        del values["code"]["number"]
        loop = values["loop"]
        if horizon := loop.pop("exploration_horizon"):
            loop["exploration_steps"] /= horizon  # of any length
        left_out = {*_NO_PRICE, "evaluated_by_callback"}
        return digest({k: v for k, v in values.items() if k not in left_out})


AnyConfig = (
    DQN | SAC | TD3 | DDPG | PPO | A2C
    | TQC | QRDQN | CrossQ | TRPO | RecurrentPPO | MaskablePPO | ARS
    | Built
)  # fmt: skip
ALGORITHMS: dict[str, type[TrainConfig]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(AnyConfig) if kind.LIBRARY
}
#: other names of algorithms: RL Zoo's, and the library's packages
ALIASES = {
    "ppo_lstm": "recurrentppo",
    "ppo_recurrent": "recurrentppo",
    "recurrent_ppo": "recurrentppo",
    "ppo_mask": "maskableppo",
    "maskable_ppo": "maskableppo",
}


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Trainings that count as one job."""

    name: str
    description: str = ""
    trainings: tuple[AnyConfig, ...]

    @property
    def built(self) -> bool:
        """Whether the user's own code builds any of its models."""
        return any(isinstance(t, Built) for t in self.trainings)

    @property
    def code(self) -> Code | None:
        """What builds the first training's model, where the user's own code does."""
        first = self.trainings[0]
        return first.code if isinstance(first, Built) else None

    @property
    def total_timesteps(self) -> int:
        """Training steps of the whole job."""
        return sum(t.total_timesteps for t in self.trainings)

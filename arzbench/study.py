"""Studies: what to train, written as TOML by people, checked at once and completely.

The hyper-parameters that decide how often something happens are fields with SB3's own names and
defaults (a test compares them with SB3's signatures); all others travel in `hyperparameters`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import msgspec

from arzbench import store
from arzbench.errors import UsageError, unknown

Scalar = bool | int | float | str | None
_COMMON = frozenset({"learning_rate", "gamma", "policy_kwargs", "stats_window_size"})
_REPLAY = _COMMON | {"tau", "n_steps", "replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage"}
_SDE = frozenset({"use_sde", "sde_sample_freq"})
_ROLLOUT = _COMMON | _SDE | {
    "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "normalize_advantage",
    "rollout_buffer_class", "rollout_buffer_kwargs",
}  # fmt: skip


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __post_init__(self) -> None:
        found = self.problems()
        if found:
            raise ValueError("; ".join(found))

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


class Baseline(_Part, frozen=True, kw_only=True):
    """Episodes under a fixed controller, before the training."""

    controller: str = "random"
    episodes: int = 0


class Checkpoints(_Part, frozen=True, kw_only=True):
    """A save every `checkpoint_freq` calls (vectorised steps), 0 = only at the end."""

    checkpoint_freq: int = 0
    keep_last: int = 2


LogMode = Literal["off", "periodic", "every"]


class Logging(_Part, frozen=True, kw_only=True):
    """The env's own messages: none, one call in `log_period`, or every call."""

    mode: LogMode = "off"
    log_period: int = 1000


class TrainConfig(_Part, frozen=True, kw_only=True, tag_field="algo"):
    """One training: an env, an algorithm with its hyper-parameters, and its schedules."""

    name: str = "training"
    env: str
    env_kwargs: dict[str, Scalar] = {}
    policy: str = "MlpPolicy"
    hyperparameters: dict[str, Any] = {}
    n_envs: int = 1
    vec_normalize: bool = False
    device: str = "cpu"
    torch_threads: int = 1
    seed: int = 0
    total_timesteps: int
    evaluation: Evaluation = Evaluation()
    baseline: Baseline = Baseline()
    checkpoint: Checkpoints = Checkpoints()
    logging: Logging = Logging()

    #: SB3 constructor arguments that are not fields here
    EXTRA: ClassVar[frozenset[str]] = frozenset()

    def problems(self) -> list[str]:
        return super().problems() + self._below_one("n_envs", "total_timesteps", "torch_threads")

    def _below_one(self, *names: str) -> list[str]:
        return [f"{n} = {getattr(self, n)}: must be at least 1" for n in names if getattr(self, n) == 0]

    @property
    def algo(self) -> str:
        """The algorithm's name, as in a study file."""
        return str(self.__struct_config__.tag)

    @property
    def rollout_steps(self) -> int:
        """Env steps of one rollout: SB3 trains in whole rollouts."""
        raise TypeError("abstract")

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
        left_out = {"name", "seed", "total_timesteps", "evaluation", "baseline", "checkpoint", "logging"}
        return store.digest({k: v for k, v in msgspec.to_builtins(self).items() if k not in left_out})


class OffPolicyConfig(TrainConfig, frozen=True, kw_only=True):
    """What counts for algorithms with a replay buffer."""

    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 256
    train_freq: int | tuple[int, str] = 1
    gradient_steps: int = 1

    EXTRA = _REPLAY

    def problems(self) -> list[str]:
        found = super().problems() + self._below_one("buffer_size", "batch_size")
        frequency, unit = self.frequency
        if unit not in ("step", "episode") or frequency < 1:
            found.append(f"train_freq = {self.train_freq}: a number of steps, or [n, 'episode']")
        if unit == "episode" and self.n_envs > 1:
            found.append("train_freq in episodes needs n_envs = 1 (a limit of SB3)")
        return found

    @property
    def frequency(self) -> tuple[int, str]:
        """(n, "step" | "episode")."""
        freq = self.train_freq
        return (freq, "step") if isinstance(freq, int) else (freq[0], freq[1])

    @property
    def rollout_steps(self) -> int:
        frequency, unit = self.frequency
        return self.n_envs * (frequency if unit == "step" else 1)


class DQN(OffPolicyConfig, frozen=True, kw_only=True, tag="dqn"):
    """Mnih et al. 2015, SB3's DQN."""

    batch_size: int = 32
    train_freq: int | tuple[int, str] = 4
    exploration_fraction: float = 0.1
    exploration_initial_eps: float = 1.0
    exploration_final_eps: float = 0.05

    EXTRA = _REPLAY | {"target_update_interval", "max_grad_norm"}


class SAC(OffPolicyConfig, frozen=True, kw_only=True, tag="sac"):
    """Haarnoja et al. 2018, SB3's SAC."""

    EXTRA = _REPLAY | _SDE | {
        "action_noise", "ent_coef", "target_update_interval", "target_entropy", "use_sde_at_warmup",
    }  # fmt: skip


class TD3(OffPolicyConfig, frozen=True, kw_only=True, tag="td3"):
    """Fujimoto et al. 2018, SB3's TD3."""

    EXTRA = _REPLAY | {"action_noise", "policy_delay", "target_policy_noise", "target_noise_clip"}


class DDPG(OffPolicyConfig, frozen=True, kw_only=True, tag="ddpg"):
    """Lillicrap et al. 2016, SB3's DDPG."""

    EXTRA = (_REPLAY | {"action_noise"}) - {"stats_window_size"}


class OnPolicyConfig(TrainConfig, frozen=True, kw_only=True):
    """What counts for algorithms that learn from each rollout once."""

    n_steps: int = 5

    EXTRA = _ROLLOUT

    def problems(self) -> list[str]:
        return super().problems() + self._below_one("n_steps")

    @property
    def rollout_steps(self) -> int:
        return self.n_envs * self.n_steps


class PPO(OnPolicyConfig, frozen=True, kw_only=True, tag="ppo"):
    """Schulman et al. 2017, SB3's PPO."""

    n_steps: int = 2048
    batch_size: int = 64
    n_epochs: int = 10

    EXTRA = _ROLLOUT | {"clip_range", "clip_range_vf", "target_kl"}

    def problems(self) -> list[str]:
        found = super().problems() + self._below_one("n_epochs")
        if 0 <= self.batch_size < 2:
            found.append(f"batch_size = {self.batch_size}: PPO needs at least 2")
        if self.rollout_steps == 1:
            found.append("PPO needs n_steps x n_envs > 1 (it normalises advantages)")
        return found


class A2C(OnPolicyConfig, frozen=True, kw_only=True, tag="a2c"):
    """Mnih et al. 2016, SB3's A2C."""

    EXTRA = _ROLLOUT | {"rms_prop_eps", "use_rms_prop"}


AnyConfig = DQN | SAC | TD3 | DDPG | PPO | A2C
ALGORITHMS: dict[str, type[TrainConfig]] = {
    str(kind.__struct_config__.tag): kind for kind in (DQN, SAC, TD3, DDPG, PPO, A2C)
}


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Trainings that count as one job."""

    name: str
    description: str = ""
    trainings: tuple[AnyConfig, ...]

    @property
    def total_timesteps(self) -> int:
        """Training steps of the whole job."""
        return sum(t.total_timesteps for t in self.trainings)


def make_config(table: dict[str, Any], source: str) -> TrainConfig:
    """The `TrainConfig` of one TOML table; all its problems are told at once.

    Raises:
        UsageError: unknown algorithm, keys or hyper-parameters, or values that do not fit.
    """
    table = dict(table)
    algo = table.pop("algo", None)
    if not isinstance(algo, str) or algo.lower() not in ALGORITHMS:
        error = unknown("algorithm", str(algo), ALGORITHMS)
        raise UsageError(f"{source}: {error.message}", error.hint)
    kind = ALGORITHMS[algo.lower()]
    problems: list[str] = []
    given = table.pop("hyperparameters", {})
    if not isinstance(given, dict):
        problems.append(f"hyperparameters = {given!r}: not a table")
        given = {}
    extra = {k: v for k, v in given.items() if k not in kind.schedule_fields()}
    counted = {k: v for k, v in given.items() if k not in extra}
    hints = []
    if any(k not in kind.EXTRA for k in extra):
        names = sorted({*kind.schedule_fields(), *kind.EXTRA})
        problems += [f"{algo} has no hyper-parameter {k!r}" for k in extra if k not in kind.EXTRA]
        hints.append(f"hyper-parameters of {algo}: {', '.join(names)}")
    unknown_keys, valid = _unknown_keys(table)
    misfits, defaults = _misfits(kind, {**table, **counted}, algo.lower())
    problems += unknown_keys + misfits
    if problems:
        raise UsageError(f"{source}: " + "; ".join(problems), "\n".join(hints + valid + defaults))
    data = {**table, **counted, "hyperparameters": extra, "algo": algo.lower()}
    config: TrainConfig = store.convert(data, AnyConfig, source)
    return config


_SUBTABLES: dict[str, type[_Part]] = {
    "evaluation": Evaluation,
    "baseline": Baseline,
    "checkpoint": Checkpoints,
    "logging": Logging,
}


def _unknown_keys(table: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(problems, valid names) of the keys of a training and of its tables."""
    problems, valid = [], []
    own = TrainConfig.__struct_fields__
    if any(key not in own for key in table):
        problems += [f"unknown key {key!r}" for key in table if key not in own]
        valid.append(f"keys: {', '.join(sorted({'algo', *own}))}")
    for name, part in _SUBTABLES.items():
        inside = table.get(name)
        wrong = [k for k in inside if k not in part.__struct_fields__] if isinstance(inside, dict) else []
        if wrong:
            problems += [f"unknown key '{name}.{key}'" for key in wrong]
            valid.append(f"keys of {name}: {', '.join(part.__struct_fields__)}")
    return problems, valid


def _misfits(kind: type[TrainConfig], data: dict[str, Any], algo: str) -> tuple[list[str], list[str]]:
    """(each value that is missing, of another type, or out of range; the defaults of those with one)."""
    problems, defaults = [], []
    fitting: dict[str, Any] = {"env": "", "total_timesteps": 1, "algo": algo}
    for field in msgspec.structs.fields(kind):
        if field.name not in data:
            problems += [f"{field.name} is missing"] if field.required else []
            continue
        value = data[field.name]
        if field.name in _SUBTABLES and isinstance(value, dict):
            known = _SUBTABLES[field.name].__struct_fields__
            value = {k: v for k, v in value.items() if k in known}
        try:
            msgspec.convert(value, field.type)
            fitting[field.name] = value
        except msgspec.ValidationError as error:
            problems.append(_told(error, field.name))
            if isinstance(field.default, str | int | float):
                defaults.append(f"the default: {field.name} = {field.default}")
    try:
        msgspec.convert(fitting, AnyConfig)
    except msgspec.ValidationError as error:
        problems.append(_told(error, ""))
    return problems, defaults


def _told(error: msgspec.ValidationError, name: str) -> str:
    """The error behind the place in the file where it is."""
    text, _, where = str(error).partition(" - at `$")
    place = f"{name}{where.rstrip('`')}"
    if place == "logging.mode":
        text += f" (valid: {', '.join(get_args(LogMode))})"
    return f"{place}: {text}" if place else text


def make_study(data: dict[str, Any], source: str) -> Study:
    """The `Study` of a parsed study file: each [[training]] inherits the file's own keys.

    Raises:
        UsageError: everything that is wrong with the file, at once.
    """
    body = store.check_schema(data, "arzbench/study", source)
    trainings = body.pop("training", None) or [{}]
    name = body.pop("name", None)
    description = body.pop("description", "")
    problems: list[UsageError] = []
    if not isinstance(name, str) or not name:
        problems.append(UsageError(f"{source}: a study needs a name", 'add: name = "my-study"'))
    elif {"/", "\0"} & set(name):
        problems.append(UsageError(f"{source}: {name!r} cannot be part of a file's name", "leave out the /"))
    if not isinstance(description, str):
        problems.append(UsageError(f"{source}: description: not a text"))
    if not isinstance(trainings, list) or not all(isinstance(t, dict) for t in trainings):
        problems.append(UsageError(f"{source}: training: not a list of tables", "write [[training]]"))
        trainings = []
    configs = []
    for number, table in enumerate(trainings, 1):
        merged = _inherit(body, table)
        merged.setdefault("name", f"{name}-{number}" if len(trainings) > 1 else name)
        try:
            configs.append(make_config(merged, f"{source}, training {number}"))
        except UsageError as error:
            problems.append(error)
    if problems:
        hints = dict.fromkeys(line for p in problems for line in p.hint.splitlines())
        raise UsageError("\n".join(p.message for p in problems), "\n".join(hints))
    return Study(name=name, description=description, trainings=tuple(configs))  # type: ignore[arg-type]


def _inherit(body: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """`table` over `body`; tables within are merged key by key."""
    merged = dict(body)
    for key, value in table.items():
        old = merged.get(key)
        merged[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def load_study(path: Path) -> Study:
    """The study in the TOML file `path`."""
    text = store.read_bytes(path, "study file")
    try:
        data = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "see docs/reference/formats.md") from error
    return make_study(data, str(path))

"""Hyper-parameters as RL Zoo writes them, made into studies."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from arzbench.errors import UsageError
from arzbench.rl_zoo import as_toml, import_zoo, read_zoo
from arzbench.study import PPO, TQC, Normalization, RecurrentPPO
from arzbench.study_file import load_study, make_study
from tests.calls import call, refused

SHARED = """
base: &base
  n_timesteps: !!float 2e4
  policy: 'MlpPolicy'
  n_envs: 4
  gamma: 0.95
  learning_rate: lin_2.5e-4
"""
PPO_FILE = (
    SHARED
    + """
CartPole-v1:
  <<: *base
  gamma: 0.9
  n_steps: 32
  clip_range: lin_0.3
  normalize: "{'norm_obs': True, 'norm_reward': False}"
  policy_kwargs: "dict(log_std_init=-2, ortho_init=False, activation_fn=nn.ReLU,
                       net_arch=dict(pi=[64, 32], vf=[16]),
                       optimizer_class=RMSpropTFLike, optimizer_kwargs=dict(eps=1e-5))"

atari:
  n_timesteps: !!float 1e7
  policy: 'CnnPolicy'
  frame_stack: 4
  env_wrapper:
    - stable_baselines3.common.atari_wrappers.AtariWrapper:
        terminal_on_life_loss: False
    - gymnasium.wrappers.TimeLimit: {max_episode_steps: 100}
    - mine.wrappers.Plain
  callback:
    - mine.callbacks.Watch

Acrobot-v1:
  <<: *base
  normalize: true
  n_timesteps: 1e5
  env_wrapper: mine.wrappers.Plain

MountainCar-v0:
  <<: *base
  normalize: dict(norm_obs=False)

default:
  <<: *base
"""
)


@pytest.fixture
def ppo(tmp_path: Path) -> Path:
    path = tmp_path / "ppo.yml"
    path.write_text(PPO_FILE)
    return path


def written(path: Path, env: str, algo: str | None = None) -> Any:
    """The training of a study that was written down and read again."""
    imported = import_zoo(path, env, algo)
    (training,) = make_study(tomllib.loads(as_toml(imported, "it")), "it").trainings
    assert training.workload_digest() == imported.config.workload_digest()
    return training


def test_an_entry_becomes_a_study(ppo: Path) -> None:
    config = written(ppo, "CartPole-v1")
    assert isinstance(config, PPO)
    assert (config.env, config.policy, config.n_envs, config.total_timesteps) == (
        "CartPole-v1",
        "MlpPolicy",
        4,
        20_000,
    )
    assert config.vec_normalize == Normalization(norm_reward=False)
    assert config.n_steps == 32
    assert config.hyperparameters == {
        "gamma": 0.9,
        "learning_rate": "lin_2.5e-4",
        "clip_range": "lin_0.3",
        "policy_kwargs": {
            "log_std_init": -2,
            "ortho_init": False,
            "activation_fn": "torch.nn:ReLU",
            "net_arch": {"pi": [64, 32], "vf": [16]},
            "optimizer_class": "stable_baselines3.common.sb2_compat.rmsprop_tf_like:RMSpropTFLike",
            "optimizer_kwargs": {"eps": 1e-5},
        },
    }
    assert (config.evaluation.eval_freq, config.evaluation.n_eval_episodes) == (25_000 // 4, 5)


def test_numbers_switches_and_wrappers_in_all_their_forms(ppo: Path) -> None:
    config = written(ppo, "Acrobot-v1")
    assert (config.total_timesteps, config.vec_normalize) == (100_000, True)
    assert config.wrappers == ("mine.wrappers:Plain",)
    assert written(ppo, "MountainCar-v0").vec_normalize == Normalization(norm_obs=False)


@pytest.mark.parametrize("env", ["ALE/Pong-v5", "PongNoFrameskip-v4"])
def test_games_share_an_entry_and_callbacks_are_told(ppo: Path, env: str) -> None:
    config = written(ppo, env)
    assert config.frame_stack == 4
    assert config.wrappers == (
        {"class": "stable_baselines3.common.atari_wrappers:AtariWrapper", "terminal_on_life_loss": False},
        {"class": "gymnasium.wrappers:TimeLimit", "max_episode_steps": 100},
        "mine.wrappers:Plain",
    )
    text = as_toml(import_zoo(ppo, env), "pong")
    assert "# ppo.yml, 'atari'\n# left out: callback = ['mine.callbacks.Watch']\n" in text


def test_an_env_without_an_entry_takes_the_default_and_says_so(ppo: Path) -> None:
    imported = import_zoo(ppo, "Pendulum-v1")
    assert imported.notes == ("ppo.yml, 'default'",)
    assert imported.config.env == "Pendulum-v1"


def test_noise_hindsight_and_other_algorithms(tmp_path: Path) -> None:
    path = tmp_path / "tqc.yml"
    path.write_text("""
FetchReach-v1:
  n_timesteps: !!float 1e5
  policy: 'MultiInputPolicy'
  buffer_size: !!float 1e6
  learning_starts: 1000
  train_freq: [1, "episode"]
  noise_type: 'ornstein-uhlenbeck'
  noise_std: 0.5
  replay_buffer_class: HerReplayBuffer
  replay_buffer_kwargs: "dict(goal_selection_strategy='future', n_sampled_goal=4)"
""")
    config = written(path, "FetchReach-v1")
    assert isinstance(config, TQC)
    assert (config.buffer_size, config.train_freq) == (1_000_000, (1, "episode"))
    assert config.hyperparameters == {
        "action_noise": {"kind": "ornstein-uhlenbeck", "sigma": 0.5},
        "replay_buffer_class": "stable_baselines3:HerReplayBuffer",
        "replay_buffer_kwargs": {"goal_selection_strategy": "future", "n_sampled_goal": 4},
    }
    other = tmp_path / "tuned.yml"
    other.write_text("CartPole-v1:\n  n_timesteps: 100\n  policy: MlpLstmPolicy\n")
    assert isinstance(written(other, "CartPole-v1", "ppo_lstm"), RecurrentPPO)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('policy_kwargs: "dict(net_arch=open(4))"', "policy_kwargs: 'open(4)' is neither a value"),
        ('policy_kwargs: "dict(activation_fn=Swish)"', "policy_kwargs: where 'Swish' is from is not known"),
        ('policy_kwargs: "dict(net_arch=[64,"', "is no Python expression"),
        ('policy_kwargs: "dict(**{})"', "is neither"),
        ("policy_kwargs: \"{1: 2, **{}}\"", "is neither"),
        ('normalize: "dict(norm_obs=1e999)"', "is neither a value"),
        ("learning_rate: .nan", "a study has no such values"),
        ("gamma: 2001-01-01", "a study has no such values"),
        ("env_kwargs: {on: 1}", "a study has no such values"),  # YAML takes the key for a truth value
        ("env_kwargs: {size: null}", "a study has no such values"),
        ("vec_env_wrapper: stable_baselines3.common.vec_env.VecMonitor", "vec_env_wrapper ="),
        ("env_wrapper: [3]", "env_wrapper: 3 names no class"),
        ("n_stpes: 3", "ppo has no hyper-parameter 'n_stpes'"),
        ("clip_range: cos_0.2", "clip_range = 'cos_0.2': expected a number"),
        ("n_envs: many", "n_envs: Expected `int`"),
    ],
)  # fmt: skip
def test_what_a_study_cannot_say_is_one_error(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "ppo.yml"
    path.write_text(f"CartPole-v1:\n  n_timesteps: 100\n  {line}\n")
    with pytest.raises(UsageError) as caught:
        import_zoo(path, "CartPole-v1")
    assert said in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1, 2]", "no file of RL Zoo"), ("a: 3", "no file of RL Zoo"), ("a: [", "cannot be read as YAML"),
     ("CartPole-v1:\n  policy: MlpPolicy", "n_timesteps is missing"),
     ("a: !!python/object/apply:os.getcwd []", "cannot be read as YAML")],
)  # fmt: skip
def test_a_file_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "ppo.yml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        import_zoo(path, "CartPole-v1")


def test_an_env_or_algorithm_that_is_not_there(ppo: Path) -> None:
    ppo.write_text(PPO_FILE.partition("default:")[0])
    with pytest.raises(UsageError, match="unknown env 'CartPol-v1'") as caught:
        import_zoo(ppo, "CartPol-v1")
    assert "did you mean 'CartPole-v1'?" in caught.value.hint
    with pytest.raises(UsageError, match="unknown algorithm 'pppo'"):
        import_zoo(ppo, "CartPole-v1", "pppo")
    assert set(read_zoo(ppo)) == {"base", "CartPole-v1", "atari", "Acrobot-v1", "MountainCar-v0"}


def test_a_text_keeps_its_quotes_and_signs_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "ppo.yml"
    path.write_text("""
'a"b\\ü':
  n_timesteps: 10
  env_kwargs: {text: "x\\ny", 'odd key': 1}
""")
    config = written(path, 'a"b\\ü')
    assert config.env == 'a"b\\ü'
    assert config.env_kwargs == {"text": "x\ny", "odd key": 1}


def test_the_command_writes_a_study_that_calibrate_takes(ppo: Path, tmp_path: Path) -> None:
    done = call("study import-zoo ppo.yml --env CartPole-v1 --out mine.toml", tmp_path)
    assert done.code == 0, done.err
    assert "next: arzbench calibrate --study mine.toml" in done.out
    assert load_study(tmp_path / "mine.toml").name == "ppo-cartpole-v1"
    printed = call("study import-zoo ppo.yml --env CartPole-v1", tmp_path)
    assert printed.out == (tmp_path / "mine.toml").read_text()
    (tmp_path / "mine.toml").write_text("edited")
    refused("study import-zoo ppo.yml --env CartPole-v1 --out mine.toml", tmp_path, "holds something else")
    assert (tmp_path / "mine.toml").read_text() == "edited"
    refused("study", tmp_path, "no file was named")
    refused("study import-zoo ppo.yml", tmp_path, "--env is missing", "CartPole-v1")
    refused("study export-zoo ppo.yml --env CartPole-v1", tmp_path, "unknown action 'export-zoo'")
    refused(
        "study import-zoo none.yml --env CartPole-v1 --algo ppo",
        tmp_path,
        "cannot read none.yml: No such file",
    )

"""Study files: complete errors, inheritance, and an identity that only what costs time changes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from arzbench.errors import UsageError
from arzbench.study import (
    ALGORITHMS,
    DQN,
    PPO,
    SAC,
    Baseline,
    Checkpoints,
    Evaluation,
    Logging,
    Study,
    TrainConfig,
)
from arzbench.study_file import load_study, make_config, make_study

ROOT = Path(__file__).resolve().parent.parent
HEAD = {"schema": "arzbench/study", "version": 1, "name": "job"}
MINIMAL: dict[str, Any] = {"env": "CartPole-v1", "algo": "dqn", "total_timesteps": 1000}


def refused(table: dict[str, Any]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        make_config(table, "here")
    assert caught.value.message.startswith("here: ")
    return caught.value


def test_every_problem_is_told_at_once() -> None:
    error = refused(
        {
            "algo": "DQN",
            "foo": 1,
            "n_envs": 0,
            "total_timesteps": "ten",
            "hyperparameters": {"bufer_size": 3, "train_freq": [0, "epoch"], "batch_size": -1},
            "evaluation": {"eval_frq": 2, "n_eval_episodes": "a"},
            "logging": {"mode": "loud"},
        }
    )
    for said in (
        "DQN has no hyper-parameter 'bufer_size'",
        "unknown key 'foo'",
        "unknown key 'evaluation.eval_frq'",
        "env is missing",
        "total_timesteps: Expected `int`, got `str`",
        "evaluation.n_eval_episodes: Expected `int`, got `str`",
        "logging.mode: Invalid enum value 'loud' (valid: off, periodic, every)",
        "batch_size = -1: must not be negative",
        "n_envs = 0: must be at least 1",
        "train_freq = (0, 'epoch'): a number of steps, or [n, 'episode']",
    ):
        assert said in error.message
    assert "buffer_size, exploration_final_eps" in error.hint
    assert "keys of evaluation: eval_freq, n_eval_episodes" in error.hint
    assert "total_timesteps, vec_env, vec_normalize, wrappers" in error.hint


def test_a_study_tells_the_problems_of_all_its_trainings() -> None:
    data = {**HEAD, **MINIMAL, "name": "", "training": [{"n_envs": 0}, {}, {"algo": "dqm"}]}
    with pytest.raises(UsageError) as caught:
        make_study(data, "a.toml")
    assert caught.value.message.splitlines() == [
        "a.toml: a study needs a name",
        "a.toml, training 1: n_envs = 0: must be at least 1",
        "a.toml, training 3: unknown algorithm 'dqm'",
    ]
    assert "did you mean 'dqn'?" in caught.value.hint


@pytest.mark.parametrize("name", ["a/b", "../a", "a\0"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be part of a file's name"):
        make_study({**HEAD, **MINIMAL, "name": name}, "a.toml")


@pytest.mark.parametrize("training", [3, "x", {"seed": 1}, [1, 2]])
def test_a_training_that_is_no_list_of_tables(training: Any) -> None:
    with pytest.raises(UsageError, match="not a list of tables") as caught:
        make_study({**HEAD, **MINIMAL, "training": training}, "a.toml")
    assert "[[training]]" in caught.value.hint


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"algo": None}, "unknown algorithm 'None'"),
        ({"algo": 7}, "unknown algorithm '7'"),
        ({"hyperparameters": 3}, "hyperparameters = 3: not a table"),
        ({"evaluation": 3}, "evaluation: Expected `object`, got `int`"),
        ({"env_kwargs": {"a": [1]}}, "env_kwargs"),
        ({"total_timesteps": True}, "total_timesteps: Expected `int`, got `bool`"),
        ({"total_timesteps": 0}, "total_timesteps = 0: must be at least 1"),
        ({"total_timesteps": -5}, "total_timesteps = -5: must not be negative"),
        ({"evaluation": {"eval_freq": -1}}, "eval_freq = -1: must not be negative"),
        ({"learning_starts": 5}, "unknown key 'learning_starts'"),
        ({"hyperparameters": {"n_epochs": 5}}, "dqn has no hyper-parameter 'n_epochs'"),
        ({"hyperparameters": {"buffer_size": 0}}, "buffer_size = 0"),
        ({"algo": "ppo", "hyperparameters": {"batch_size": 1}}, "PPO needs at least 2"),
        ({"algo": "ppo", "hyperparameters": {"n_steps": 1}}, "n_steps x n_envs > 1"),
        ({"algo": "a2c", "hyperparameters": {"n_steps": 0}}, "n_steps = 0"),
    ],
)
def test_a_value_that_does_not_fit_is_named(table: dict[str, Any], said: str) -> None:
    assert said in refused({**MINIMAL, **table}).message


@pytest.mark.parametrize(
    ("train_freq", "frequency"),
    [(4, (4, "step")), ([1, "episode"], (1, "episode")), ([8, "step"], (8, "step"))],
)
def test_train_freq_in_steps_and_in_episodes(train_freq: Any, frequency: tuple[int, str]) -> None:
    config = make_config({**MINIMAL, "hyperparameters": {"train_freq": train_freq}}, "here")
    assert (config.loop.frequency, config.loop.unit) == frequency


@pytest.mark.parametrize("train_freq", [0, -1, [0, "step"], [1, "epoch"], [1], "4", [1, "step", 2], 1.5])
def test_train_freq_of_other_forms_is_refused(train_freq: Any) -> None:
    assert "train_freq" in refused({**MINIMAL, "hyperparameters": {"train_freq": train_freq}}).message


def test_sb3_trains_after_episodes_with_one_env_only() -> None:
    table = {**MINIMAL, "n_envs": 2, "hyperparameters": {"train_freq": [1, "episode"]}}
    assert "n_envs = 1" in refused(table).message


def test_rollouts_are_counted_in_env_steps() -> None:
    table = {**MINIMAL, "n_envs": 8}
    assert make_config(table, "here").rollout_steps == 8 * 4
    assert make_config({**table, "algo": "ppo"}, "here").rollout_steps == 8 * 2048
    assert make_config({**table, "algo": "a2c"}, "here").rollout_steps == 8 * 5
    assert make_config({**MINIMAL, "hyperparameters": {"train_freq": [3, "episode"]}}, "x").rollout_steps == 1


def test_a_training_inherits_the_files_own_keys() -> None:
    data = {
        **HEAD,
        **MINIMAL,
        "seed": 1,
        "hyperparameters": {"learning_rate": 1e-3, "train_freq": 2},
        "evaluation": {"eval_freq": 100, "n_eval_episodes": 7},
        "training": [
            {},
            {
                "name": "mine",
                "seed": 2,
                "evaluation": {"eval_freq": 50},
                "hyperparameters": {"train_freq": 8},
            },
        ],
    }
    first, second = make_study(data, "a.toml").trainings
    assert (first.name, second.name) == ("job-1", "mine")
    assert (first.seed, second.seed) == (1, 2)
    assert first.evaluation == Evaluation(eval_freq=100, n_eval_episodes=7)
    assert second.evaluation == Evaluation(eval_freq=50, n_eval_episodes=7)
    assert first.constructor_arguments()["train_freq"] == 2
    assert second.constructor_arguments()["train_freq"] == 8
    assert second.constructor_arguments()["learning_rate"] == 1e-3
    assert second.hyperparameters == {"learning_rate": 1e-3}
    assert "training" in data  # the caller's table is left as it was


def test_a_file_without_trainings_is_one() -> None:
    study = make_study({**HEAD, **MINIMAL}, "a.toml")
    assert [(t.name, t.total_timesteps) for t in study.trainings] == [("job", 1000)]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"seed": 9},
        {"total_timesteps": 5},
        {"evaluation": Evaluation(eval_freq=3, final_episodes=2)},
        {"baseline": Baseline(episodes=3)},
        {"checkpoint": Checkpoints(checkpoint_freq=9)},
        {"logging": Logging(mode="every")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_budgets_and_schedules_leave_the_workload_the_same(change: dict[str, Any]) -> None:
    config = make_config(MINIMAL, "here")
    changed = msgspec.structs.replace(config, **change)
    assert changed != config
    assert changed.workload_digest() == config.workload_digest()


@pytest.mark.parametrize(
    "change",
    [
        {"env": "Acrobot-v1"},
        {"env_kwargs": {"sutton_barto_reward": True}},
        {"algo": "ppo"},
        {"policy": "CnnPolicy"},
        {"n_envs": 4},
        {"vec_normalize": True},
        {"vec_normalize": {"clip_obs": 5.0}},
        {"wrappers": ["my:Wrapper"]},
        {"frame_stack": 4},
        {"vec_env": "subproc"},
        {"device": "cuda"},
        {"torch_threads": 2},
        {"hyperparameters": {"batch_size": 64}},
        {"hyperparameters": {"buffer_size": 10}},
        {"hyperparameters": {"gradient_steps": -1}},
        {"hyperparameters": {"policy_kwargs": {"net_arch": [256, 256]}}},
    ],
    ids=str,
)
def test_what_costs_time_changes_the_workload(change: dict[str, Any]) -> None:
    before = make_config(MINIMAL, "here").workload_digest()
    assert make_config({**MINIMAL, **change}, "here").workload_digest() != before


@pytest.mark.parametrize("said", [{"wrappers": []}, {"frame_stack": 0}, {"vec_env": "dummy"}])
def test_a_later_key_that_says_nothing_changes_no_identity(said: dict[str, Any]) -> None:
    """Calibrations and runs from before there was that key stay those of this training."""
    plain, config = make_config(MINIMAL, "here"), make_config({**MINIMAL, **said}, "here")
    assert config == plain
    assert config.workload_digest() == plain.workload_digest()
    assert not said.keys() & msgspec.to_builtins(config).keys()


@pytest.mark.parametrize(
    ("said", "normalizes"),
    [(False, False), (True, True), ({}, True), ({"norm_obs": False}, False), ({"norm_reward": False}, True)],
)
def test_a_training_that_normalises_observations(said: Any, normalizes: bool) -> None:
    assert make_config({**MINIMAL, "vec_normalize": said}, "here").normalizes_observations is normalizes


@pytest.mark.parametrize(("alias", "algo"), [("ppo_lstm", "recurrentppo"), ("Maskable_PPO", "maskableppo")])
def test_algorithms_have_other_names(alias: str, algo: str) -> None:
    assert make_config({**MINIMAL, "algo": alias}, "here").algo == algo


def test_kinds_with_equal_fields_are_different_workloads() -> None:
    sac = make_config({**MINIMAL, "algo": "sac"}, "here")
    assert isinstance(sac, SAC)
    workloads = {make_config({**MINIMAL, "algo": a}, "x").workload_digest() for a in ALGORITHMS}
    assert len(workloads) == len(ALGORITHMS)


def test_a_study_survives_json() -> None:
    study = load_study(ROOT / "profiles" / "studies" / "incident.toml")
    assert msgspec.json.decode(msgspec.json.encode(study), type=Study) == study
    assert [type(t) for t in study.trainings] == [DQN] * 3


def test_shipped_studies_load() -> None:
    files = sorted((ROOT / "profiles" / "studies").glob("*.toml"))
    assert files
    for file in files:
        study = load_study(file)
        assert study.name == file.stem
        assert all(isinstance(t, TrainConfig) for t in study.trainings)


@pytest.mark.parametrize("text", [b"schema = ", b"\xff", b"a = 1\na = 2"])
def test_broken_toml_is_one_error_that_names_the_file(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError, match="not valid TOML") as caught:
        load_study(path)
    assert str(path) in caught.value.message


def test_a_config_cannot_be_made_wrong_in_code_either() -> None:
    with pytest.raises(ValueError, match="n_epochs = 0") as caught:
        PPO(env="CartPole-v1", total_timesteps=0, n_epochs=0)
    assert "total_timesteps = 0" in str(caught.value)

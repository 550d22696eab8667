"""Envs as they are: each works, or one message says what to change, before anything is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor

import arzbench
from arzbench.errors import UsageError
from arzbench.facts import StopReason
from tests import odd_envs
from tests.calls import call, refused
from tests.processes import Ended, ledger

RUN = "run --algo ppo --set n_steps=64 --set batch_size=64 --set n_epochs=1 --timesteps 256"
CALIBRATE = (
    "calibrate --algo ppo --set n_steps=64 --set batch_size=64 --set n_epochs=1 --repetitions 2 --max-time 4s"
)
NO_EVALUATION = "--set evaluation.eval_freq=0"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which envs keep what they count, and whether one is open."""
    th.set_num_threads(1)
    folder = tmp_path_factory.mktemp("envs")
    monkeypatch.setenv("ODD_COUNT", str(folder / "made"))
    monkeypatch.setenv("ODD_LOCK", str(folder / "lock"))
    odd_envs.Dropping.steps, odd_envs.Dropping.losses = 0, 3
    return folder


def made(folder: Path) -> int:
    """How often an env was made since the last question."""
    path = folder / "made"
    count = len(path.read_text().splitlines()) if path.exists() else 0
    path.unlink(missing_ok=True)
    return count


def env(kind: str) -> str:
    return f"--env tests.odd_envs:{kind}"


def done(ended: Ended) -> str:
    assert ended.code == 0, (ended.out, ended.err)
    return ended.out


def ppo(kind: type[odd_envs.Plain]) -> PPO:
    return PPO("MlpPolicy", kind(), n_steps=64, n_epochs=1, policy_kwargs={"net_arch": [8]}, seed=0)


def dqn(kind: type[odd_envs.Plain]) -> DQN:
    return DQN(
        "MlpPolicy", kind(), learning_starts=50, buffer_size=500, policy_kwargs={"net_arch": [8]}, seed=0
    )


def weights(model: Any) -> bytes:
    return b"".join(t.numpy().tobytes() for t in model.policy.state_dict().values())


# ---------------------------------------------------------------- one at a time, and slow to make


def test_one_that_is_alone_on_the_machine_is_calibrated_and_trained(
    tmp_path: Path, environment: Path
) -> None:
    done(call(f"{CALIBRATE} {env('OneOnly')} {NO_EVALUATION}", tmp_path))
    done(call(f"{RUN} {env('OneOnly')} {NO_EVALUATION}", tmp_path))
    assert not (environment / "lock").exists()


@pytest.mark.parametrize("command", [RUN, CALIBRATE], ids=["run", "calibrate"])
def test_one_that_is_alone_cannot_be_evaluated_beside_its_training(command: str, tmp_path: Path) -> None:
    told(f"{command} {env('OneOnly')}", tmp_path, "to evaluate in", "FileExistsError", "eval_freq=0")
    said = told(f"{command} {env('OneOnly')} {NO_EVALUATION} --set n_envs=2", tmp_path, "made 1 times")
    assert "n_envs = 1" in said


def test_an_env_is_made_no_more_often_than_is_needed(tmp_path: Path, environment: Path) -> None:
    done(call(f"{CALIBRATE} {env('Plain')} {NO_EVALUATION}", tmp_path))
    assert made(environment) == 2 * 3  # in each process: a first step, the training, what is restored
    done(call(f"{RUN} {env('Plain')} {NO_EVALUATION}", tmp_path))
    assert made(environment) == 2  # tried, trained on
    done(call(f"{RUN} {env('Plain')} --fresh", tmp_path))
    assert made(environment) == 4  # and one beside each, to evaluate in


def test_learn_makes_none(tmp_path: Path, environment: Path) -> None:
    model = ppo(odd_envs.OneOnly)
    assert arzbench.learn(model, 128, folder=tmp_path, name="one").finished
    assert made(environment) == 1
    model.env.close()


# ---------------------------------------------------------------- a reset without a seed


@pytest.mark.parametrize("command", [RUN, CALIBRATE], ids=["run", "calibrate"])
def test_a_reset_that_takes_no_seed_is_told(command: str, tmp_path: Path) -> None:
    told(f"{command} {env('NoSeed')}", tmp_path, "NoSeed.reset takes no seed", "seed=None")


def test_a_reset_that_takes_no_seed_is_told_by_learn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"NoSeed.reset takes no seed"):
        arzbench.learn(ppo(odd_envs.NoSeed), 128, folder=tmp_path)
    evaluating = EvalCallback(Monitor(odd_envs.NoSeed()), eval_freq=50)
    with pytest.raises(UsageError, match=r"NoSeed.reset takes no seed"):
        arzbench.learn(ppo(odd_envs.Plain), 128, folder=tmp_path, callback=evaluating)
    assert not list(tmp_path.iterdir())


def test_a_reset_that_ignores_the_seed_works(tmp_path: Path) -> None:
    done(call(f"{RUN} {env('AnyArguments')} --set evaluation.eval_freq=64", tmp_path))


# ---------------------------------------------------------------- a connection that drops


def test_a_training_goes_on_from_its_newest_save(tmp_path: Path) -> None:
    words = "--set env_errors=3 --set checkpoint.checkpoint_freq=50"
    ended = call(f"{RUN} {env('Dropping')} {NO_EVALUATION} {words}", tmp_path)
    assert "finished" in done(ended) or "256 of" in ended.out
    assert "back to step 100" in ended.out
    errors = [e for e in ledger(tmp_path) if e["kind"] == "env_error"]
    assert [e["data"]["number"] for e in errors] == [1, 2, 3]
    assert all(e["data"]["back_to"] for e in errors)


@pytest.mark.parametrize("build", [ppo, dqn])
def test_learn_puts_a_model_back_and_gives_the_same_weights(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    class Counting(BaseCallback):
        seen = 0

        def _on_step(self) -> bool:
            self.seen += 1
            return True

    plain = build(odd_envs.Plain)
    plain.learn(400)
    own, callback = build(odd_envs.Dropping), Counting()
    outcome = arzbench.learn(
        own, 400, folder=tmp_path, name="drops", env_errors=3, checkpoint_freq=60, callback=callback
    )
    assert outcome.finished
    assert weights(own) == weights(plain)
    assert callback.seen == plain.num_timesteps
    labels = [e["data"]["tier"] for e in ledger(tmp_path) if e["kind"] == "resumed"]
    assert labels == ["unproven"] * 3  # the connection is not the env's own, and is seen to have changed


def test_more_errors_than_allowed_end_the_session_and_the_save_is_kept(tmp_path: Path) -> None:
    model = dqn(odd_envs.Dropping)
    with pytest.raises(ConnectionResetError):
        arzbench.learn(model, 400, folder=tmp_path, name="drops", env_errors=1, checkpoint_freq=60)
    stop = ledger(tmp_path)[-1]
    assert (stop["kind"], stop["data"]["reason"]) == ("stop", "failed")
    assert stop["data"]["checkpoint"]
    assert arzbench.learn(dqn(odd_envs.Plain), 400, folder=tmp_path, name="drops").finished


def test_an_error_of_a_callback_is_not_an_env_s(tmp_path: Path) -> None:
    class Wrong(BaseCallback):
        def _on_step(self) -> bool:
            raise ConnectionResetError("mine")

    with pytest.raises(ConnectionResetError, match="mine"):
        arzbench.learn(ppo(odd_envs.Plain), 128, folder=tmp_path, env_errors=5, callback=Wrong())
    assert not [e for e in ledger(tmp_path) if e["kind"] == "env_error"]


# ---------------------------------------------------------------- episodes that do not end


def test_an_evaluation_that_does_not_end_is_bounded_and_told(tmp_path: Path) -> None:
    words = "--set evaluation.eval_freq=128 --set evaluation.n_eval_episodes=2 --set evaluation.max_steps=300"
    out = done(call(f"{RUN} {env('Unending')} {words}", tmp_path))
    assert (
        out.count("episodes of Unending do not end: evaluation stopped after 300 steps") == 2
    )  # then, at the end
    lengths = [e["data"]["lengths"] for e in ledger(tmp_path) if e["kind"] == "evaluation"]
    assert lengths == [[300, 300], [300, 300]]


def test_calibrating_it_takes_no_longer_than_is_allowed(tmp_path: Path) -> None:
    out = done(call(f"{CALIBRATE} {env('Unending')}", tmp_path))
    assert "episodes of Unending do not end" in out
    planned = done(call("plan --quota 1h", tmp_path))
    assert "600,032 env steps" in planned  # 10 evaluations of 5 episodes, each of 10,000 steps


def test_an_evaluation_of_a_callback_that_does_not_end_is_told(tmp_path: Path) -> None:
    class Short(odd_envs.Unending):
        ends_at = 21_000

        def step(self, action: Any) -> Any:
            self.length = self.ends_at
            return super().step(action)

    evaluating = EvalCallback(Monitor(Short()), eval_freq=100, n_eval_episodes=1, verbose=0)
    arzbench.learn(ppo(odd_envs.Plain), 128, folder=tmp_path, callback=evaluating)
    (note,) = [e for e in ledger(tmp_path) if e["kind"] == "note"]
    assert "do not end: an evaluation by a callback goes on after" in note["data"]["text"]


# ---------------------------------------------------------------- what cannot be trained on


def told(arguments: str, folder: Path, *texts: str) -> str:
    """The one error of a command that fails, and leaves nothing; calibrate says first what it begins."""
    if not arguments.startswith("calibrate"):
        return refused(arguments, folder, *texts)
    ended = call(arguments, folder)
    assert ended.code in (1, 2)
    assert ended.err.startswith("error: ")
    assert not [text for text in texts if text not in ended.err], ended.err
    assert not list(folder.iterdir())
    return ended.err


REFUSED = {
    "NoNumber": ["the reward that step returns is not finite"],
    "NoObservation": ["the observation that reset returns is not finite"],
    "WrongShape": ["cannot be trained on", "shape"],
    "OldReset": ["cannot be trained on", "reset"],
    "Text": ["cannot be trained on"],
    "Unmade": ["cannot be made", "division by zero", "odd_envs.py", "self.rate = 1 / len([])"],
    "Broken": ["fails at its first step", "no mass", "in physics"],
}


@pytest.mark.parametrize("command", [RUN, CALIBRATE], ids=["run", "calibrate"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_an_env_does_wrong_is_one_message(kind: str, command: str, tmp_path: Path) -> None:
    said = told(f"{command} {env(kind)} {NO_EVALUATION}", tmp_path, *REFUSED[kind])
    assert not [name for name in ("site-packages", "arzbench/sb3") if name in said], said


def test_what_the_library_casts_works(tmp_path: Path) -> None:
    done(call(f"{RUN} {env('Doubles')} {NO_EVALUATION}", tmp_path))


def test_learn_explains_what_the_library_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"WrongShape cannot be trained on: .*shape"):
        arzbench.learn(ppo(odd_envs.WrongShape), 128, folder=tmp_path)


# ---------------------------------------------------------------- the user's own frames


def test_a_run_that_fails_shows_where_in_the_user_s_code(tmp_path: Path) -> None:
    words = "--set checkpoint.checkpoint_freq=30"
    ended = call(f"{RUN} {env('Late')} {NO_EVALUATION} {words}", tmp_path)
    assert ended.code == 1
    assert "failed: the last sound checkpoint is kept: ZeroDivisionError: no mass" in ended.out
    assert 'raise ZeroDivisionError("no mass")' in ended.err
    assert "site-packages" not in ended.err
    assert ended.err.count("File ") == 1
    stop = ledger(tmp_path)[-1]
    assert stop["data"]["reason"] == StopReason.FAILED.name.lower()
    assert stop["data"]["checkpoint"]
    (whole,) = tmp_path.glob("reports/*/error.txt")
    assert "site-packages" in whole.read_text()


FACTORY = """
from stable_baselines3 import PPO
from tests.odd_envs import {kind} as Kind

def make(broken=False):
    if broken:
        raise KeyError("rate")
    return PPO("MlpPolicy", Kind(), n_steps=64, batch_size=64, n_epochs=1, seed=0)
"""
SCRIPT = "import arzbench\nfrom {module} import make\n\narzbench.learn(make(), 256, checkpoint_freq=30)\n"


@pytest.mark.parametrize("named", ["--factory failing.py:make --set total_timesteps=256", "train.py"])
def test_scripts_and_factories_fail_with_the_user_s_frames(named: str, tmp_path: Path) -> None:
    module = "failing" if "failing" in named else "failing_too"  # this process keeps what it has imported
    (tmp_path / f"{module}.py").write_text(FACTORY.format(kind="Late"))
    (tmp_path / "train.py").write_text(SCRIPT.format(module=module))
    ended = call(f"run {named} --timesteps 256", tmp_path)
    assert ended.code == 1, (ended.out, ended.err)
    assert "no mass" in ended.out
    assert 'raise ZeroDivisionError("no mass")' in ended.err
    assert "site-packages" not in ended.err
    said = call(f"calibrate {named} --steps 300 --repetitions 2", tmp_path)
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert 'raise ZeroDivisionError("no mass")' in said.err
    assert "site-packages" not in said.err


def test_what_cannot_be_described_is_shown_with_the_user_s_frames(tmp_path: Path) -> None:
    (tmp_path / "factory.py").write_text(FACTORY.format(kind="Plain"))
    said = refused(
        "calibrate --factory factory.py:make --set kwargs.broken=true", tmp_path, "KeyError", "in make"
    )
    assert "arzbench/" not in said


def test_a_factory_of_an_env_that_is_alone(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(FACTORY.format(kind="OneOnly"))
    factory = "--factory alone.py:make --timesteps 256"
    done(call(f"run {factory}", tmp_path))
    before = sorted(tmp_path.iterdir())
    ended = call(f"run {factory} --set evaluation.eval_freq=64", tmp_path)
    assert ended.code == 2
    assert "to evaluate in its env" in ended.err
    assert "evaluation.eval_freq=0" in ended.err
    assert sorted(tmp_path.iterdir()) == before


# ---------------------------------------------------------------- in a file of the working folder


@pytest.mark.parametrize("name", ["my_envs:Mine-v0", "my_envs:Mine"])
def test_an_env_of_the_working_folder_is_calibrated_planned_and_trained(name: str, tmp_path: Path) -> None:
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium\nfrom tests.odd_envs import Plain\n\n\nclass Mine(Plain):\n    pass\n\n\n"
        'gymnasium.register("Mine-v0", entry_point=Mine)\n'
    )
    done(call(f"{CALIBRATE} --env {name}", tmp_path))
    done(
        call(f"plan --env {name} --algo ppo --set n_steps=64 --set batch_size=64 --set n_epochs=1", tmp_path)
    )
    done(call(f"{RUN} --env {name} --quota 1h", tmp_path))

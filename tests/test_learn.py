"""`arzbench.learn`: a user's own model, trained as the library would, stopped and resumed at any step."""

import functools
import hashlib
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.monitor import Monitor

import arzbench
from arzbench.clock import SystemClock, process_start
from arzbench.errors import UsageError, WillNotFitError
from arzbench.facts import StopReason
from arzbench.records import LedgerEntry
from arzbench.run import ledger
from arzbench.sb3 import updates
from arzbench.sb3.user_model import apply_evaluation, evaluation_of
from arzbench.study import Evaluation
from arzbench.wiring import tasks

TOTAL = 700


def ppo() -> PPO:
    return PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=64, n_epochs=2, learning_rate=lambda p: 3e-4 * p,
               policy_kwargs={"net_arch": [8]}, seed=0)  # fmt: skip


def dqn() -> DQN:
    return DQN("MlpPolicy", gym.make("CartPole-v1"), learning_starts=50, buffer_size=500,
               policy_kwargs={"net_arch": [8]}, seed=0)  # fmt: skip


def weights(model: Any) -> str:
    tensors = model.policy.state_dict().values()
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def entries(folder: Path) -> list[LedgerEntry]:
    """Of the one run below `folder`."""
    (path,) = folder.glob("reports/*/ledger.jsonl")
    return list(ledger.read(path).entries)


class Counting(BaseCallback):
    """Counts what it was told, and sends a signal at one step."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.rollouts = 0
        self.returns: list[float] = []

    def _on_rollout_start(self) -> None:
        self.rollouts += 1

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        if self.num_timesteps == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return True


@pytest.fixture(autouse=True)
def one_thread() -> None:
    th.set_num_threads(1)


@pytest.fixture(scope="module", params=[ppo, dqn], ids=["ppo", "dqn"])
def build(request: pytest.FixtureRequest) -> Callable[[], Any]:
    made: Callable[[], Any] = request.param
    return made


@pytest.fixture(scope="module")
def library(build: Callable[[], Any]) -> tuple[str, Counting]:
    """Weights and callback after the library's own `learn`."""
    model, callback = build(), Counting()
    model.learn(TOTAL, callback=callback)
    return weights(model), callback


def seen(callback: Counting) -> tuple[Any, ...]:
    return callback.n_calls, callback.rollouts, callback.returns


def test_the_weights_and_the_callbacks_are_those_of_the_library_s_own_learn(
    build: Callable[[], Any], library: tuple[str, Counting], tmp_path: Path
) -> None:
    model, callback = build(), Counting()
    kind = type(model)
    outcome = arzbench.learn(model, TOTAL, callback=[callback], folder=tmp_path, name="own")
    assert outcome.finished
    assert outcome.reason is StopReason.FINISHED
    assert outcome.exit_code == 0
    assert weights(model) == library[0]
    assert seen(callback) == seen(library[1])
    assert type(model) is kind
    assert not {"hooks", "predict", "forward"} & {*vars(model), *vars(model.policy)}


def test_stopped_and_started_again_it_goes_on_exactly_where_it_was(
    build: Callable[[], Any], library: tuple[str, Counting], tmp_path: Path
) -> None:
    for stop_at in (100, 333):
        outcome = arzbench.learn(build(), TOTAL, callback=Counting(stop_at), folder=tmp_path, name="own")
        assert not outcome.finished
        assert outcome.reason is StopReason.SIGNAL
        assert outcome.exit_code == 4
        assert stop_at <= outcome.num_timesteps < TOTAL
    model, callback = build(), Counting()
    assert arzbench.learn(model, TOTAL, callback=callback, folder=tmp_path, name="own").finished
    assert weights(model) == library[0]
    assert seen(callback) == seen(library[1])
    assert [e.data["tier"] for e in entries(tmp_path) if e.kind == "resumed"] == ["exact", "exact"]


def test_evaluations_of_a_callback_go_on_where_they_were(tmp_path: Path) -> None:
    def evaluating() -> EvalCallback:
        eval_env = Monitor(gym.make("CartPole-v1"))
        return EvalCallback(eval_env, eval_freq=150, n_eval_episodes=2, log_path=str(tmp_path), verbose=0)

    model, plain = dqn(), evaluating()
    plain.eval_env.seed(3)
    model.learn(TOTAL, callback=plain)
    for stop_at in (200, 460, None):
        own = evaluating()
        own.eval_env.seed(3)
        arzbench.learn(dqn(), TOTAL, callback=[Counting(stop_at), own], folder=tmp_path, name="own")
    assert own.evaluations_timesteps == plain.evaluations_timesteps
    assert own.evaluations_results == plain.evaluations_results
    assert own.best_mean_reward == plain.best_mean_reward
    told = [e for e in entries(tmp_path) if e.kind == "evaluation"]
    assert [e.data["num_timesteps"] for e in told] == [150, 300, 450, 600]


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first, callback = ppo(), Counting()
    arzbench.learn(first, TOTAL, callback=callback, folder=tmp_path, name="own")
    again, restored = ppo(), Counting()
    outcome = arzbench.learn(again, TOTAL, callback=restored, folder=tmp_path, name="own")
    assert outcome.finished
    assert outcome.num_timesteps == first.num_timesteps
    assert weights(again) == weights(first)
    assert seen(restored) == seen(callback)
    assert len(list((tmp_path / "reports").glob("*/run.json"))) == 1
    arzbench.learn(ppo(), TOTAL, folder=tmp_path, name="own", fresh=True)
    assert len(list((tmp_path / "reports").glob("*/run.json"))) == 2


def test_a_callback_may_end_the_training(tmp_path: Path) -> None:
    plain = ppo()
    plain.learn(TOTAL, callback=StopTrainingOnMaxEpisodes(5))
    model = ppo()
    outcome = arzbench.learn(model, TOTAL, callback=StopTrainingOnMaxEpisodes(5), folder=tmp_path, name="own")
    assert outcome.finished
    assert model.num_timesteps == plain.num_timesteps < TOTAL
    assert weights(model) == weights(plain)
    again = ppo()
    assert arzbench.learn(
        again, TOTAL, callback=StopTrainingOnMaxEpisodes(5), folder=tmp_path, name="own"
    ).finished
    assert weights(again) == weights(plain)


def test_evaluations_of_a_callback_are_counted_and_timed(tmp_path: Path) -> None:
    def evaluating() -> EvalCallback:
        return EvalCallback(Monitor(gym.make("CartPole-v1")), eval_freq=200, n_eval_episodes=2, verbose=0)

    plain = ppo()
    plain.learn(TOTAL, callback=evaluating())
    own, callback = ppo(), evaluating()
    arzbench.learn(own, TOTAL, callback=callback, folder=tmp_path, name="own")
    assert weights(own) == weights(plain)
    told = [e for e in entries(tmp_path) if e.kind == "evaluation"]
    assert [e.data["num_timesteps"] for e in told] == [200, 400, 600]
    assert all(len(e.data["returns"]) == 2 for e in told)
    assert "step" not in vars(callback.eval_env)


def test_several_callbacks_that_evaluate_are_counted_together() -> None:
    def evaluating(eval_freq: int, n_eval_episodes: int) -> EvalCallback:
        env = Monitor(gym.make("CartPole-v1"))
        return EvalCallback(env, eval_freq=eval_freq, n_eval_episodes=n_eval_episodes, verbose=0)

    often, seldom = evaluating(100, 2), evaluating(400, 6)
    callback = [Counting(), CallbackList([often, seldom])]
    counted = evaluation_of(callback)
    assert (counted.eval_freq, counted.n_eval_episodes) == (100, 4)  # 2 + 6 / 4, no fewer than there are
    apply_evaluation(callback, counted)
    assert (often.eval_freq, seldom.eval_freq) == (100, 400)
    with pytest.raises(UsageError, match="several callbacks"):
        apply_evaluation(callback, Evaluation(eval_freq=500))
    apply_evaluation(callback, Evaluation())
    assert (often.eval_freq, seldom.eval_freq) == (0, 0)
    assert evaluation_of(Counting()) == evaluation_of(None) == Evaluation()


def test_a_pretrained_model_begins_as_the_library_would(tmp_path: Path) -> None:
    def trained(learn: Callable[..., Any]) -> tuple[int, str]:
        model = ppo()
        model.learn(200)
        learn(model, 300, name="again")
        learn(model, 200, name="more", reset_num_timesteps=False)
        return model.num_timesteps, weights(model)

    def of_library(model: Any, steps: int, name: str, **others: Any) -> None:
        model.learn(steps, **others)

    assert trained(functools.partial(arzbench.learn, folder=tmp_path)) == trained(of_library)


def test_an_error_of_the_user_s_code_is_theirs_and_keeps_the_last_save(tmp_path: Path) -> None:
    class Broken(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 300:
                raise ZeroDivisionError("mine")
            return True

    model = ppo()
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        arzbench.learn(model, TOTAL, callback=Broken(), folder=tmp_path, name="own")
    assert [f.name for f in caught.traceback][-1] == "_on_step"
    assert not any("arzbench/run" in str(f.path) for f in caught.traceback)
    assert type(model) is PPO
    stop = next(e for e in entries(tmp_path) if e.kind == "stop")
    assert stop.data["checkpoint"]
    assert arzbench.learn(ppo(), TOTAL, folder=tmp_path, name="own").finished


def test_on_stop_exit_leaves_with_the_code_of_a_stop(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        arzbench.learn(ppo(), TOTAL, callback=Counting(100), folder=tmp_path, name="own", on_stop="exit")
    assert left.value.code == 4


def test_a_stop_in_the_last_update_tells_callbacks_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(Counting):
        ends = 0

        def _on_training_end(self) -> None:
            self.ends += 1

    monkeypatch.setattr(updates, "LONG_STEPS", 2)
    monkeypatch.setattr(updates, "POLL_S", 0.0)
    plain, expected = ppo(), Ended()
    plain.learn(128, callback=expected)
    first = Ended(stop_at=128)  # in the last step before the last update
    assert not arzbench.learn(ppo(), 128, callback=first, folder=tmp_path, name="own").finished
    assert first.ends == 0
    model, callback = ppo(), Ended()
    assert arzbench.learn(model, 128, callback=callback, folder=tmp_path, name="own").finished
    assert weights(model) == weights(plain)
    assert seen(callback) == seen(expected)
    assert callback.ends == expected.ends == 1


def test_killed_before_its_model_was_exported_a_training_gives_its_callbacks_back(tmp_path: Path) -> None:
    model, callback = ppo(), Counting()
    arzbench.learn(model, TOTAL, callback=callback, folder=tmp_path, name="own")
    (exported,) = tmp_path.glob("checkpoints/*/*.zip")
    exported.unlink()
    (told,) = tmp_path.glob("reports/*/ledger.jsonl")
    lines = told.read_text().splitlines(keepends=True)
    told.write_text("".join(line for line in lines if '"kind":"stop"' not in line))
    again, restored = ppo(), Counting()
    assert arzbench.learn(again, TOTAL, callback=restored, folder=tmp_path, name="own").finished
    assert exported.exists()
    assert weights(again) == weights(model)
    assert seen(restored) == seen(callback)


def test_a_callback_whose_function_is_another_now_goes_on_as_it_was_built(tmp_path: Path) -> None:
    class Calling(Counting):
        def __init__(self, function: Callable[[int], int], stop_at: int | None = None) -> None:
            super().__init__(stop_at)
            self.function = function

    arzbench.learn(ppo(), TOTAL, callback=Calling(lambda n: n + 1, stop_at=200), folder=tmp_path, name="own")
    plain, model = ppo(), ppo()
    with pytest.warns(UserWarning, match="Calling goes on as it was built: .* not to be found here"):
        outcome = arzbench.learn(model, TOTAL, callback=Calling(abs), folder=tmp_path, name="own")
    assert outcome.finished
    plain = ppo()
    plain.learn(TOTAL)
    assert weights(model) == weights(plain)


def test_a_quota_that_is_used_up_before_the_first_training_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_calls", itertools.count())
    with pytest.raises(WillNotFitError, match="nothing is left to train in: this process is") as caught:
        arzbench.learn(ppo(), TOTAL, quota=0.01, folder=tmp_path)
    assert 'for as long from now: quota="' in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_later_training_has_what_the_one_before_left_of_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_calls", itertools.count(1))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "train.py", raising=False)
    clock = SystemClock()
    old = clock.now() - process_start(clock)
    first = arzbench.learn(ppo(), 64, quota=old + 60, folder=tmp_path, name="first")
    assert first.finished
    assert first.elapsed_s < 60  # not what the process did before
    assert first.left_s is not None
    assert first.left_s < 60
    late = arzbench.learn(ppo(), 64, quota=old, folder=tmp_path, name="late")
    assert (late.reason, late.exit_code) == (StopReason.DEADLINE, 4)
    assert not list((tmp_path / "reports").glob("late*"))


def test_hints_name_arguments_and_not_options_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arzbench.limits.detect", lambda _: None)
    with pytest.raises(UsageError, match=r'^quota="auto": nothing tells of a limit') as caught:
        arzbench.learn(ppo(), 64, quota="auto", folder=tmp_path)
    assert caught.value.hint == 'give it: quota="12h"'
    assert caught.value.__notes__ == ['hint: give it: quota="12h"']
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        arzbench.learn(ppo(), 64, folder=tmp_path / "file")
    assert caught.value.hint == "choose another folder with folder=..."


def test_what_fails_before_the_library_logs_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stable_baselines3.common.logger.SummaryWriter", None)
    model = PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=64, tensorboard_log=str(tmp_path), seed=0)
    with pytest.raises(ImportError, match="tensorboard is not installed"):
        arzbench.learn(model, 64, folder=tmp_path, name="own")


WRONG: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "no model": (lambda: "ppo", {}, "a model of Stable-Baselines3 is needed, not str"),
    "no steps": (ppo, {"total_timesteps": 0}, "total_timesteps = 0"),
    "quota": (ppo, {"quota": "soon"}, "soon"),
    "on_stop": (ppo, {"on_stop": "leave"}, "on_stop = 'leave'"),
    "half a step": (ppo, {"total_timesteps": 1e3}, "total_timesteps = 1000.0"),
    "a yes for a number": (ppo, {"total_timesteps": True}, "total_timesteps = True"),
    "negative": (ppo, {"checkpoint_freq": -1}, "checkpoint_freq = -1"),
    "no folder's name": (ppo, {"name": "../own"}, "name = '../own'"),
    "empty name": (ppo, {"name": ""}, "name = ''"),
    "misspelt": (ppo, {"log_intervall": 3}, "PPO.learn: got an unexpected keyword argument 'log_intervall'"),
    "callback": (ppo, {"callback": 3}, "3 is not a callback"),
    "a callback's class": (ppo, {"callback": Counting}, "is not a callback"),
    "functions in a list": (ppo, {"callback": [print]}, "is not a callback"),
    "no episodes": (ppo, {"eval_env": gym.make("CartPole-v1"), "n_eval_episodes": 0}, "n_eval_episodes = 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_message_and_writes_nothing(case: str, tmp_path: Path) -> None:
    make, arguments, message = WRONG[case]
    with pytest.raises(UsageError, match=message):
        arzbench.learn(make(), **{"total_timesteps": TOTAL, "folder": tmp_path, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_shape_is_another_run(tmp_path: Path) -> None:
    arzbench.learn(ppo(), TOTAL, callback=Counting(100), folder=tmp_path, name="own")
    larger = PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=64, policy_kwargs={"net_arch": [16]}, seed=0)
    arzbench.learn(larger, 64, folder=tmp_path, name="own")
    assert len(list((tmp_path / "reports").glob("*/run.json"))) == 2

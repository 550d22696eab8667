"""`BudgetCallback` in trainings that arzbench does not drive; deadlines are of a virtual clock."""

import copy
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
)
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import arzbench
from arzbench.clock import VirtualClock
from arzbench.errors import UsageError
from arzbench.sb3.learn_signals import HONOURED
from tests.processes import ROOT


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A process that a shell started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


SMALL = {"policy_kwargs": {"net_arch": [8]}, "seed": 1, "device": "cpu"}
OFF = {"learning_starts": 20, "buffer_size": 200, "batch_size": 8}
FAST = {"n_steps": 16, "batch_size": 16, "n_epochs": 2}
MODELS: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "PPO": (sb3.PPO, "MlpPolicy", "CartPole-v1", FAST),
    "A2C": (sb3.A2C, "MlpPolicy", "CartPole-v1", {}),
    "DQN": (sb3.DQN, "MlpPolicy", "CartPole-v1", OFF),
    "SAC": (sb3.SAC, "MlpPolicy", "Pendulum-v1", OFF),
    "SAC, episodes": (sb3.SAC, "MlpPolicy", "Pendulum-v1", {**OFF, "train_freq": (1, "episode")}),
    "TQC": (sb3_contrib.TQC, "MlpPolicy", "Pendulum-v1", {**OFF, "gradient_steps": 6, "train_freq": 3}),
    "TRPO": (sb3_contrib.TRPO, "MlpPolicy", "CartPole-v1", {"n_steps": 16, "batch_size": 16}),
    "RecurrentPPO": (sb3_contrib.RecurrentPPO, "MlpLstmPolicy", "CartPole-v1", FAST),
    "ARS": (sb3_contrib.ARS, "MlpPolicy", "CartPole-v1", {"n_delta": 2}),
}


class Timed(gym.Wrapper):
    """Each step takes `seconds` of a virtual clock."""

    def __init__(self, env: gym.Env, clock: VirtualClock, seconds: float) -> None:
        super().__init__(env)
        self._clock, self._seconds = clock, seconds

    def step(self, action: Any) -> Any:
        self._clock.advance(self._seconds)
        return self.env.step(action)


def make(name: str, clock: VirtualClock | None = None, update_s: float = 0.0, step_s: float = 0.01) -> Any:
    """A small model; steps and updates take virtual seconds."""
    torch.set_num_threads(1)
    clock = clock or VirtualClock()
    kind, policy, env, more = MODELS[name]
    # deep, for SB3 adds to it
    model = kind(policy, Timed(gym.make(env), clock, step_s), **copy.deepcopy({**SMALL, **more}))
    if update_s:
        inner = model.train

        def train(*args: Any, **kwargs: Any) -> None:
            inner(*args, **kwargs)
            clock.advance(update_s)

        model.train = train
    return model


def weights(model: Any) -> list[np.ndarray]:
    return [p.detach().numpy().copy() for p in model.policy.parameters()]


@pytest.mark.parametrize("name", MODELS)
def test_a_training_that_is_not_stopped_is_the_librarys_own(name: str, tmp_path: Path) -> None:
    plain = make(name)
    plain.learn(450)
    watched = make(name)  # only now: it seeds the global generators
    callback = arzbench.BudgetCallback("12h", save_path=tmp_path / "model", verbose=0)
    watched.learn(450, callback=callback)
    assert watched.num_timesteps == plain.num_timesteps
    assert all(np.array_equal(a, b) for a, b in zip(weights(plain), weights(watched), strict=True))
    assert callback.stopped is None
    loaded = MODELS[name][0].load(tmp_path / "model", device="cpu")
    assert all(np.array_equal(a, b) for a, b in zip(weights(loaded), weights(watched), strict=True))
    assert os.listdir(tmp_path) == ["model.zip"]


@pytest.mark.parametrize("name", MODELS)
def test_the_deadline_is_kept_and_the_time_used(name: str, tmp_path: Path) -> None:
    """Steps of 50 ms and updates of 300 ms, or of 20 ms where one follows each few steps."""
    clock = VirtualClock()
    update_s = 0.0 if name == "ARS" else 0.02 if name in ("A2C", "DQN", "SAC") else 0.3
    model = make(name, clock, update_s, step_s=0.05)
    callback = arzbench.BudgetCallback(60, save_path=tmp_path / "model", leave_s=1.0, clock=clock)
    model.learn(1_000_000, callback=callback)
    assert callback.stopped == "deadline"
    assert callback.left_s is not None
    assert callback.left_s == pytest.approx(60 - clock.now())
    assert callback.left_s >= 1.0
    assert clock.now() > 40  # an iteration of ARS, or an episode and its update, is long
    saved = MODELS[name][0].load(tmp_path / "model", device="cpu")
    assert saved.num_timesteps == model.num_timesteps < 1_000_000
    assert type(model.num_timesteps) is int


def test_an_update_is_asked_for_before_the_last_step_of_its_rollout() -> None:
    """10 s before the deadline, updates of 20 s: the rollout's last step must not be accepted."""
    clock = VirtualClock()
    model = make("PPO", clock, update_s=20.0, step_s=0.1)
    callback = arzbench.BudgetCallback(150, leave_s=0.0, verbose=0, clock=clock)
    ends: list[float] = []
    inner = model.train
    model.train = lambda: (inner(), ends.append(clock.now()))
    model.learn(100_000, callback=callback)
    assert callback.stopped == "deadline"
    assert len(ends) >= 4
    assert ends[-1] < clock.now() < 150
    assert model.num_timesteps % 16 == 0  # all steps of the rollout but for its update


def evaluation(clock: VirtualClock, step_s: float, **options: Any) -> EvalCallback:
    env = Timed(gym.make("CartPole-v1"), clock, step_s)
    callback = EvalCallback(env, n_eval_episodes=2, verbose=0, warn=False, **options)
    callback.eval_env.seed(1)  # else its episodes are as long as chance has it
    return callback


@pytest.mark.parametrize("first", [True, False])
def test_evaluations_of_another_callback_are_a_kind_of_their_own(first: bool) -> None:
    """They take about 5 s each, 50 times a step, and also run in the very step that ends the training."""
    clock = VirtualClock()
    model = make("PPO", clock)
    budget = arzbench.BudgetCallback(200, leave_s=0.0, verbose=0, clock=clock)
    others = evaluation(clock, 0.25, eval_freq=100)
    model.learn(100_000, callback=[budget, others] if first else CallbackList([others, budget]))
    assert budget.stopped == "deadline"
    assert others.n_calls > 1000  # ten evaluations
    assert 140 < clock.now() <= 200
    assert budget.p_fits is not None
    assert budget.p_fits < 1e-6


def test_the_prediction_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps, updates and evaluations are counted and priced apart."""
    clock = VirtualClock()
    model = make("PPO", clock, update_s=1.0, step_s=0.05)
    seen: list[float] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            if budget.estimate is not None and self.num_timesteps == 1000:
                seen.append(clock.now() + budget.estimate.p50_s)
            return True

    budget = arzbench.BudgetCallback("1h", clock=clock)
    model.learn(4000, callback=[budget, Look(), evaluation(clock, 0.0, eval_freq=300)])
    assert seen
    assert seen[0] == pytest.approx(clock.now(), rel=0.02)
    assert budget.p_fits is not None
    assert budget.p_fits > 0.99
    told = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"arzbench: [\d,]+ of 4,000 timesteps, .* of 1 h 00 min; predicted end after \d+ min \d\d s "
        r"\(P90: .*\), P\(fits\) > 99 %; not in it, for not measured yet: EvalCallback",
        told[0],
    )
    assert told[-1].endswith("; all timesteps done")
    assert len(told) < 3 + clock.now() / 60


def test_nothing_is_said_before_the_dear_part_was_measured() -> None:
    clock = VirtualClock()
    model = make("DQN", clock, update_s=0.1)
    estimates: list[tuple[int, bool]] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            estimates.append((self.num_timesteps, budget.estimate is not None))
            return True

    model.learning_starts = 400
    budget = arzbench.BudgetCallback(3600, verbose=0, clock=clock)
    model.learn(1000, callback=[budget, Look()])
    known = min(steps for steps, has in estimates if has)
    assert 400 < known < 600


def test_one_warning_says_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    clock = VirtualClock()
    model = make("PPO", clock, step_s=0.05)
    model.learn(100_000, callback=arzbench.BudgetCallback(100, leave_s=0.0, verbose=0, clock=clock))
    warning, last = capsys.readouterr().err.splitlines()
    found = re.search(r"P\(fits\) < 1 %. About ([\d,]+) timesteps will fit, ([\d,]+) with", warning)
    assert found is not None
    likely, safe = (int(text.replace(",", "")) for text in found.groups())
    assert 1500 < safe < likely <= 2000
    assert last.startswith("arzbench: 1,9")
    assert "left; the next unit of work" in last


def test_the_logger_gets_both_numbers(tmp_path: Path) -> None:
    clock = VirtualClock()
    model = make("PPO", clock)
    model.set_logger(sb3.common.logger.configure(str(tmp_path), ["csv"]))
    model.learn(2000, callback=arzbench.BudgetCallback("1h", clock=clock, verbose=0))
    names = (tmp_path / "progress.csv").read_text().partition("\n")[0].split(",")
    assert {"time/predicted_end_s", "time/p_fits"} <= set(names)


def test_without_a_quota_only_the_end_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    clock = VirtualClock()
    callback = arzbench.BudgetCallback(None, clock=clock)
    make("PPO", clock).learn(2000, callback=callback)
    assert (callback.stopped, callback.left_s, callback.p_fits) == (None, None, None)
    assert callback.estimate is not None
    assert "P(fits)" not in capsys.readouterr().err


def test_statistics_of_vec_normalize_are_saved_beside(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    model = sb3.PPO("MlpPolicy", env, **copy.deepcopy(SMALL), **FAST)
    model.learn(64, callback=arzbench.BudgetCallback("1h", save_path=str(tmp_path / "new" / "m"), verbose=0))
    assert sorted(os.listdir(tmp_path / "new")) == ["m.zip", "m_vecnormalize.pkl"]
    again = VecNormalize.load(str(tmp_path / "new" / "m_vecnormalize.pkl"), env.venv)
    assert np.array_equal(again.obs_rms.mean, env.obs_rms.mean)


def test_what_a_save_takes_is_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    model = make("PPO", clock)
    callback = arzbench.BudgetCallback(100, save_path=tmp_path / "m", leave_s=1.0, verbose=0, clock=clock)
    kind = type(model)
    own = kind.save
    monkeypatch.setattr(kind, "save", lambda self, file: (own(self, file), clock.advance(7.0)))
    model.learn(1_000_000, callback=callback)
    assert callback.stopped == "deadline"
    assert callback.left_s is not None
    assert 1.0 < callback.left_s < 20.0
    assert os.listdir(tmp_path) == ["m.zip"]


class Send(BaseCallback):
    """Sends a signal to this process at its hundredth call."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number

    def _on_step(self) -> bool:
        if self.n_calls == 100:
            os.kill(os.getpid(), self._number)
        return True


@pytest.mark.parametrize("number", HONOURED)
def test_a_signal_ends_the_training_and_saves(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(n) for n in HONOURED]
    clock = VirtualClock()
    model = make("PPO", clock)
    callback = arzbench.BudgetCallback("12h", save_path=tmp_path / "m", clock=clock)
    model.learn(100_000, callback=[Send(number), callback])
    assert callback.stopped == "signal"
    assert 100 <= model.num_timesteps < 130
    assert (tmp_path / "m.zip").exists()
    assert [signal.getsignal(n) for n in HONOURED] == before
    assert f"{number.name}; saved" in capsys.readouterr().err


def test_handlers_go_when_learn_ended_by_an_error() -> None:
    class Fail(BaseCallback):
        def _on_step(self) -> bool:
            raise RuntimeError("mine")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="mine"):
        make("PPO").learn(100, callback=[arzbench.BudgetCallback("12h"), Fail()])
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_another_callback_may_end_it_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    class Enough(BaseCallback):
        def _on_step(self) -> bool:
            return self.n_calls < 50

    callback = arzbench.BudgetCallback("12h")
    saves = CheckpointCallback(20, str(tmp_path))
    make("DQN").learn(1000, callback=[callback, saves, Enough()])
    assert callback.stopped is None
    assert "ended by the training or a callback" in capsys.readouterr().err
    assert len(os.listdir(tmp_path)) == 2


def test_it_goes_on_in_a_second_learn() -> None:
    """The quota counts on, and what was learned of costs is not forgotten."""
    clock = VirtualClock()
    model = make("PPO", clock)
    callback = arzbench.BudgetCallback(50, leave_s=0.0, verbose=0, clock=clock)
    sessions = 0
    while callback.stopped is None:
        model.learn(500, callback=callback, reset_num_timesteps=False)
        sessions += 1
    assert 8 <= sessions <= 10
    assert 45 < clock.now() < 50


@pytest.mark.parametrize("quota", ["12", "soon", "", "0s", 0, -1.0, float("nan"), True, [3], "auto"])
def test_a_bad_quota_is_one_error(quota: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM", "KAGGLE", "COLAB")):
            monkeypatch.delenv(name)
    with pytest.raises(UsageError) as caught:
        arzbench.BudgetCallback(quota)
    assert "BudgetCallback" in caught.value.hint
    assert "--" not in caught.value.message


def test_auto_is_what_is_left_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    end = VirtualClock().wall().timestamp() + 600
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(end)))
    assert arzbench.BudgetCallback("auto", clock=VirtualClock()).quota_s == pytest.approx(600)


def test_misuse_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave_s = -1"):
        arzbench.BudgetCallback("20s", leave_s=-1)
    with pytest.raises(UsageError, match="is a folder"):
        arzbench.BudgetCallback("1h", save_path=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot save to"):
        make("PPO").learn(50, callback=arzbench.BudgetCallback("1h", save_path=tmp_path / "file" / "m"))
    seldom = EveryNTimesteps(10, arzbench.BudgetCallback("1h"))
    with pytest.raises(UsageError, match="now and then"):
        make("PPO").learn(50, callback=seldom)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = """
import sys
import arzbench
assert "BudgetCallback" in dir(arzbench)
assert not {"torch", "numpy", "importlib.metadata", "typing"} & (set(sys.modules) - before)
try:
    arzbench.Budget
except AttributeError as error:
    assert "'Budget'" in str(error)
arzbench.BudgetCallback
assert "torch" in sys.modules
"""
    code = "import sys; before = set(sys.modules)\n" + code
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

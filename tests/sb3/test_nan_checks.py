"""NaN and infinity stop a training before they are saved."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from arzbench.clock import SystemClock
from arzbench.errors import DivergedError, ExitCode
from arzbench.run import ledger
from arzbench.sb3.workload import SB3Workload
from arzbench.study import Study
from tests.run.jobs import run
from tests.sb3.controls import Free, config, start, tidy  # noqa: F401
from tests.sb3.envs import Known


class Broken(Known):
    """From its 60th step on it gives what `what` says."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.steps = what, 0

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps >= 60:
            if self.what == "observation":
                observation = np.full_like(observation, np.nan)
            elif self.what == "reward":
                reward = float("inf")
            else:
                raise RuntimeError("the simulator crashed")
        return observation, reward, terminated, truncated, info


gym.register("arztest/Broken-v0", Broken)

TABLE: dict[str, Any] = {
    "env": "arztest/Broken-v0",
    "total_timesteps": 200,
    "checkpoint": {"checkpoint_freq": 25},
    "logging": {"mode": "off"},
}


@pytest.mark.parametrize("what", ["observation", "reward", "crash"])
@pytest.mark.parametrize("own", [
    {"algo": "dqn", "learning_starts": 20, "batch_size": 8},
    {"algo": "dqn", "learning_starts": 1000},  # nothing is learned yet: only what is collected tells
    {"algo": "ppo", "n_steps": 16, "batch_size": 16},
])  # fmt: skip
def test_a_broken_env_leaves_the_last_sound_state_and_the_reason(
    tmp_path: Path, own: dict[str, Any], what: str
) -> None:
    study = Study(name="broken", trainings=(config(**own, **TABLE, env_kwargs={"what": what}),))
    clock = SystemClock()
    outcome = run(tmp_path, study, clock, SB3Workload(clock))  # type: ignore[arg-type]
    assert outcome.exit_code is ExitCode.FAILURE
    assert outcome.num_timesteps == (50,)
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.name.startswith("step-000000000050-")
    said = (tmp_path / "reports" / "r1" / "error.txt").read_text()
    assert "Traceback" in said
    stop = ledger.read(tmp_path / "reports" / "r1" / "ledger.jsonl").stop
    assert stop is not None
    assert stop.data["reason"] == "failed"
    if what == "crash":
        assert stop.data["detail"] == "RuntimeError: the simulator crashed"
    else:
        assert any(word in stop.data["detail"] for word in ("nan", "inf", "NaN"))


def test_a_loss_that_is_not_finite_is_named() -> None:
    training, _ = start(config("dqn", learning_starts=20, batch_size=8, total_timesteps=100))

    class Poison(Free):
        def before_step(self, training: Any, updates: int) -> None:
            if training.num_timesteps == 40:
                with th.no_grad():
                    next(training.model.policy.parameters()).fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"^loss is nan at step 4\d, after") as caught:
        training.run(Poison())
    assert "last sound checkpoint" in caught.value.hint
    with pytest.raises(DivergedError, match=r"the weights q_net\.\S+ is nan"):
        training.check_sound()


def test_rows_at_the_end_of_a_buffer_that_went_round_are_looked_at() -> None:
    training, _ = start(config("dqn", learning_starts=1000, buffer_size=20, total_timesteps=100))

    class Look(Free):
        def before_step(self, training: Any, updates: int) -> None:
            if training.num_timesteps == 15:
                training.check_sound()
            if training.num_timesteps == 25:
                training.model.replay_buffer.rewards[18] = np.nan
                with pytest.raises(DivergedError, match="the replay buffer rewards is nan"):
                    training.check_sound()

    training.run(Look())
    assert training.num_timesteps == 100

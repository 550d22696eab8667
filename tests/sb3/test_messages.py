"""Messages: all counted, few written, none put together in vain, and their time kept apart."""

from pathlib import Path
from typing import Any

import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import Phase
from arzbench.sb3.workload import SB3Workload
from tests.sb3.controls import Free, Log, config, start, tidy  # noqa: F401
from tests.sb3.envs import Spoken, Timed


def talk(folder: Path, env: str, mode: str, **table: Any) -> tuple[list[str], Log]:
    """The lines that a training of 20 steps writes, an evaluation of 10 and a baseline of 10 beside it."""
    study = config("a2c", env=env, total_timesteps=20, logging={"mode": mode, "log_period": 7},
                   evaluation={"final_episodes": 1}, baseline={"episodes": 1}, **table)  # fmt: skip
    log, path = Log(), folder / "messages.log"
    training = SB3Workload(VirtualClock(), path).create(study, log)
    training.run(Free())
    training.close()
    return path.read_text().splitlines(), log


def test_an_env_s_own_messages(tmp_path: Path) -> None:
    before = Spoken.count
    lines, log = talk(tmp_path, "arztest/Talking-v0", "periodic")
    # 60 messages of one tag, two a step: of #1, #7, #14, ... only odd ones show a value
    numbers = [1, *range(7, 61, 7)]
    assert [line.split("#")[1].split("]")[0] for line in lines] == [str(n) for n in numbers]
    assert Spoken.count - before == sum(n % 2 for n in numbers) == sum("x = " in line for line in lines)
    assert log.units(Phase.LOG) == 30


def test_every_message_and_none(tmp_path: Path) -> None:
    lines, _ = talk(tmp_path, "arztest/Talking-v0", "every")
    assert lines[:2] == ["[X] x = 1", "[X] again"]
    assert len(lines) == 60
    (tmp_path / "messages.log").unlink()
    before = Spoken.count
    lines, log = talk(tmp_path, "arztest/Talking-v0", "off")
    assert (lines, log.units(Phase.LOG), Spoken.count) == ([], 0, before)


def test_an_env_without_messages_gets_a_line_per_step(tmp_path: Path) -> None:
    lines, log = talk(tmp_path, "arztest/Known-v0", "every", seed=1)
    assert len(lines) == log.units(Phase.LOG) == 30
    assert lines[0].startswith("[STEP] 1: reward -")
    assert lines[19].startswith("[STEP] 20: ")
    assert lines[20].startswith("[STEP] 1: ")  # the env of evaluations counts for itself


def test_logging_is_switched_on_the_way() -> None:
    study = config("a2c", env="arztest/Talking-v0", total_timesteps=30, logging={"mode": "off"})

    class Switch(Free):
        def before_step(self, training: Any, updates: int) -> None:
            training.set_logging({10: "every", 20: "off"}.get(training.num_timesteps) or self.mode)
            self.mode = {10: "every", 20: "off"}.get(training.num_timesteps, self.mode)

        mode = "off"

    training, log = start(study)
    training.run(Switch())
    assert log.units(Phase.LOG) == 10


OFF_POLICY = {"learning_starts": 8, "train_freq": 2, "batch_size": 4,
              "exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}  # fmt: skip
ON_POLICY = {"n_steps": 10, "batch_size": 10, "n_epochs": 1}


@pytest.mark.parametrize("unasked", [0, 1, 6, 60])
@pytest.mark.parametrize("algo", ["dqn", "ppo"])
def test_every_second_is_booked_where_it_was_spent(algo: str, unasked: int) -> None:
    """On a clock that only the parts of the training move, each by its own amount."""
    clock = Timed.clock
    study = config(algo, fast=False, env="arztest/Timed-v0", n_envs=2, total_timesteps=40,
                   evaluation={"eval_freq": 10, "n_eval_episodes": 2}, baseline={"episodes": 1},
                   **(OFF_POLICY if algo == "dqn" else ON_POLICY))  # fmt: skip
    log = Log()
    training = SB3Workload(clock).create(study, log)
    model = training.model

    def slower(owner: Any, name: str, seconds: float) -> None:
        inner = getattr(owner, name)

        def slow(*args: Any, **kwargs: Any) -> Any:
            clock.advance(seconds)
            return inner(*args, **kwargs)

        setattr(owner, name, slow)

    if algo == "dqn":
        slower(model.policy, "_predict", 1.0)
        slower(model.replay_buffer, "add", 0.25)
        slower(model.replay_buffer, "sample", 3.0)
    else:  # the first is called for each minibatch, too
        slower(model.policy, "_get_action_dist_from_latent", 1.0)
        slower(model.rollout_buffer, "add", 0.25)

    class Slow(Free):
        def before_step(self, training: Any, updates: int) -> int:
            clock.advance(100)
            self.steps += 1
            return unasked

    began = clock.ticks()
    control = Slow()
    training.run(control)
    training.close()
    steps, calls = 40, 20
    updates, update_s, choices = (8, 3.0, calls - 4) if algo == "dqn" else (4, 1.0, calls)
    expected = {
        Phase.ENV_STEP: (5.0 * steps, steps),
        Phase.RESET: (2.0 * 6, 6),  # two at the start, and after every tenth step
        Phase.POLICY: (1.0 * choices, choices),
        Phase.UPDATE: (update_s * updates, updates),
        Phase.ROLLOUT: (0.25 * calls, calls),
        Phase.LOG: (0.5 * (steps + 40), steps + 40),
        Phase.EVAL_STEP: (4 * 2.0 + 40 * (5.0 + 1.0), 40),
        Phase.BASELINE: (2.0 + 10 * 5.0, 10),
    }
    measured = {k: v for k, v in log.totals.totals.items() if k is not Phase.BUILD}
    assert measured == {k: (pytest.approx(s), n) for k, (s, n) in expected.items()}
    # nothing is booked twice and nothing is lost, but what the control did
    assert clock.ticks() - began == pytest.approx(sum(s for s, _ in expected.values()) + 100 * control.steps)
    assert (control.steps == calls) == (not unasked)

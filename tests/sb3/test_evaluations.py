"""Evaluations beside the training give the results of those that it waits for; none is lost or left over."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from stable_baselines3 import PPO

from arzbench.clock import SystemClock, VirtualClock
from arzbench.facts import StopReason
from arzbench.measure.phase_times import PhaseTotals
from arzbench.report.summary import run_sheets
from arzbench.run import ledger
from arzbench.run.job import RunRequest, run_job
from arzbench.saves.read import read_manifest
from arzbench.sb3 import evaluations, forked
from arzbench.sb3.forked import Forked
from arzbench.sb3.user_model import UserModelWorkload, describe
from arzbench.sb3.workload import SB3Workload
from arzbench.study import Code, Evaluation, Study, TrainConfig
from arzbench.workload import EvaluationResult, StopTraining
from tests.run.jobs import Recorded
from tests.saves.states import opened, run_record
from tests.sb3.controls import Free, config, start, through_bytes, tidy  # noqa: F401
from tests.sb3.envs import Sharing

pytestmark = pytest.mark.skipif(not forked.POSSIBLE, reason="nothing is forked here")

DQN = {"learning_starts": 20, "batch_size": 8, "total_timesteps": 100, "seed": 3}
STUDIES: dict[str, TrainConfig] = {
    "off policy": config(
        "dqn", **DQN, logging={"mode": "off"}, env_kwargs={"ends": 0.05},
        evaluation={"eval_freq": 20, "n_eval_episodes": 2, "final_episodes": 2},
    ),
    "on policy, normalised": config(
        "ppo", env="CartPole-v1", n_envs=2, vec_normalize=True, n_steps=16, batch_size=8, n_epochs=2,
        total_timesteps=160, seed=3, logging={"mode": "off"},
        evaluation={"eval_freq": 20, "n_eval_episodes": 2},
    ),
    "our own traffic light": config(
        "dqn", env="arzbench/TrafficLight-v0", **{**DQN, "total_timesteps": 60}, train_freq=8,
        logging={"mode": "off"}, evaluation={"eval_freq": 20, "n_eval_episodes": 1, "max_steps": 20},
    ),
}  # fmt: skip
STUDY = STUDIES["off policy"]


def changed(study: TrainConfig, **evaluation: Any) -> TrainConfig:
    """`study` with other keys of its evaluation."""
    return structs.replace(study, evaluation=structs.replace(study.evaluation, **evaluation))


class Gate:
    """Holds back what processes do until it is open; remembers them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: list[Forked] = []
        self.after: Callable[[], None] = lambda: None

    def __call__(self, work: Callable[[], Any]) -> Forked:
        def held_back() -> Any:
            while self.path.exists():
                time.sleep(0.002)
            self.after()
            return work()

        self.made.append(Forked(held_back))
        return self.made[-1]

    def close(self) -> None:
        self.path.touch()

    def open(self) -> None:
        self.path.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Short evaluations are played beside the training, too, and there are two cores."""
    gate = Gate(tmp_path / "closed")
    monkeypatch.setattr(evaluations, "SHORT_S", 0.0)
    monkeypatch.setattr(evaluations, "Forked", gate)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    return gate


class Opening(Free):
    """Lets evaluations end only when the training waits for them."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self.told_at: list[int] = []

    def before_step(self, training: Any, updates: int) -> None:
        super().before_step(training, updates)
        if training.evaluating is None:
            self.gate.close()

    def waiting(self, training: Any) -> None:
        self.gate.open()

    def evaluated(self, training: Any, result: Any) -> None:
        super().evaluated(training, result)
        self.told_at.append(training.num_timesteps)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def results(training: Any) -> list[tuple[Any, ...]]:
    return [(r.kind, r.num_timesteps, r.returns, r.lengths) for r in training.state.episodes.results]


def inline(study: TrainConfig) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """What comes of it where the training waits for each evaluation."""
    Sharing.shared[:] = 0.0
    training, _ = start(changed(study, concurrent=False))
    training.run(Free())
    return training.fingerprint(), results(training)


def how(control: Free) -> list[str]:
    return [r.inline for r in control.evaluations if r.kind == "evaluation"]


@pytest.mark.parametrize("name", STUDIES)
def test_weights_and_results_are_those_of_a_training_that_waits(name: str, gate: Gate) -> None:
    training, _ = start(STUDIES[name])
    control = Opening(gate)
    training.run(control)
    assert (training.fingerprint(), results(training)) == inline(STUDIES[name])
    told = [r for r in control.evaluations if r.kind == "evaluation"]
    beside = [r.beside_s is not None for r in told]
    assert beside == [False, *[True] * (len(told) - 2), False]
    assert how(control)[:: len(told) - 1] == ["the first of a session", "the training had ended"]
    late = [at > r.num_timesteps for at, r in zip(control.told_at, control.evaluations, strict=True)]
    assert (late[0], late[1], late[-1]) == (False, True, False)
    assert all(gone(process.pid) for process in gate.made)
    assert not any("beside" in text for text in control.notes)


def test_one_that_has_ended_is_told_of_at_the_next_question(gate: Gate) -> None:
    class Prompt(Free):
        def before_step(self, training: Any, updates: int) -> None:
            super().before_step(training, updates)
            if training.evaluating is not None:
                gate.made[-1].wait(60)  # until it has sent its result
                while not gate.made[-1].ended():
                    pass

        def evaluated(self, training: Any, result: EvaluationResult) -> None:
            super().evaluated(training, result)
            lag = training.num_timesteps - result.num_timesteps
            assert lag == (0 if result.beside_s is None else 1)

    training, _ = start(STUDY)
    control = Prompt()
    training.run(control)
    assert len(control.evaluations) == 6


# Stopped beside one.


class StopBeside(Opening):
    """Stops so many steps after an evaluation was begun, or when the training waits for it."""

    def __init__(self, gate: Gate, steps: float) -> None:
        super().__init__(gate)
        self.left = steps

    def before_step(self, training: Any, updates: int) -> None:
        super().before_step(training, updates)
        if training.evaluating is not None:
            self.left -= 1
            if self.left < 0:
                raise StopTraining(StopReason.SIGNAL)

    def waiting(self, training: Any) -> None:
        raise StopTraining(StopReason.DEADLINE)


@pytest.mark.parametrize("steps", [0, 7, float("inf")])
@pytest.mark.parametrize("later", ["beside", "inline", "one core"])
@pytest.mark.parametrize("name", ["off policy", "on policy, normalised"])
def test_stopped_beside_one_it_is_played_as_of_its_time(
    name: str, later: str, steps: float, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = STUDIES[name]
    training, _ = start(study)
    control = StopBeside(gate, steps)
    with pytest.raises(StopTraining):
        training.run(control)
    assert training.evaluating == 2 * study.evaluation.eval_freq * study.n_envs
    assert training.num_timesteps > training.evaluating or not steps
    assert gone(gate.made[-1].pid)
    saved = through_bytes(training.capture())
    assert saved.values["format"] == 3
    if later == "one core":
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    gate.open()
    resumed, _ = start(changed(study, concurrent=False) if later == "inline" else study, saved)
    after = Opening(gate)
    resumed.run(after)
    assert (resumed.fingerprint(), results(resumed)) == inline(study)
    assert any(r.beside_s is not None for r in after.evaluations) == (later == "beside")


def test_stopped_within_one_that_is_played_again(gate: Gate) -> None:
    """Weights are those of now in what is saved, not those that it is played with."""

    class StopWithin(Free):
        def during_episode(self, training: Any) -> None:
            if training.state.episodes.returns:  # in its second episode
                raise StopTraining(StopReason.SIGNAL)

    training, _ = start(STUDY)
    with pytest.raises(StopTraining):
        training.run(StopBeside(gate, 7))
    gate.open()
    for _ in range(2):
        training, _ = start(STUDY, through_bytes(training.capture()))
        weights = training.fingerprint()["weights"]
        with pytest.raises(StopTraining):
            training.run(StopWithin())
        assert training.fingerprint()["weights"] == weights
        assert len(training.state.episodes.returns) == 1
    training, _ = start(STUDY, through_bytes(training.capture()))
    training.run(Free())
    assert (training.fingerprint(), results(training)) == inline(STUDY)


# A process that fails.


def test_killed_it_is_played_again(gate: Gate) -> None:
    class Killing(Opening):
        def before_step(self, training: Any, updates: int) -> None:
            super().before_step(training, updates)
            if training.num_timesteps == 47:
                os.kill(gate.made[-1].pid, signal.SIGKILL)

    training, _ = start(STUDY)
    control = Killing(gate)
    training.run(control)
    assert (training.fingerprint(), results(training)) == inline(STUDY)
    assert len(gate.made) == 1
    assert [text.partition(":")[0] for text in control.notes] == [
        "a process beside the training ended early, killed by signal 9"
    ]
    assert how(control)[1:3] == ["a process beside the training ended early, killed by signal 9"] * 2


def test_one_that_hangs_is_given_up(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations, "HANG_S", -1.0)  # the clock of this test stands still
    gate.close()
    training, _ = start(STUDY)
    training.run(Free())
    assert (training.fingerprint(), results(training)) == inline(STUDY)
    assert gone(gate.made[0].pid)


def test_an_env_that_fails_is_the_same_error() -> None:
    study = config("dqn", "arztest/Worn-v0", **DQN, logging={"mode": "off"}, env_kwargs={"lasts": 75},
                   evaluation={"eval_freq": 20, "n_eval_episodes": 4})  # fmt: skip
    told = []
    for one in (study, changed(study, concurrent=False)):
        training, _ = start(one)
        with pytest.raises(RuntimeError, match="worn out") as raised:
            training.run(Free())
        assert SB3Workload().is_of_env(raised.value)
        told.append(results(training))
    assert told[0] == told[1] != []


# Where the training waits.


@pytest.mark.parametrize(("why", "table"), [
    ("evaluation.concurrent = false", {"evaluation": {"concurrent": False}}),
    ("actions are drawn", {"evaluation": {"deterministic": False}}),
    ("several torch threads", {"torch_threads": 2}),
    ("messages of the env come in order", {"logging": {"mode": "periodic"}}),
    ("of the env cannot be seen: Hidden.hidden", {"env": "arztest/Hidden-v0"}),
    ("an evaluation changes random generators of the training", {"env": "arztest/Careless-v0"}),
    ("the training changes ", {"env": "arztest/Sharing-v0"}),
])  # fmt: skip
def test_it_says_why_the_training_waits(why: str, table: dict[str, Any], gate: Gate) -> None:
    evaluation = {"eval_freq": 20, "n_eval_episodes": 2, **table.pop("evaluation", {})}
    table = {"env": "arztest/Known-v0", "logging": {"mode": "off"}, **table}
    study = config("dqn", **DQN, **table, evaluation=evaluation)
    Sharing.shared[:] = 0.0
    training, _ = start(study)
    control = Free()
    training.run(control)
    assert not gate.made
    assert [text.startswith(why) for text in how(control)[1:]] == [True] * 4
    assert (training.fingerprint(), results(training)) == inline(study)


def test_one_core(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1})
    control = Free()
    start(STUDY)[0].run(control)
    assert how(control) == ["one core"] * 5
    assert not gate.made


def test_short_ones_are_not_worth_a_process(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(evaluations, "SHORT_S", 1e-9)  # the clock of this test stands still
    control = Free()
    start(STUDY)[0].run(control)
    assert how(control)[1:4] == ["too short for a process of its own"] * 3
    assert not gate.made


# Runs.


def request(folder: Path, study: TrainConfig, clock: SystemClock) -> RunRequest:
    return RunRequest(
        study=Study(name="one", trainings=(study,)),
        budgets=(study.total_timesteps,),
        run_id="r1",
        run_folder=folder / "reports",
        checkpoint_folder=folder / "checkpoints",
        session_start=clock.now(),
    )


def job(folder: Path, study: TrainConfig) -> None:
    clock = SystemClock()
    outcome = run_job(request(folder, study, clock), SB3Workload(clock), clock, Recorded())
    assert outcome.reason is StopReason.FINISHED, outcome.detail


def records(folder: Path) -> tuple[list[Any], dict[str, Any]]:
    """The evaluations that the ledger tells of, and the groups of the last state."""
    told = ledger.read(folder / "reports" / ledger.FILE).of_kind("evaluation")
    last = opened(folder / "checkpoints").paths()[-1]
    saved = (last / "arrays.safetensors").read_bytes()
    names = ("evaluation", "num_timesteps", "returns", "lengths")
    return [[e.data[name] for name in names] for e in told], {"arrays": saved}


SAVED = config(
    "dqn", **DQN, logging={"mode": "off"}, checkpoint={"checkpoint_freq": 20, "keep_last": 1},
    evaluation={"eval_freq": 20, "n_eval_episodes": 2},
)  # fmt: skip


def test_what_a_run_writes_down(tmp_path: Path) -> None:
    job(tmp_path, SAVED)
    summary = ledger.read(tmp_path / "reports" / ledger.FILE)
    told = summary.of_kind("evaluation")
    assert [e.data["num_timesteps"] for e in told] == [20, 40, 60, 80, 100]
    assert [e.data.get("inline") for e in told][::4] == ["the first of a session", "the training had ended"]
    for entry in told[1:4]:
        assert entry.data["beside_s"] > 0
        assert "inline" not in entry.data
    (sheet,) = (
        s
        for s in run_sheets(run_record(study=Study(name="one", trainings=(SAVED,))), summary, None)
        if s.title == "evaluations"
    )
    assert [row[2] for row in sheet.rows] == ["20", "40", "60", "80", "100"]
    assert sheet.notes[0].startswith("training: 3 of 5 beside the training, ")
    assert len(sheet.notes) == 1  # every session waits for its first
    units = sum(u for e in summary.entries for p, (_, u) in e.phases.items() if p == "evaluation")
    assert units == sum(n for e in told for n in e.data["lengths"])


def test_a_state_saved_beside_the_best_is_the_best(tmp_path: Path, gate: Gate) -> None:
    """Each save comes at an evaluation's own step, so the best state is the one of the best evaluation."""
    gate.after = lambda: time.sleep(0.02)
    job(tmp_path, SAVED)
    told = ledger.read(tmp_path / "reports" / ledger.FILE).of_kind("evaluation")
    best = max(told, key=lambda e: sum(e.data["returns"]))
    assert best.data["num_timesteps"] not in (20, 100)  # it was beside the training
    kept = [one.name for one in opened(tmp_path / "checkpoints").paths()]
    assert f"{best.data['num_timesteps']:012d}" in kept[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_beside_one_nothing_stays_and_nothing_is_lost(
    tmp_path: Path, gate: Gate, number: signal.Signals
) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    job(alone, SAVED)
    gate.close()
    found = tmp_path / "pid"
    pid = os.fork()
    if not pid:
        try:

            def told(work: Callable[[], Any]) -> Forked:
                process = gate(work)
                found.write_text(str(process.pid))
                return process

            evaluations.Forked = told  # type: ignore[assignment,misc]
            job(killed, SAVED)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while len(opened(killed / "checkpoints").paths()) < 1 or not found.exists() or not found.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(pid, number)
    os.waitpid(pid, 0)
    beside = int(found.read_text())
    while not gone(beside):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    if number == signal.SIGTERM:
        assert read_manifest(opened(killed / "checkpoints").paths()[-1]).awaits == 40
    gate.open()
    job(killed, SAVED)
    assert records(killed) == records(alone)


# The process by itself.


def test_a_forked_process_gives_what_its_work_returns() -> None:
    process = Forked(lambda: {"a": 1, "large": b"x" * 1_000_000})
    while not process.ended():
        process.wait(1)
    assert process.result() == {"a": 1, "large": b"x" * 1_000_000}
    assert gone(process.pid)


def test_a_forked_process_holds_no_file_and_takes_no_signal(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with (tmp_path / "mine").open("w") as mine:
        mine.write("buffered")

        def work() -> Any:
            while not go.exists():
                time.sleep(0.002)
            return [os.path.realpath(f"/proc/self/fd/{d}") for d in os.listdir("/proc/self/fd")]

        process = Forked(work)
        time.sleep(0.01)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(process.pid, number)
        go.touch()
        while not process.ended():
            process.wait(1)
        assert not [path for path in process.result() if path.startswith(str(tmp_path))]
    assert (tmp_path / "mine").read_text() == "buffered"


def test_a_forked_process_that_raises_or_is_killed_gives_nothing() -> None:
    failing = Forked(lambda: 1 / 0)
    while not failing.ended():
        failing.wait(1)
    assert (failing.result(), failing.how) == (None, "it raised an error")
    sleeping = Forked(lambda: time.sleep(60))
    assert not sleeping.ended()
    sleeping.kill()
    assert (sleeping.ended(), sleeping.result(), sleeping.how) == (True, None, "killed by signal 9")


# A user's own model.


def test_a_model_that_a_factory_builds() -> None:
    def factory(config: TrainConfig) -> Any:
        return PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=8, n_epochs=1, seed=3, device="cpu")

    model = factory(STUDY)
    described = describe(model, Code(factory="mine:build"), name="mine", total_timesteps=96, callback=None,
                         checkpoint_freq=0)  # fmt: skip
    found = []
    for concurrent in (True, False):
        workload = UserModelWorkload(factory, VirtualClock())
        evaluation = Evaluation(eval_freq=16, n_eval_episodes=2, concurrent=concurrent)
        training = workload.create(structs.replace(described, evaluation=evaluation), PhaseTotals())
        control = Free()
        training.run(control)
        found.append((training.fingerprint(), results(training)))
        beside = [r.beside_s is not None for r in control.evaluations]
        assert beside == [False, *[concurrent] * 4, False]
        training.close()
    assert found[0] == found[1]

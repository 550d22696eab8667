"""Any loop under a quota: units, saves and stops on a virtual clock, kills and signals in real processes."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import arzbench
from arzbench.clock import VirtualClock
from arzbench.errors import ExitCode, StateError, UsageError
from arzbench.facts import StopReason
from arzbench.saves.folders import StateFolders
from arzbench.session import LEAVE_S, Session
from tests.processes import LONGEST_S, ROOT, TRAINING_PACKAGES, environment, loaded, stop_when

SAVE_S = 0.2


@dataclass
class Training:
    """A training whose state is the list of the units it did; time passes as it is told to."""

    folder: Path
    clock: VirtualClock = field(default_factory=VirtualClock)
    done: list[str] = field(default_factory=list)
    save_s: float = SAVE_S
    saves: int = 0

    def save(self, folder: Path) -> None:
        self.clock.advance(self.save_s)
        self.saves += 1
        (folder / "part").mkdir()
        (folder / "part" / "done.json").write_text(json.dumps(self.done))

    def restore(self, folder: Path) -> None:
        self.done = json.loads((folder / "part" / "done.json").read_text())

    def session(self, quota: Any = None, **options: Any) -> Session:
        given: dict[str, Any] = {"folder": self.folder, "save": self.save, "restore": self.restore}
        return Session(quota, **{**given, "clock": self.clock, **options})

    def unit(self, name: str, index: int, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        self.done.append(f"{name} {index}")

    def run(self, quota: Any = None, *, seconds: float = 1.0, total: int = 10, **options: Any) -> Session:
        session = self.session(quota, **options)
        self.loop(session, lambda index: None, seconds=seconds, total=total)
        return session

    def loop(
        self, session: Session, during: Callable[[int], object], *, seconds: float = 1.0, total: int = 10
    ) -> None:
        """All epochs there is time for; `during` is called in the midst of each."""
        with session:
            for index in session.units("epoch", total):
                during(index)
                self.unit("epoch", index, seconds)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; those that tests kill do wait."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path / "run")


def again(training: Training) -> Training:
    """The same script started once more: all it knows is in its folder."""
    return Training(training.folder, save_s=training.save_s)


def epochs(count: int) -> list[str]:
    return [f"epoch {index}" for index in range(count)]


def states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*"))


# ---------------------------------------------------------------- units


def test_the_name_is_public_and_loads_nothing_that_trains(tmp_path: Path) -> None:
    assert arzbench.Session is Session
    assert "Session" in dir(arzbench)
    with pytest.raises(AttributeError, match="Sesion"):
        _ = arzbench.Sesion  # type: ignore[attr-defined]
    modules, done = loaded("import", "arzbench.session", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not modules & TRAINING_PACKAGES
    modules, _ = loaded("import", "arzbench", folder=tmp_path)
    assert "arzbench.session" not in modules


def test_without_a_quota_all_is_done_and_saved(training: Training) -> None:
    with training.session() as session:
        assert session.predicted_end is None
        assert session.reason is None
        for index in session.units("epoch", total=10):
            training.unit("epoch", index)
    assert training.done == epochs(10)
    assert (session.finished, session.exit_code, session.reason) == (True, ExitCode.OK, StopReason.FINISHED)
    assert session.left_s is None
    assert training.saves == 2  # the first unit, and the end
    once_more = again(training)
    assert once_more.run().finished
    assert once_more.done == epochs(10)
    assert once_more.saves == 0


def test_sessions_go_on_where_the_last_one_ended(training: Training) -> None:
    ended = []
    for _ in range(20):
        session = training.run(6)
        assert session.left_s is not None
        assert session.left_s >= LEAVE_S
        ended.append(session.exit_code)
        if session.finished:
            break
        assert session.reason is StopReason.DEADLINE
        training = again(training)
    assert ended == [4] * (len(ended) - 1) + [0]
    assert len(ended) > 2
    assert training.done == epochs(10)


def test_loops_follow_one_another(training: Training) -> None:
    wanted = [*(f"pretrain {i}" for i in range(4)), *(f"train {i}" for i in range(9)), "test 0"]
    for _ in range(20):
        training = again(training)
        with training.session(10) as session:
            for index in session.units("pretrain", 4):
                training.unit("pretrain", index)
            for index in session.units("train", 9):
                training.unit("train", index, 0.8)
            for index in session.units("test", 1):
                training.unit("test", index, 0.4)
        assert session.left_s is not None
        assert session.left_s >= LEAVE_S
        if session.finished:
            break
    assert training.done == wanted


def test_a_loop_may_grow_and_shrink(training: Training) -> None:
    training.run(total=3)
    longer = again(training)
    longer.run(total=5)
    assert longer.done == epochs(5)
    assert again(training).run(total=4).finished


def test_one_that_another_follows_may_not_grow(training: Training) -> None:
    with training.session() as session:
        for name in ("a", "b"):
            for index in session.units(name, 2):
                training.unit(name, index)
    with again(training).session() as session, pytest.raises(UsageError, match="cannot grow from 2 to 3"):
        session.units("a", 3)


def test_a_loop_within_another_is_refused(training: Training) -> None:
    session = training.session()
    with pytest.raises(UsageError, match=r"units\('batch'\) begins before units\('epoch'\)") as told:
        training.loop(session, lambda index: index and session.units("batch", 5))
    assert "for batch in range" in told.value.hint
    assert session.reason is StopReason.FAILED
    assert again(training).run(total=3).finished


@pytest.mark.parametrize(("name", "total"), [("epoch", 3.0), ("epoch", -1), (100, 3), ("epoch", "3")])
def test_what_is_no_number_of_units_is_refused(training: Training, name: Any, total: Any) -> None:
    with training.session() as session, pytest.raises(UsageError, match="units") as told:
        session.units(name, total)
    assert 'units("epoch", total=100)' in told.value.hint


def test_a_loop_of_another_name_is_refused(training: Training) -> None:
    training.run(total=2)
    with again(training).session() as session, pytest.raises(UsageError, match=r"is units\('epoch'\), not"):
        session.units("iteration", 2)


def test_early_stopping_is_kept(training: Training) -> None:
    with training.session() as session:
        for index in session.units("epoch", 10):
            training.unit("epoch", index)
            if index == 4:
                session.end_units()
        for index in session.units("test", 1):
            training.unit("test", index)
        with pytest.raises(UsageError, match="no unit is in progress"):
            session.end_units()
    assert session.finished
    assert training.done == [*epochs(5), "test 0"]
    other = again(training)
    with other.session() as session:
        assert list(session.units("epoch", 10)) == []
        assert list(session.units("test", 1)) == []
    assert session.finished


def test_a_break_is_told_and_finishes_nothing(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    with training.session() as session:
        for index in session.units("epoch", 10):
            training.unit("epoch", index)
            if index == 4:
                break
    assert (session.reason, session.exit_code) == (None, ExitCode.MORE_TO_DO)
    assert "units('epoch') was left at 4 of 10" in capsys.readouterr().err
    other = again(training)
    assert other.run().finished
    assert other.done == epochs(10)


def test_an_exception_leaves_what_was_saved(training: Training) -> None:
    def fail(index: int) -> None:
        if index == 4:
            training.done.append("half a unit")
            raise ZeroDivisionError

    session = training.session(save_every=1)
    with pytest.raises(ZeroDivisionError):
        training.loop(session, fail)
    assert (session.reason, session.exit_code) == (StopReason.FAILED, ExitCode.FAILURE)
    other = again(training)
    other.session().close()
    assert other.done == epochs(4)


def test_close_in_place_of_with(training: Training) -> None:
    session = training.session()
    handler = signal.getsignal(signal.SIGTERM)
    for index in session.units("epoch", 2):
        training.unit("epoch", index)
    session.close()
    session.close()
    assert session.finished
    assert signal.getsignal(signal.SIGTERM) is not handler
    with pytest.raises(UsageError, match="closed"):
        session.units("epoch", 2)


# ---------------------------------------------------------------- the deadline


@dataclass
class Costs:
    """What a unit and a save take, drawn anew each time."""

    dice: random.Random
    kind: str

    def unit(self) -> float:
        if self.kind == "long tail":
            return 0.2 * self.dice.lognormvariate(0, 0.4)
        if self.kind == "sometimes longer":
            return 1.4 if self.dice.random() < 0.2 else 0.5
        return self.dice.uniform(0.05, 1.5)

    def save(self) -> float:
        return self.dice.uniform(0.05, 0.4)


@pytest.mark.parametrize("kind", ["long tail", "sometimes longer", "even"])
def test_no_session_ends_late_and_each_uses_its_quota(tmp_path: Path, kind: str) -> None:
    used = []
    for seed in range(60):
        dice = random.Random(f"{kind} {seed}")
        costs = Costs(dice, kind)
        quota_s = dice.uniform(10, 40)
        training = Training(tmp_path / str(seed))
        with training.session(quota_s, save_every=3) as session:
            for index in session.units("epoch", 10_000):
                training.save_s = costs.save()
                training.unit("epoch", index, costs.unit())
        assert session.reason is StopReason.DEADLINE
        assert session.left_s is not None
        assert session.left_s >= LEAVE_S, seed
        used.append(1 - (session.left_s - session.kept_free_s) / quota_s)
        other = again(training)
        other.session().close()
        assert other.done == training.done  # all it did was saved
    assert sum(used) / len(used) > 0.8


def test_without_care_some_would_be_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail."""
    monkeypatch.setattr("arzbench.predict.unit_times.UnitTimes.allow_s", lambda times: times.mean_s())
    with pytest.raises(AssertionError):
        test_no_session_ends_late_and_each_uses_its_quota(tmp_path, "even")


def test_the_first_unit_of_all_is_begun_whatever_it_takes(training: Training) -> None:
    session = training.run(10, seconds=60.0)
    assert training.done == epochs(1)
    assert session.reason is StopReason.DEADLINE


def test_units_longer_than_half_a_quota_still_come_forward(training: Training) -> None:
    for count in range(1, 4):
        training = again(training)
        training.run(100, seconds=70.0)
        assert training.done == epochs(count)


def test_sessions_that_do_nothing_do_not_go_on_for_ever(training: Training) -> None:
    training.run(100, seconds=70.0)
    first, second = again(training).run(20), again(training).run(20)
    assert (first.reason, first.exit_code) == (StopReason.DEADLINE, ExitCode.MORE_TO_DO)
    assert (second.reason, second.exit_code) == (StopReason.FAILED, ExitCode.FAILURE)
    longer = again(training)
    assert longer.run(300, seconds=70.0).reason is StopReason.DEADLINE
    assert longer.done == epochs(4)
    assert again(training).run(20).exit_code == ExitCode.MORE_TO_DO


def test_a_quota_that_is_over_begins_nothing(training: Training) -> None:
    with training.session(5) as session:
        training.clock.advance(4.5)  # an import
        assert list(session.units("epoch", 3)) == []
    assert session.exit_code == ExitCode.MORE_TO_DO


def test_a_loop_never_met_is_taken_like_the_longest_of_the_others(training: Training) -> None:
    with training.session(20) as session:
        for index in session.units("train", 4):
            training.unit("train", index, 3.0)
        assert list(session.units("test", 1)) == []  # may take 6 s; that, less saving and leaving, is left
    assert session.reason is StopReason.DEADLINE
    other = again(training)
    with other.session(20) as session:
        assert list(session.units("train", 4)) == []
        for index in session.units("test", 1):
            other.unit("test", index, 12.0)
    assert session.finished


def test_the_quota_counts_from_the_start_of_the_process(tmp_path: Path) -> None:
    training = Training(tmp_path)
    with Session("12h", folder=tmp_path, save=training.save, restore=training.restore) as session:
        assert session.left_s is not None
        assert session.left_s < 12 * 3600 - 0.01
        assert session.left_s > 0


def test_what_is_left_of_a_job_is_found(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    ends = training.clock.wall().timestamp() + 600
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(ends)))
    with training.session("auto") as session:
        assert session.left_s == pytest.approx(600, abs=1)


# ---------------------------------------------------------------- what is told


def test_the_end_is_predicted_from_measured_units(training: Training) -> None:
    with training.session(save_every=5) as session:
        for index in session.units("epoch", 40):
            training.unit("epoch", index, 2.0 if index else 20.0)  # the first is told apart
            if index == 30:
                end = session.predicted_end
    assert end is not None
    assert end.p50_s == pytest.approx(10 * 2.0 + 5 * SAVE_S)  # nine more and the one in progress
    assert end.p50_s < end.p90_s < end.p99_s < 1.3 * end.p50_s
    assert session.predicted_end is not None
    assert session.predicted_end.p99_s == 0


def test_the_interval_holds_what_comes(tmp_path: Path) -> None:
    within = 0
    for seed in range(100):
        dice = random.Random(seed)
        training = Training(tmp_path / str(seed))
        with training.session() as session:
            for index in session.units("epoch", 40):
                training.unit("epoch", index, dice.uniform(0.2, 1.8))
                if index == 8:
                    end = session.predicted_end
                    began = training.clock.now()
        assert end is not None
        within += training.clock.now() - began <= end.p90_s
    assert 84 <= within <= 99


def test_lines_are_few_and_a_warning_comes_once(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    training.run(400, total=1000)
    told = capsys.readouterr().err
    assert told.count("warning: ") == 1
    assert "this session will save and stop before its deadline" in told
    lines = [line for line in told.splitlines() if "predicted end in" in line]
    assert 20 < len(lines) < 45
    assert lines[0].startswith("arzbench: epoch 10/1000 (1%), 1.0 s each, elapsed 10.")
    assert lines[0].endswith("P(fits) 0%")
    assert "stopped before the deadline, with more to do: " in told


def test_no_warning_where_all_fits(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    training.run(400, total=100)
    assert "warning" not in capsys.readouterr().err


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"quota": "12 parsecs"}, "'12 parsecs' is not a duration"),
        ({"quota": -3}, "quota is -3"),
        ({"quota": float("nan")}, "quota is nan"),
        ({"quota": "auto"}, "nothing tells of a limit here"),
        ({"save_every": 0}, "save_every is 0"),
        ({"save": "model.pt"}, "save and restore must be functions"),
    ],
)
def test_an_impossible_value_is_one_error_and_nothing_is_written(
    training: Training, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], told: str
) -> None:
    for name in ("SLURM_JOB_ID", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=told) as error:
        training.session(**options)
    assert error.value.hint
    assert error.value.__notes__ == [f"hint: {error.value.hint}"]
    assert not training.folder.exists()


def test_a_folder_is_held_by_one(training: Training) -> None:
    held = training.session()
    with pytest.raises(StateError, match=f"another run is using .*process {os.getpid()}"):
        again(training).session()
    held.close()
    training.session().close()


def failing(training: Training) -> Iterator[tuple[Any, str, type[Exception]]]:
    def raises(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise ValueError("no such tensor")

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    def links(folder: Path) -> None:
        (folder / "weights").symlink_to("/etc/hostname")

    def taken(folder: Path) -> None:
        (folder / "session.json").write_text("{}")

    yield raises, r"save\(\) failed: ValueError: no such tensor", StateError
    yield full, r"save\(\) failed: OSError: No space left", StateError
    yield links, "'weights': not a plain file", UsageError
    yield taken, "'session.json': a name that is taken", UsageError
    yield lambda folder: None, "wrote no file", UsageError


@pytest.mark.parametrize("number", range(5))
def test_a_save_that_fails_is_one_error_and_touches_nothing(training: Training, number: int) -> None:
    save, told, kind = list(failing(training))[number]
    training.run(4)
    before = {path: path.read_bytes() for path in training.folder.rglob("state-*/*") if path.is_file()}
    kept = [path.name for path in states(training.folder)]
    other = again(training)
    with pytest.raises(kind, match=told) as error:
        other.run(save=save)
    assert (error.value.__cause__ is not None) == (kind is StateError)
    assert [path.name for path in states(training.folder)] == kept
    assert {path: path.read_bytes() for path in before} == before
    assert not list(training.folder.glob(".*.tmp"))
    assert again(training).run().finished


def test_a_restore_that_fails_is_one_error(training: Training) -> None:
    training.run(4)

    def restore(folder: Path) -> None:
        raise KeyError("optimizer")

    with pytest.raises(StateError, match=r"restore\(\) failed on .*: KeyError: 'optimizer'"):
        again(training).session(restore=restore)
    assert again(training).run().finished


# ---------------------------------------------------------------- states on the disk


def damage(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    elif how == "link":
        path.rename(path.with_suffix(".other"))
        path.symlink_to(path.with_suffix(".other"))
    else:
        content = bytearray(path.read_bytes())
        content[content.index(b"0")] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "cut", "link", "bit"])
@pytest.mark.parametrize("name", ["session.json", "part/done.json"])
def test_a_damaged_state_is_named_and_the_one_before_it_counts(
    training: Training, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    training.run(8, save_every=1)
    older, newest = states(training.folder)
    wanted = json.loads((older / "part" / "done.json").read_text())
    damage(newest / name, how)
    other = again(training)
    with other.session() as session:
        assert other.done == wanted
        assert f"skipped {newest.name}: {name}: " in capsys.readouterr().err
        for index in session.units("epoch", 10):
            other.unit("epoch", index)
    assert other.done == epochs(10)
    assert newest not in states(training.folder)
    assert len(states(training.folder)) == 2


def test_nothing_begins_anew_where_only_damaged_states_are_left(training: Training) -> None:
    training.run(8, save_every=1)
    for state in states(training.folder):
        damage(state / "session.json", "cut")
    with pytest.raises(StateError, match=r"no sound state in .*: state-.*; state-"):
        again(training).session()
    assert len(states(training.folder)) == 2


def test_a_newer_version_is_refused(training: Training) -> None:
    training.run(4)
    manifest = states(training.folder)[-1] / "session.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(UsageError, match="version 99") as error:
        again(training).session()
    assert "upgrade" in error.value.hint


def test_two_states_are_kept_and_what_kills_left_is_cleared(training: Training) -> None:
    training.folder.mkdir()
    aside = training.folder / ".state-000001.tmp"
    shutil.copytree(ROOT / "docs", aside)
    training.run(save_every=1)
    assert [path.name for path in states(training.folder)] == ["state-000009", "state-000010"]
    assert not aside.exists()


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_it_after_the_unit_in_progress(training: Training, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with training.session() as session:
        for index in session.units("epoch", 10):
            if index == 3:
                os.kill(os.getpid(), number)
            training.unit("epoch", index)
        assert list(session.units("test", 1)) == []
    assert (session.reason, session.exit_code) == (StopReason.SIGNAL, ExitCode.MORE_TO_DO)
    assert signal.getsignal(number) is before
    assert training.done == epochs(4)
    other = again(training)
    other.session().close()
    assert other.done == epochs(4)


def test_a_second_signal_leaves_the_unit_at_once(training: Training) -> None:
    def twice(index: int) -> None:
        if index == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    session = training.session(save_every=1)
    with pytest.raises(KeyboardInterrupt):
        training.loop(session, twice)
    assert (session.reason, session.exit_code) == (StopReason.SIGNAL, ExitCode.MORE_TO_DO)
    assert training.done == epochs(3)
    other = again(training)
    other.session().close()
    assert other.done == epochs(3)


def test_no_signal_cuts_a_save(training: Training) -> None:
    def save(folder: Path) -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        training.save(folder)

    session = training.run(save=save)
    assert session.reason is StopReason.SIGNAL
    other = again(training)
    other.session().close()
    assert other.done == epochs(1)


def test_a_forked_worker_can_be_terminated(training: Training) -> None:
    with training.session() as session:
        for index in session.units("epoch", 1):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            time.sleep(0.1)
            os.kill(child, signal.SIGINT)  # ctrl-C reaches workers, too; the unit still needs them
            time.sleep(0.1)
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            os.kill(child, signal.SIGTERM)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
            training.unit("epoch", index)
    assert session.finished


# ---------------------------------------------------------------- real processes

PROGRAM = """
import hashlib, sys, time
import arzbench

quota, folder, total, unit_s, save_s = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
value = ""

def save(folder):
    for number in range(4):
        (folder / f"{number}.txt").write_text(value)
        print("saving", flush=True)
        time.sleep(save_s / 4)

def restore(folder):
    global value
    (value,) = {(folder / f"{number}.txt").read_text() for number in range(4)}

with arzbench.Session(
    None if quota == "none" else quota, folder=folder, save=save, restore=restore, save_every=0.001
) as session:
    for index in session.units("unit", int(total)):
        time.sleep(unit_s)
        value = hashlib.sha256(f"{value} {index}".encode()).hexdigest()
print("value", value)
session.leave()
"""


def chain(units: int) -> str:
    value = ""
    for index in range(units):
        value = hashlib.sha256(f"{value} {index}".encode()).hexdigest()
    return value


def program(folder: Path, total: int, unit_s: float, save_s: float, quota: str = "none") -> list[str]:
    file = folder / "program.py"
    file.write_text(PROGRAM)
    return [sys.executable, str(file), quota, str(folder / "run"), str(total), str(unit_s), str(save_s)]


def begun(command: list[str]) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment(), **pipes)


def sound(folder: Path) -> tuple[int, str]:
    """Units done and the value in the newest sound state."""
    found = StateFolders(folder).newest()
    if found is None:
        return 0, ""
    path, manifest = found
    return manifest.loops[0].done, (path / "0.txt").read_text()


def test_kills_at_any_moment_lose_nothing_that_was_saved(tmp_path: Path) -> None:
    """Half of the time it is in the save of the user, whose files are then half written."""
    dice, command, within = random.Random(1), program(tmp_path, 60, 0.02, 0.04), 0
    folder = tmp_path / "run"
    for _ in range(12):
        process = begun(command)
        assert process.stdout is not None
        while (line := process.stdout.readline()) and "saving" not in line:
            pass
        time.sleep(dice.uniform(0, 0.25))
        before = [path.name for path in states(folder)]
        process.kill()
        process.communicate()
        within += any(folder.glob(".state-*.tmp"))
        if before:
            assert states(folder)[-1].name >= before[-1]
        done, value = sound(folder)
        assert value == chain(done)
        assert not before or done >= 1
    assert within >= 3
    out, _ = begun(command).communicate(timeout=LONGEST_S)
    assert f"value {chain(60)}" in out
    assert "skipped" not in out


def test_a_signal_to_a_process(tmp_path: Path) -> None:
    command, folder = program(tmp_path, 1000, 0.05, 0.02), tmp_path / "run"
    ended = stop_when(begun(command), lambda: len(states(folder)) == 2, signal.SIGTERM)
    assert ended.code == 4, ended.out
    assert "SIGTERM: stopping after the unit in progress" in ended.out
    done, value = sound(folder)
    assert value == chain(done)
    assert f"value {value}" in ended.out


def test_the_script_of_the_guide_is_one(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "guides" / "session.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    file = tmp_path / "guide.py"
    file.write_text(source)
    done = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "finished after" in done.stderr
    assert len(states(tmp_path / "runs" / "mine")) == 2


def test_a_process_ends_before_its_deadline(tmp_path: Path) -> None:
    began = time.monotonic()
    out, _ = (process := begun(program(tmp_path, 100_000, 0.2, 0.1, "12s"))).communicate(timeout=LONGEST_S)
    assert time.monotonic() - began < 12
    assert process.returncode == 4, out
    assert "stopped before the deadline, with more to do" in out
    done, value = sound(tmp_path / "run")
    assert value == chain(done)
    assert f"value {value}" in out

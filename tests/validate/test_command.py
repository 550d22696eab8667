"""`arzbench validate`: kept as it goes, resumed when killed, scored; one real run of its product path."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from arzbench import profiles, store
from arzbench.clock import SystemClock
from arzbench.commands import validate as command
from arzbench.commands.validate import PairRunner, validate
from arzbench.errors import StateError, UsageError
from arzbench.measure.host import host_info
from arzbench.options import parse_share
from arzbench.predict.landing import quota_for
from arzbench.validate import scores
from arzbench.validate.design import PAIRS, make_design, study_of
from arzbench.validate.result import Cell, Outcome, Pair, Validation
from tests import worlds
from tests.validate.figures import cell, outcome

CARTPOLE = PAIRS[0]


class Pretended:
    """A runner whose runs take what is declared; fails at the run numbered `fails_at`."""

    wall_s = 31.0
    fails_at: int | None = None
    made: list[tuple[str, bool, int]] = []

    def __init__(self, working: Path, work: Path, *_: Any) -> None:
        work.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def busy_process(self, wanted: bool) -> Iterator[None]:
        yield

    def calibrate(self, pair: Pair, beside: bool) -> Cell:
        return cell(pair, beside=beside)

    def run(self, pair: Pair, beside: bool, repetition: int, cell: Cell) -> Outcome:
        if len(self.made) == self.fails_at:
            type(self).fails_at = None
            raise StateError("the machine went away")
        self.made.append((pair.name, beside, repetition))
        quota_s = 33.0 if repetition == 2 else None
        return outcome(pair, self.wall_s, beside=beside, repetition=repetition, quota_s=quota_s)

    def versions(self, cells: Any) -> dict[str, str]:
        return {"torch": "2"}


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> type[Pretended]:
    kind = type("Fresh", (Pretended,), {"made": []})
    monkeypatch.setattr(command, "PairRunner", kind)
    return kind


def begin(folder: Path, **changes: Any) -> int:
    """The exit code of the command, called in this process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return validate(**{"folder": folder, "pairs": "cartpole-ppo,pendulum-sac", **changes})
    finally:
        signal.signal(signal.SIGTERM, before)


def raw(folder: Path) -> Validation:
    (path,) = (folder / "reports").glob("validate-*/raw.json")
    return store.load(path, "arzbench/validation", Validation, "validation")


def test_every_run_is_kept_and_scored(
    tmp_path: Path, pretended: type[Pretended], capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin(tmp_path) == 1  # nothing was said while the runs went on... and no floor
    validation = raw(tmp_path)
    assert len(validation.runs) == 12
    assert len(validation.cells) == 4
    assert [(r.pair, r.beside, r.repetition) for r in validation.runs] == pretended.made
    (folder,) = (tmp_path / "reports").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["raw.json", "summary.md"]
    told = capsys.readouterr().out
    assert "what was to be shown" in told
    assert (folder / "summary.md").read_text().startswith(f"# {validation.id}")


def test_killed_it_goes_on_where_it_was(
    tmp_path: Path, pretended: type[Pretended], capsys: pytest.CaptureFixture[str]
) -> None:
    pretended.fails_at = 5
    with pytest.raises(StateError, match="went away"):
        begin(tmp_path)
    (lines,) = (tmp_path / "reports").glob("validate-*/figures.jsonl")
    with lines.open("ab") as file:
        file.write(b'{"kind":"run","pair":"cart')  # cut off by the kill
    begin(tmp_path)
    assert "going on: 5 run(s) are done" in capsys.readouterr().out
    assert len(pretended.made) == len(set(pretended.made)) == len(raw(tmp_path).runs) == 12


def test_another_design_or_fresh_begins_anew(tmp_path: Path, pretended: type[Pretended]) -> None:
    pretended.fails_at = 2
    with pytest.raises(StateError):
        begin(tmp_path)
    begin(tmp_path, seed=1)
    begin(tmp_path, fresh=True)
    assert len(pretended.made) == 2 + 12 + 12
    assert len(list((tmp_path / "reports").iterdir())) == 3


def test_runs_without_time_left_are_left_out(
    tmp_path: Path, pretended: type[Pretended], capsys: pytest.CaptureFixture[str]
) -> None:
    pretended.wall_s = 2000.0
    begin(tmp_path, duration="20m")
    assert len(pretended.made) == 1
    assert "left out: there was no time" in capsys.readouterr().out


def test_wrong_requests_are_told_before_anything_is_written(tmp_path: Path) -> None:
    for wrong in ({"duration": "1m"}, {"pairs": "cartpole"}, {"duration": "soon"}):
        with pytest.raises(UsageError):
            begin(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []
    for text in ("a lot", "1.5", "-1"):
        with pytest.raises(UsageError, match="--neighbour"):
            parse_share("--neighbour", text)
    assert parse_share("--neighbour", "25%") == 0.25


def test_json_goes_to_standard_output_and_the_exit_code_is_zero_where_no_criterion_failed(
    tmp_path: Path,
    pretended: type[Pretended],
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scores, "criteria", lambda validation: [])
    assert begin(tmp_path, as_json=True) == 0
    assert json.loads(capfdbinary.readouterr().out)["schema"] == "arzbench/validation"


def runner(folder: Path) -> PairRunner:
    design = make_design((CARTPOLE,), busy_share=0.5, seed=0, quick=True, planned_s=None)
    return PairRunner(folder, folder / "work", host_info(), design, SystemClock())


def test_the_busy_process_is_busy_and_ends(tmp_path: Path) -> None:
    with runner(tmp_path).busy_process(True):
        (child,) = [c for c in psutil.Process().children() if "busy_process" in " ".join(c.cmdline())]
        before = sum(child.cpu_times()[:2])
        while sum(child.cpu_times()[:2]) < before + 0.3:
            assert child.is_running()
    assert not child.is_running()


def test_a_busy_process_that_ends_by_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BUSY_PROCESS", (sys.executable, "-c", "raise SystemExit(3)"))

    def run_beside_it() -> None:
        with runner(tmp_path).busy_process(True):
            (child,) = [c for c in psutil.Process().children() if "raise SystemExit(3)" in c.cmdline()]
            while child.status() != psutil.STATUS_ZOMBIE:
                pass

    with pytest.raises(StateError, match="ended with code 3"):
        run_beside_it()


def test_a_run_is_predicted_carried_out_and_booked(tmp_path: Path) -> None:
    """The product's own path: a plan from a calibration on disk, `arzbench run` as a process."""
    study = study_of(CARTPOLE, 20_000, 0)
    measured = worlds.calibration(study, host=host_info())
    profiles.save_calibration(tmp_path / "work", msgspec.structs.replace(measured, id="measured"))
    run = runner(tmp_path).run(CARTPOLE, False, 1, cell(calibration_id="measured", timesteps=4096))
    assert run.finished
    assert run.timesteps == 4096
    assert run.quota_s == pytest.approx(quota_for(run.quantiles["0.95"], uploads=False), abs=0.1)
    assert 0 < run.wall_s < run.quota_s  # declared prices are far too high
    assert [m.share for m in run.marks] == sorted({m.share for m in run.marks}) != []
    assert all(0 <= m.done <= 1 and 0 < m.elapsed_s < run.wall_s for m in run.marks)
    assert run.actual_phases["update"] > 0
    assert run.predicted_phases["update"] > 0
    (past,) = profiles.past_runs(tmp_path, host_info())
    assert past.calibration == "measured"
    assert past.ratio == pytest.approx(run.wall_s / run.quantiles["0.5"], rel=0.2)
    assert not list((tmp_path / "work" / "checkpoints").iterdir())


def test_ended_from_outside_it_takes_its_processes_with_it(tmp_path: Path) -> None:
    words = ["validate", "--quick", "--pairs", "cartpole-ppo", "--neighbour", "1", "--dir", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "arzbench", *words], stdout=subprocess.DEVNULL)
    parent = psutil.Process(process.pid)
    while len(parent.children()) < 2:  # the busy process, and the calibration
        assert process.poll() is None
    children = parent.children(recursive=True)
    process.terminate()
    assert process.wait() == 143
    gone, left = psutil.wait_procs(children, timeout=60)
    for one in left:
        one.kill()
    assert len(gone) == len(children)

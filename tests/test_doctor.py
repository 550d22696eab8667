"""What is here and what is missing: said, never an error, and nothing left behind."""

import datetime
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arzbench import limits, profiles, quota
from arzbench.clock import VirtualClock
from arzbench.commands import doctor
from arzbench.measure.host import host_info
from arzbench.quota import Surroundings
from tests import worlds
from tests.calls import call, listing, refused
from tests.processes import TRAINING_PACKAGES, loaded


def around(environ: dict[str, str]) -> Surroundings:
    now = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    return Surroundings(environ=environ, now=now, uptime_s=600.0, gpu=None, ask=lambda command: None)


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matter where the tests run, commands see a machine without a platform."""
    monkeypatch.setattr(limits, "surroundings", lambda clock: around({}))


def findings(folder: Path, flags: str = "") -> dict[str, dict[str, Any]]:
    told = call(f"doctor --json {flags}", folder)
    assert told.code in (0, None), told.err
    return {f["what"]: f for f in json.loads(told.out)}


def test_it_says_what_is_here_and_writes_nothing(tmp_path: Path) -> None:
    found = findings(tmp_path)
    assert found["numpy"]["found"] == importlib.metadata.version("numpy")
    assert host_info().cpu in found["host"]["found"]
    assert f"{host_info().cores} usable cores" in found["threads"]["found"]
    assert "can be written" in found["reports/"]["found"]
    assert "incident-p100" in found["imported"]["found"]
    told = call("doctor", tmp_path)
    assert told.code in (0, None)
    assert "none of this machine" in told.out
    assert "measure: arzbench calibrate" in told.out
    assert listing(tmp_path) == {}


def test_a_package_that_is_missing_is_said_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.PACKAGES, "no-such-package", "everything")
    found = findings(tmp_path)["no-such-package"]
    assert (found["missing"], found["found"]) == (True, "not installed")
    assert 'pip install "arzbench[train]"' in found["fix"]


@pytest.mark.parametrize(
    ("device", "version", "found", "missing"),
    [
        ("cpu", None, "not installed; only a GPU needs it", False),
        ("cpu", "0.30.0", "0.30.0", False),
        ("Tesla T4", None, "not installed", True),
        ("Tesla T4", "0.30.0", "0.30.0", False),
    ],
)
def test_numba_cuda_is_missing_only_beside_a_gpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    version: str | None,
    found: str,
    missing: bool,
) -> None:
    here, versions = msgspec.structs.replace(host_info(), device=device), importlib.metadata.version

    def lookup(name: str) -> str:
        if name != "numba-cuda":
            return versions(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(doctor, "host_info", lambda _: here)
    monkeypatch.setattr(importlib.metadata, "version", lookup)
    told = findings(tmp_path)
    assert told["GPU"]["found"] == (device if device != "cpu" else "none (by nvidia-smi)")
    assert (told["numba-cuda"]["found"], told["numba-cuda"]["missing"]) == (found, missing)
    assert ('pip install "arzbench[cuda]"' in told["numba-cuda"]["fix"]) == missing


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert findings(tmp_path)["reports/"]["missing"]


def test_a_file_where_a_folder_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("")
    found = findings(tmp_path)
    assert found["reports/"]["missing"]
    assert "--dir" in found["reports/"]["fix"]
    assert not found["profiles/"]["missing"]


def test_calibrations_are_shown_with_their_age(tmp_path: Path) -> None:
    clock = VirtualClock()  # it starts on 1 January 2026
    job = worlds.study(worlds.config())
    for created, machine in (
        ("20251230T000000Z", host_info()),
        ("20251110T000000Z", host_info()),
        ("20251231T000000Z", worlds.HOST),
    ):
        profiles.save_calibration(tmp_path, worlds.calibration(job, created=created, host=machine))
    (tmp_path / "profiles/calibrations/broken").mkdir()
    (tmp_path / "profiles/calibrations/broken/x.json").write_text("{")
    found = list(doctor.examine(tmp_path, clock, with_torch=False))
    own = [f for f in found if f.what == "calibration"]
    by_name = {f.found.split(",")[0]: f for f in own}
    assert by_name["job-20251230T000000Z"].found.endswith("2 d 00 h old")
    assert not by_name["job-20251230T000000Z"].missing
    old = by_name["job-20251110T000000Z"]
    assert old.missing
    assert "older than 30 days" in old.found
    assert "arzbench calibrate" in old.fix
    assert sum("not valid JSON" in f.found for f in own) == 1
    (others,) = [f for f in found if f.what == "of other machines"]
    assert others.found.startswith("1 (")


def test_the_platform_and_the_quota_are_those_of_quota_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(tmp_path)["platform"]["found"] == "local"
    assert "nothing tells of a limit" in findings(tmp_path)["quota"]["found"]
    monkeypatch.setattr(limits, "surroundings", lambda clock: around({"COLAB_GPU": "0"}))
    found = findings(tmp_path)
    assert found["platform"]["found"] == "colab-free"
    assert found["quota"]["found"].startswith("11 h 50 min left: Colab by COLAB_GPU")
    monkeypatch.setattr(limits, "surroundings", lambda clock: around({"SLURM_JOB_ID": "9"}))
    assert "when job 9 ends" in findings(tmp_path)["quota"]["found"]


def test_torch_is_imported_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules, done = loaded("run", "doctor", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not modules & TRAINING_PACKAGES
    assert "torch says" not in done.stdout
    monkeypatch.setitem(sys.modules, "torch", None)
    found = findings(tmp_path, "--torch")["torch says"]
    assert found["missing"]
    assert "import of torch" in found["found"]


# ---------------------------------------------------------------- arzbench quota


def test_the_week_is_shown_and_booked(tmp_path: Path) -> None:
    everything = json.loads(call("quota --json", tmp_path).out)
    assert {p["platform"] for p in everything} == {"kaggle-p100", "kaggle-t4x2"}
    assert {(p["used_s"], p["left_s"], p["reset"]) for p in everything} == {(0.0, 108_000.0, None)}
    assert listing(tmp_path) == {}
    (booked,) = json.loads(call("quota --platform kaggle-p100 --add 5h --json", tmp_path).out)
    assert (booked["used_s"], booked["reserved_s"], booked["left_s"]) == (18_000, 0, 90_000)
    assert booked["reset"] is not None
    said = call("quota", tmp_path).out
    assert "25 h 00 min" in said
    assert "30 h 00 min" in said


def test_sessions_that_run_are_reserved(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    quota.book(quota.ledger_path(tmp_path, "kaggle-p100"), "begin", "a", now, 43_200)
    (shown,) = json.loads(call("quota --platform kaggle-p100 --json", tmp_path).out)
    assert (shown["used_s"], shown["reserved_s"], shown["left_s"]) == (0, 43_200, 64_800)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--platform local", "local has no weekly limit"),
        ("--add 3h", "--add books hours of a platform"),
        ("--platform kaggle-p100 --add soon", "'soon' is not a duration"),
        ("--platform kagle", "unknown platform"),
    ],
)
def test_what_cannot_be_booked_is_refused(flags: str, said: str, tmp_path: Path) -> None:
    refused(f"quota {flags}", tmp_path, said)

"""Looking things up: the working folder first, the reason whenever something is passed over."""

import contextlib
import datetime
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arzbench import profiles
from arzbench.errors import UsageError
from arzbench.predict.spread import PastRun
from arzbench.records import HostInfo
from arzbench.study_file import load_study
from tests import worlds

ROOT = Path(__file__).resolve().parent.parent
PLATFORM = (
    'schema = "arzbench/platform"\nversion = 1\ntitle = "Mine"\nsource = "me"\nchecked = "2026-01-01"\n'
)
STUDY = (
    'schema = "arzbench/study"\nversion = 1\nname = "mine"\nenv = "A-v0"\nalgo = "ppo"\ntotal_timesteps = 9\n'
)
JOB = worlds.study(worlds.config())
OTHER = worlds.study(worlds.config(env="Another-v0"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def host(**changes: Any) -> HostInfo:
    return msgspec.structs.replace(worlds.HOST, **changes)


# ---------------------------------------------------------------- studies and platforms


def test_shipped_ones_are_found_from_an_empty_folder(tmp_path: Path) -> None:
    assert profiles.find_study(tmp_path, "incident").total_timesteps == 44_000
    platform = profiles.find_platform(tmp_path, "kaggle-p100")
    assert (platform.name, platform.session_s, platform.fresh_machine) == ("kaggle-p100", 43_200, True)
    assert {"incident", "cartpole-ppo"} <= set(profiles.names(tmp_path, "studies"))


def test_every_shipped_platform_says_where_its_limits_are_from(tmp_path: Path) -> None:
    shipped = profiles.names(tmp_path, "platforms")
    assert {"local", "kaggle-cpu", "kaggle-p100", "kaggle-tpu", "colab-free", "slurm-example"} <= set(shipped)
    for name in shipped:
        platform = profiles.find_platform(tmp_path, name)
        assert platform.name == name
        assert len(platform.source) > 20
        assert len(platform.checked.split("-")) == 3
    assert profiles.find_platform(tmp_path, "local").session_s is None
    assert profiles.find_platform(tmp_path, "kaggle-tpu").session_s == 9 * 3600


def test_the_working_folder_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "profiles/platforms/local.toml", PLATFORM)
    assert profiles.find_platform(tmp_path, "local").title == "Mine"
    write(tmp_path / "profiles/studies/incident.toml", STUDY)
    assert profiles.find_study(tmp_path, "incident").name == "mine"


def test_a_file_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "here" / "own.toml", STUDY)
    assert profiles.find_study(tmp_path, str(path)) == load_study(path)
    assert profiles.find_study(tmp_path, "here/own.toml") == load_study(path)  # below --dir
    monkeypatch.chdir(tmp_path / "here")
    assert profiles.find_study(tmp_path, "own.toml") == load_study(path)  # where the shell is


def test_an_unknown_name_lists_the_valid_ones(tmp_path: Path) -> None:
    write(tmp_path / "profiles/platforms/my-cluster.toml", PLATFORM)
    with pytest.raises(UsageError, match="unknown platform 'kagle-p100'") as caught:
        profiles.find_platform(tmp_path, "kagle-p100")
    assert "did you mean 'kaggle-p100'?" in caught.value.hint
    assert "my-cluster" in caught.value.hint
    assert ".toml" in caught.value.hint
    with pytest.raises(UsageError, match="unknown study 'inciden'"):
        profiles.find_study(tmp_path, "inciden")
    with pytest.raises(UsageError, match=r"no study file 'none\.toml'") as caught:
        profiles.find_study(tmp_path, "none.toml")
    assert "incident" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema = ", "not valid TOML"),
        (PLATFORM.replace("version = 1", "version = 99"), "reads up to 1"),
        (PLATFORM + 'session_s = "12h"\n', "session_s"),
        (PLATFORM + "sesion_s = 3\n", "unknown field `sesion_s`"),
        (PLATFORM + "session_s = -5\n", "session_s"),
        (PLATFORM + "session_s = nan\n", "session_s"),
        (PLATFORM.replace('source = "me"\n', ""), "source"),
        (STUDY, "not a 'arzbench/platform' file"),
    ],
)
def test_a_broken_platform_is_one_error_that_names_the_file(text: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "broken.toml", text)
    with pytest.raises(UsageError) as caught:
        profiles.find_platform(tmp_path, str(path))
    assert str(path) in caught.value.message
    assert said in caught.value.message


# ---------------------------------------------------------------- calibrations


def newest(working: Path, *, here: HostInfo = worlds.HOST, study: Any = JOB, **how: Any) -> str:
    return profiles.newest_calibration(working, here, study, **{"allow_foreign": False, **how})[1].id


def keep(working: Path, created: str, *, study: Any = JOB, **changes: Any) -> Path:
    return profiles.save_calibration(
        working, worlds.calibration(study, created=created, host=host(**changes))
    )


def test_what_was_saved_is_found(tmp_path: Path) -> None:
    path = keep(tmp_path, "20260101T000000Z")
    assert path == tmp_path / "profiles/calibrations/lab-1/job-20260101T000000Z.json"
    found = profiles.newest_calibration(tmp_path, worlds.HOST, JOB, allow_foreign=False)
    assert found == (path, profiles.load_calibration(path))


def test_the_newest_is_the_one_made_last_not_copied_last(tmp_path: Path) -> None:
    for created in ("20260103T000000Z", "20260105T000000Z", "20260104T000000Z"):
        path = keep(tmp_path, created)
        os.utime(path, (0, 0) if created == "20260105T000000Z" else None)
    assert newest(tmp_path) == "job-20260105T000000Z"


def test_the_newest_of_another_workload_is_passed_over(tmp_path: Path) -> None:
    keep(tmp_path, "20260101T000000Z")
    keep(tmp_path, "20260102T000000Z", study=OTHER)
    assert newest(tmp_path) == "job-20260101T000000Z"
    assert newest(tmp_path, study=OTHER) == "job-20260102T000000Z"
    assert newest(tmp_path, study=None) == "job-20260102T000000Z"


def test_another_workload_is_refused_with_the_reason_and_the_command(tmp_path: Path) -> None:
    keep(tmp_path, "20260102T000000Z", study=OTHER)
    with pytest.raises(UsageError, match="no fitting calibration of study 'job' on this host") as caught:
        newest(tmp_path)
    assert "job-20260102T000000Z: another workload than t" in caught.value.hint
    assert "measure it: arzbench calibrate with the same --env" in caught.value.hint
    assert "--allow-foreign" not in caught.value.hint  # it would not help
    shipped = profiles.find_study(tmp_path, "incident")
    with pytest.raises(UsageError) as caught:
        newest(tmp_path, study=shipped)
    assert "measure it: arzbench calibrate --study incident" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [({"name": "lab-2"}, "name 'lab-2'"), ({"cpu": "Other"}, "cpu 'Other'"), ({"cores": 2}, "cores 2"),
     ({"device": "P100"}, "device 'P100'"), ({"torch_threads": 4}, "torch_threads 4")],
)  # fmt: skip
def test_another_host_is_refused_with_the_reason_unless_allowed(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    keep(tmp_path, "20260102T000000Z", **change)
    with pytest.raises(UsageError, match="no fitting calibration") as caught:
        newest(tmp_path)
    assert f"another host ({said})" in caught.value.hint
    assert "--allow-foreign" in caught.value.hint
    assert newest(tmp_path, allow_foreign=True) == "job-20260102T000000Z"


def test_this_hosts_own_is_preferred_to_a_newer_foreign_one(tmp_path: Path) -> None:
    keep(tmp_path, "20260101T000000Z")
    keep(tmp_path, "20260109T000000Z", name="lab-2")
    assert newest(tmp_path, allow_foreign=True) == "job-20260101T000000Z"


def test_allowing_another_host_does_not_allow_another_workload(tmp_path: Path) -> None:
    keep(tmp_path, "20260109T000000Z", name="lab-2", study=OTHER)
    with pytest.raises(UsageError) as caught:
        newest(tmp_path, allow_foreign=True)
    assert "another workload" in caught.value.hint
    assert "--allow-foreign" not in caught.value.hint


def test_for_no_study_in_particular_threads_and_device_do_not_matter(tmp_path: Path) -> None:
    keep(tmp_path, "20260102T000000Z", torch_threads=4)
    assert newest(tmp_path, study=None) == "job-20260102T000000Z"
    with pytest.raises(UsageError, match="on this host"):
        newest(tmp_path, study=None, here=host(cpu="Other"))


def test_none_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no fitting calibration on this host") as caught:
        newest(tmp_path, study=None)
    assert caught.value.hint == "measure it: arzbench calibrate"


def test_an_unreadable_calibration_hides_no_other(tmp_path: Path) -> None:
    keep(tmp_path, "20260101T000000Z")
    broken = keep(tmp_path, "20260102T000000Z")
    broken.write_bytes(broken.read_bytes()[:100])
    assert newest(tmp_path) == "job-20260101T000000Z"
    with pytest.raises(UsageError) as caught:
        newest(tmp_path, study=OTHER)
    assert f"{broken}: not valid JSON" in caught.value.hint


# ---------------------------------------------------------------- age

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(("created", "trusted"), [("20260130T000000Z", True), ("20260129T235959Z", False)])
def test_a_calibration_is_trusted_for_thirty_days(created: str, trusted: bool, tmp_path: Path) -> None:
    path = keep(tmp_path, created)
    assert profiles.age_days(profiles.load_calibration(path), NOW) == pytest.approx(30, abs=1e-4)
    with contextlib.nullcontext() if trusted else pytest.raises(UsageError, match="no fitting calibration"):
        assert newest(tmp_path, now=NOW) == f"job-{created}"


def test_an_expired_one_is_refused_with_the_reason_and_the_fix(tmp_path: Path) -> None:
    keep(tmp_path, "20260101T000000Z")
    with pytest.raises(UsageError) as caught:
        newest(tmp_path, now=NOW)
    assert "expired (made 59 days ago; calibrations are trusted for 30 days)" in caught.value.hint
    assert "measure it: arzbench calibrate" in caught.value.hint
    assert "--allow-expired" in caught.value.hint
    assert newest(tmp_path) == "job-20260101T000000Z"  # asked for without a date


def test_expiry_is_not_offered_where_it_would_not_help(tmp_path: Path) -> None:
    keep(tmp_path, "20260101T000000Z", study=OTHER)
    keep(tmp_path, "20260102T000000Z", name="lab-2")
    with pytest.raises(UsageError) as caught:
        newest(tmp_path, now=NOW)
    assert "--allow-expired" not in caught.value.hint
    with pytest.raises(UsageError) as caught:
        newest(tmp_path, allow_foreign=True, now=NOW)
    assert "--allow-expired" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "why"), [({"created": "some day"}, "its date cannot be read"), ({"imported": "a log"}, "")]
)
def test_a_date_that_cannot_be_read_is_old_and_what_was_imported_does_not_expire(
    changes: dict[str, str], why: str
) -> None:
    old = worlds.calibration(JOB, created="20200101T000000Z")
    record = msgspec.structs.replace(old, **changes)
    assert why in profiles.expired(record, NOW)
    assert bool(profiles.expired(record, NOW)) is bool(why)


# ---------------------------------------------------------------- past predictions


def said(run_id: str, predicted_s: float, actual_s: float, **more: Any) -> profiles.Prediction:
    return profiles.Prediction(
        run_id=run_id, at="2026", predicted_p50_s=predicted_s, actual_s=actual_s, **more
    )


def test_past_runs_are_those_of_this_host_oldest_first(tmp_path: Path) -> None:
    assert profiles.past_runs(tmp_path, worlds.HOST) == []
    more = {"training": "t", "calibration": "c", "predicted_p90_s": 100.0}
    for run, actual in enumerate((90.0, 110.0)):
        profiles.record_prediction(tmp_path, worlds.HOST, said(f"r{run}", 100.0, actual, **more))
    expected = [PastRun(0.9, "t", "c", True), PastRun(1.1, "t", "c", False)]
    assert profiles.past_runs(tmp_path, worlds.HOST) == expected
    assert profiles.past_runs(tmp_path, host(name="lab-2")) == []
    # what a prediction had learned is not learned again; without its training a run is like no other
    profiles.record_prediction(tmp_path, worlds.HOST, said("old", 120.0, 120.0, learned=1.2))
    assert profiles.past_runs(tmp_path, worlds.HOST)[-1] == PastRun(pytest.approx(1.2), "old", "old")


@pytest.mark.parametrize("times", [(0.0, 5.0), (5.0, 0.0)])
def test_a_ratio_without_a_logarithm_is_left_out(times: tuple[float, float], tmp_path: Path) -> None:
    profiles.record_prediction(tmp_path, worlds.HOST, said("r", *times))
    assert profiles.past_runs(tmp_path, worlds.HOST) == []


def test_the_ledger_of_predictions_is_no_calibration(tmp_path: Path) -> None:
    keep(tmp_path, "20260101T000000Z")
    record = profiles.Prediction(run_id="r", at="2026", predicted_p50_s=1.0, actual_s=1.0)
    profiles.record_prediction(tmp_path, worlds.HOST, record)
    assert newest(tmp_path) == "job-20260101T000000Z"

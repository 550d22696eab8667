"""What is left: of a session where the platform tells, of a week by the ledger."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from arzbench import limits, quota
from arzbench.clock import VirtualClock
from arzbench.commands.run import run
from arzbench.errors import UsageError
from arzbench.measure import host
from arzbench.profiles import find_platform
from arzbench.quota import Detected, Surroundings
from arzbench.sb3.workload import SB3Workload
from arzbench.wiring import session
from tests.calls import CARTPOLE, calibrated, call, refused

NOW = datetime.datetime(2026, 3, 11, 12, tzinfo=datetime.UTC)
SCONTROL = (
    "JobId=77 JobName=train\n   JobState=RUNNING Reason=None\n"
    "   RunTime={run} TimeLimit={limit} TimeMin=N/A\n   StartTime=2026-03-11T10:00:00 EndTime=Unknown\n"
)
SHOWN = SCONTROL.format(limit="1-00:00:00", run="02:00:00")
END = str(int(NOW.timestamp()) + 5400)


def here(
    environ: dict[str, str] | None = None,
    *,
    uptime_s: float | None = 3600.0,
    gpu: str | None = None,
    answers: dict[str, str] | None = None,
) -> Surroundings:
    def ask(command: Sequence[str]) -> str | None:
        return (answers or {}).get(command[0])

    return Surroundings(environ=environ or {}, now=NOW, uptime_s=uptime_s, gpu=gpu, ask=ask)


def left(around: Surroundings, platform: str = "local") -> tuple[float, str]:
    found = quota.detect(around)
    name = found.platform if found is not None and found.platform else platform
    return quota.session_left(found, find_platform(Path(), name), around)


# ---------------------------------------------------------------- this session


@pytest.mark.parametrize(
    ("environ", "answers", "seconds", "how"),
    [
        ({"SLURM_JOB_END_TIME": END}, {"scontrol": "nonsense"}, 5400, "SLURM_JOB_END_TIME"),
        ({}, {"scontrol": SHOWN}, 79_200, "scontrol: TimeLimit - RunTime"),
        ({}, {"squeue": "1:30:00\n"}, 5400, "squeue: time left"),
    ],
)
def test_slurm_is_asked_for_the_end_of_the_job(
    environ: dict[str, str], answers: dict[str, str], seconds: float, how: str
) -> None:
    around = here({"SLURM_JOB_ID": "77", **environ}, answers=answers)
    assert left(around) == (seconds, f"Slurm job 77 by {how}")


@pytest.mark.parametrize(
    ("limit", "squeue", "said"),
    [("UNLIMITED", "UNLIMITED\n", "(TimeLimit=UNLIMITED)"), (None, "INVALID", "when job 77 ends")],
)
def test_a_job_without_a_known_end_is_refused(limit: str | None, squeue: str, said: str) -> None:
    answers = {"squeue": squeue}
    if limit is not None:
        answers["scontrol"] = SCONTROL.format(limit=limit, run="00:10:00")
    with pytest.raises(UsageError, match="--quota auto: neither") as caught:
        quota.detect(here({"SLURM_JOB_ID": "77"}, answers=answers))
    assert said in caught.value.message
    assert "--quota 12h" in caught.value.hint


@pytest.mark.parametrize(
    ("environ", "gpu", "platform"),
    [
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "Tesla P100-PCIE-16GB", "kaggle-p100"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, "Tesla T4", "kaggle-t4x2"),
        ({"KAGGLE_CONTAINER_NAME": "x"}, None, "kaggle-cpu"),
        ({"KAGGLE_CONTAINER_NAME": "x", "TPU_NAME": "local"}, None, "kaggle-tpu"),
        ({"COLAB_RELEASE_TAG": "release-colab"}, None, "colab-free"),
        ({"COLAB_GPU": "0"}, "Tesla T4", "colab-free"),
    ],
)
def test_notebooks_are_known_by_their_environment(
    environ: dict[str, str], gpu: str | None, platform: str
) -> None:
    around = here(environ, gpu=gpu)
    found = quota.detect(around)
    assert found.platform == platform
    limit = find_platform(Path(), platform).session_s
    seconds, how = left(around)
    assert seconds == limit - 3600
    assert next(iter(environ)) in how
    assert "less the machine's uptime of 60 min 00 s" in how or "uptime of 1 h 00 min" in how


def test_nothing_is_guessed() -> None:
    assert quota.detect(here()) is None
    with pytest.raises(UsageError, match="nothing tells of a limit here"):
        left(here())
    with pytest.raises(UsageError, match="gives no uptime"):
        left(here({"COLAB_GPU": "0"}, uptime_s=None))
    with pytest.raises(UsageError, match="local has no session limit"):
        quota.session_left(
            Detected(platform="", left_s=None, how="x"), find_platform(Path(), "local"), here()
        )
    for around in (
        here({"COLAB_GPU": "0"}, uptime_s=43_200.0),
        here({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(NOW.timestamp()))}),
    ):
        with pytest.raises(UsageError, match="nothing is left"):
            left(around)


def test_a_command_that_is_not_there_tells_nothing() -> None:
    assert host.ask_system(["no-such-command-of-arzbench"]) is None
    assert host.ask_system(["false"]) is None
    assert host.ask_system(["echo", "x"]) == "x\n"


# ---------------------------------------------------------------- on the command line


def in_notebook(monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    around = here({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, gpu="Tesla P100-PCIE-16GB", **how)
    monkeypatch.setattr(limits, "surroundings", lambda clock: around)


def test_plan_says_how_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(tmp_path)
    in_notebook(monkeypatch)
    made = json.loads(call(f"plan {CARTPOLE} --quota auto --json", tmp_path).out)
    assert (made["platform"]["name"], made["quota_s"]) == ("kaggle-p100", 39_600.0)
    assert made["warnings"][0].startswith("quota: 11 h 00 min left: Kaggle by KAGGLE_KERNEL_RUN_TYPE")
    assert "--quota auto" in made["options"][0]["command"]


def test_the_week_may_hold_less_than_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(tmp_path)
    in_notebook(monkeypatch)
    quota.add(quota.ledger_path(tmp_path, "kaggle-p100"), "a", NOW, 25 * 3600.0)
    made = json.loads(call(f"plan {CARTPOLE} --quota auto --json", tmp_path).out)
    assert made["quota_s"] == 5 * 3600.0
    assert "left of the week" in made["warnings"][0]
    quota.add(quota.ledger_path(tmp_path, "kaggle-p100"), "b", NOW, 5 * 3600.0)
    refused(f"plan {CARTPOLE} --quota auto", tmp_path, "nothing is left of the week on kaggle-p100")


def test_platforms_are_compared_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    calibrated(tmp_path)
    told = call(f"plan {CARTPOLE} --platform kaggle-p100,colab-free,local,kaggle-p100", tmp_path)
    assert told.code == 0, told.err
    rows = [line.split()[0] for line in told.out.splitlines() if " min " in line]
    assert rows == ["kaggle-p100", "colab-free", "local"]
    plans = json.loads(call(f"plan {CARTPOLE} --platform kaggle-p100,local --quota 60s --json", tmp_path).out)
    assert [(p["platform"]["name"], p["quota_s"]) for p in plans] == [("kaggle-p100", 60), ("local", 60)]
    assert not (tmp_path / "reports").exists()
    short = call(f"plan {CARTPOLE} --platform kaggle-p100,local --quota 1s", tmp_path)
    assert short.code == 0
    assert short.out.count("too short") == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--platform local,kagle-p100", "did you mean 'kaggle-p100'?"),
        ("--platform local,kaggle-p100 --quota auto", "--quota auto is of one platform"),
        ("--platform local,kaggle-p100 --output x.json", "--output keeps one plan"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(flags: str, said: str, tmp_path: Path) -> None:
    calibrated(tmp_path)
    refused(f"plan {CARTPOLE} {flags}", tmp_path, said)


# ---------------------------------------------------------------- the week


def hours(number: float) -> datetime.timedelta:
    return datetime.timedelta(hours=number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return quota.ledger_path(tmp_path, "kaggle-p100")


def test_a_running_session_reserves_its_whole_limit_and_gives_back_what_it_did_not_use(path: Path) -> None:
    empty = quota.week(path, 108_000, NOW)
    assert (empty.used_s, empty.reserved_s, empty.left_s, empty.reset) == (0, 0, 108_000, None)
    quota.book(path, "begin", "a", NOW - hours(2), 43_200)
    running = quota.week(path, 108_000, NOW)
    assert (running.used_s, running.reserved_s, running.left_s) == (0, 43_200, 64_800)
    quota.book(path, "end", "a", NOW, 7200)
    ended = quota.week(path, 108_000, NOW)
    assert (ended.used_s, ended.reserved_s, ended.left_s) == (7200, 0, 100_800)
    assert ended.reset == NOW + hours(7 * 24)
    quota.book(path, "begin", "never ended", NOW - hours(13), 43_200)
    past = quota.week(path, 108_000, NOW)
    assert (past.used_s, past.reserved_s) == (50_400, 0)


@pytest.mark.parametrize(("ago", "counted"), [(6 * 24, 10), (7 * 24, 10), (7 * 24 + 4, 6), (7 * 24 + 10, 0)])
def test_what_is_older_than_a_week_counts_no_more(ago: float, counted: float, path: Path) -> None:
    quota.book(path, "begin", "a", NOW - hours(ago), 43_200)
    quota.book(path, "end", "a", NOW - hours(ago - 10), 36_000)
    found = quota.week(path, 108_000, NOW)
    assert found.used_s == counted * 3600
    assert found.sessions == bool(counted)


def test_sessions_add_up_and_never_below_nothing(path: Path) -> None:
    for number in range(4):
        quota.add(path, str(number), NOW - hours(10 * number), 36_000)
    found = quota.week(path, 108_000, NOW)
    assert (found.used_s, found.left_s, found.sessions) == (144_000, 0, 4)


@pytest.mark.parametrize("fails", [False, True])
def test_a_session_is_booked_from_its_start_however_it_ends(fails: bool, path: Path) -> None:
    clock = VirtualClock(1000.0)
    inside = []
    try:
        with quota.reserved(path, "a", clock, started=990.0, limit_s=43_200):
            inside.append(quota.week(path, 108_000, clock.wall()))
            clock.advance(600)
            if fails:
                raise OSError
    except OSError:
        assert fails
    assert inside[0].reserved_s == 43_200
    assert quota.week(path, 108_000, clock.wall()).used_s == 610
    first, last = path.read_text().splitlines()
    assert json.loads(first) == {
        "kind": "begin",
        "session": "a",
        "at": "2026-01-01T00:16:30+00:00",
        "seconds": 43200,
    }
    assert json.loads(last)["kind"] == "end"


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize(("platform", "booked"), [("kaggle-p100", True), ("kaggle-cpu", False)])
def test_a_run_is_booked_where_the_week_has_a_limit(
    platform: str, booked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quota.ledger_path(tmp_path, platform)
    seen: list[list[str]] = []

    def carry_out(*_: object) -> None:
        seen.append(path.read_text().splitlines() if path.exists() else [])
        raise RuntimeError("the session fails")

    monkeypatch.setattr(session, "open_job", carry_out)
    monkeypatch.setattr(SB3Workload, "check", lambda *_: None)
    with pytest.raises(RuntimeError, match="the session fails"):
        run(env="CartPole-v1", algo="ppo", timesteps=2048, quota="1h", platform=platform, folder=tmp_path)
    assert path.exists() is booked
    if booked:
        (begin,) = seen[0]  # a whole session of the platform is held, not the quota asked for
        assert (json.loads(begin)["kind"], json.loads(begin)["seconds"]) == ("begin", 43_200)
        _, end = path.read_text().splitlines()
        assert json.loads(end)["kind"] == "end"
        assert json.loads(end)["seconds"] < 43_200

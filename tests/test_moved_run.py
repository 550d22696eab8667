"""A run that goes from machine to machine by its URL takes its budget and its sessions with it."""

import json
import shutil
from pathlib import Path

from arzbench.saves.remote import Remote
from tests.calls import call
from tests.test_road import arzbench, ledger
from tests.test_run_command import SMALL, budgets


def test_a_grown_budget_and_the_sessions_used_travel(tmp_path: Path) -> None:
    machines = [tmp_path / str(number) for number in range(3)]
    for machine in machines:
        machine.mkdir()
    url = (tmp_path / "there").as_uri()
    first = arzbench(f"run {SMALL} --timesteps 128 --checkpoints {url}", machines[0])
    assert first.code == 0, first.out
    run = ledger(machines[0])[0]["data"]["run"]
    grown = arzbench(f"run --checkpoints {url} --timesteps 256 --extend", machines[1])
    assert grown.code == 0, grown.out
    assert "256 of 256 steps" in grown.out
    shutil.rmtree(machines[1])  # what is known of it is at the URL

    # killed before its first save: its session was begun, too
    begun = json.loads((tmp_path / "there" / "session.json").read_text()) | {"sessions": 3, "token": "k"}
    (tmp_path / "there" / "session.json").write_text(json.dumps(begun))
    for machine in (machines[2], machines[0]):  # an empty folder, and one that knows less
        used = call(f"run --checkpoints {url} --max-sessions 3", machine)
        assert used.code == 5, used.err
        assert f"run {run} has had its 3 sessions" in used.err
    found = Remote(url).session()
    assert found is not None
    assert found.token == "k"  # who may not begin takes nothing over
    kept = arzbench(f"run --checkpoints {url}", machines[0])
    assert kept.code == 0, kept.out
    assert "256 of 256 steps" in kept.out
    assert budgets(machines[0]) == [[128], [256]]
    assert [e["session"] for e in ledger(machines[0]) if e["kind"] == "session"] == [1, 4]


def test_a_session_there_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    url = (tmp_path / "there").as_uri()
    assert arzbench(f"run {SMALL} --timesteps 64 --checkpoints {url}", tmp_path).code == 0
    path = tmp_path / "there" / "session.json"
    for wrong in (
        {"budgets": [1, 2]},
        {"budgets": [-5]},
        {"sessions": -1},
        {"budgets": "x"},
        {"version": 99},
    ):
        content = path.read_bytes()
        path.write_text(json.dumps(json.loads(content) | wrong))
        ended = call(f"run --checkpoints {url}", tmp_path)
        assert ended.code == 2, ended.out
        assert "session.json" in ended.err
        path.write_bytes(content)

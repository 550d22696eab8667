"""Checkpoints at a URL: uploaded beside the training, never torn, never in the training's way."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from arzbench import store
from arzbench.clock import VirtualClock
from arzbench.digest import digest
from arzbench.errors import UsageError
from arzbench.facts import StopReason
from arzbench.run.job import run_job
from arzbench.run.simulated import SyntheticWorkload
from arzbench.saves.read import UnsoundError, verify
from arzbench.saves.remote import Remote, all_manifests
from arzbench.saves.uploads import Uploads
from tests.calls import call
from tests.run.jobs import COSTS, Recorded, dqn, fingerprints, request, run, study
from tests.saves.s3 import environment, serving
from tests.saves.states import (
    filled,
    header,
    names,
    newest,
    opened,
    remote_names,
    run_record,
    save_rows,
    state,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("forgetful")
URL = "s3://bucket/run-1"


@pytest.mark.parametrize("kind", ["s3", "file", "memory"])
def test_what_was_uploaded_comes_back_whole(tmp_path: Path, url: str, kind: str) -> None:
    url = {"s3": url, "file": f"file://{tmp_path}/there", "memory": f"memory://{tmp_path.name}"}[kind]
    remote = Remote(url)
    remote.check()
    assert remote.names() == []
    checkpoints = filled(tmp_path / "here", 3)
    for path in checkpoints.paths():
        remote.upload(path)
    assert remote_names(remote) == ["0002", "0003"]
    assert [(name[-4:], why) for name, _, why in all_manifests(remote)] == [("0002", ""), ("0003", "")]
    said = Remote(url).fetch("study-1", tmp_path / "back")
    assert len(said) == 1
    assert newest(tmp_path / "back").load().values == {"step": 3}
    verify(tmp_path / "back" / names(tmp_path / "back")[0], newest(tmp_path / "back").manifest)
    assert Remote(url).fetch("study-1", tmp_path / "back") == []


def test_a_part_is_sent_once_and_removed_with_the_last_that_names_it(tmp_path: Path, url: str) -> None:
    checkpoints = opened(tmp_path / "here")
    remote = Remote(url)
    sent: list[str] = []
    put = remote._fs.put_file
    remote._fs.put_file = lambda source, target: (sent.append(Path(source).name), put(source, target))
    try:
        for total in (30_000, 60_000, 90_000, 120_000):
            remote.upload(save_rows(checkpoints, total, capacity=1_000_000).path)
            remote.upload(checkpoints.paths()[-1])
    finally:
        del remote._fs.put_file
    segments = [name for name in sent if name.startswith("rows-")]
    assert len(segments) == len(set(segments)) > 4
    named = {p.sha256 for n in remote.names() for p in remote.manifest(n).parts}
    stored = {path.rpartition("/")[2] for path in remote._fs.ls(f"{url}/parts", detail=False, refresh=True)}
    assert stored == named


def test_the_best_stays_at_the_url(tmp_path: Path, url: str) -> None:
    checkpoints, remote = opened(tmp_path / "here"), Remote(url)
    for step in range(1, 6):
        saved = checkpoints.save(state(step), header(step, is_best=step in (1, 2), best=(float(step), step)))
        remote.upload(saved.path)
    assert remote_names(remote) == ["0002", "0004", "0005"]
    Remote(url).fetch("study-1", tmp_path / "back")
    assert [name[-4:] for name in names(tmp_path / "back")] == ["0002", "0005"]


def test_what_an_evaluation_may_make_the_best_stays_at_the_url(tmp_path: Path, url: str) -> None:
    checkpoints, remote = opened(tmp_path / "here"), Remote(url)
    known: list[dict[str, Any]] = [
        {"best": (1.0, 1), "is_best": True},
        *[{"best": (1.0, 1), "awaits": 2}] * 4,
    ]
    for step, more in enumerate(known, 1):
        remote.upload(checkpoints.save(state(step), header(step, **more)).path)
    assert remote_names(remote) == ["0001", "0002", "0004", "0005"]
    Remote(url).fetch("study-1", tmp_path / "back")
    assert [name[-4:] for name in names(tmp_path / "back")] == ["0001", "0002", "0005"]
    remote.upload(checkpoints.save(state(6), header(6, best=(2.0, 2))).path)
    assert remote_names(remote) == ["0002", "0005", "0006"]


# Damage there.


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_what_is_torn_or_changed_there_is_never_chosen(tmp_path: Path, url: str, damage: str) -> None:
    remote = Remote(url)
    for path in filled(tmp_path / "here", 2).paths():
        remote.upload(path)
    last = remote.names()[-1]
    first, second = (remote.manifest(name).parts for name in remote.names())
    victim = next(f"{url}/parts/{part.sha256}" for part in second if part not in first)
    content = bytearray(remote._fs.cat_file(victim))
    if damage == "truncate":
        remote._fs.pipe_file(victim, bytes(content[:-1]))
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        remote._fs.pipe_file(victim, bytes(content))
    elif damage == "remove":
        remote._fs.rm_file(victim)
    else:
        text = remote._fs.cat_file(f"{url}/{last}.json")
        remote._fs.pipe_file(f"{url}/{last}.json", text[: len(text) // 2])
    said = Remote(url).fetch("study-1", tmp_path / "back")
    assert any(line.startswith("passed over") for line in said)
    assert newest(tmp_path / "back").load().values == {"step": 1}
    assert not list((tmp_path / "back").glob(".*"))
    with pytest.raises(UnsoundError):
        Remote(url).download(last, tmp_path / "alone")
    again = Remote(url)  # the next upload mends it
    again.upload(opened(tmp_path / "here").paths()[-1])
    again.download(last, tmp_path / "mended")


def test_a_manifest_there_cannot_name_other_files(tmp_path: Path) -> None:
    remote = Remote(f"file://{tmp_path}/there")
    remote.upload(filled(tmp_path / "here", 1).paths()[0])
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    (name,) = remote.names()
    text = json.loads((tmp_path / "there" / f"{name}.json").read_text())
    text["parts"][0] |= {"sha256": "../../secret", "bytes": 1}
    (tmp_path / "there" / f"{name}.json").write_text(json.dumps(text))
    with pytest.raises(UnsoundError):
        remote.download(name, tmp_path / "back")


@pytest.mark.parametrize("name", ["../r1", "/r1", "..", ""])
def test_a_run_there_cannot_name_a_folder_elsewhere(tmp_path: Path, name: str) -> None:
    remote = Remote(f"memory://{tmp_path.name}")
    remote._pipe("run.json", store.encode("arzbench/run", run_record(id=name)))
    with pytest.raises(UsageError, match="cannot name a run"):
        remote.run_record()


def test_a_mistake_beside_a_url_that_holds_a_run_writes_nothing(tmp_path: Path) -> None:
    remote = Remote(f"memory://{tmp_path.name}")
    remote._pipe("run.json", store.encode("arzbench/run", run_record()))
    (here := tmp_path / "here").mkdir()
    ended = call(f"run --checkpoints {remote.url} --timesteps 10000000", here)
    assert ended.code == 2
    assert "more than the study's 600" in ended.err
    assert not list(here.iterdir())


def test_what_was_fetched_is_not_read_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"file://{tmp_path}/there"
    Remote(url).upload(filled(tmp_path / "here", 1).paths()[0])
    remote = Remote(url)
    remote.fetch("study-1", tmp_path / "back")
    monkeypatch.setattr(remote, "_sha256", lambda target: pytest.fail(f"{target} was read"))
    remote.upload(newest(tmp_path / "back").path)


# The thread.


def test_a_server_killed_midway_and_started_again(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "s3") as server:
        for name, value in environment(server.url).items():
            monkeypatch.setenv(name, value)
        remote = Remote(URL)
        remote.upload(filled(tmp_path / "here", 1).paths()[0])
        uploads = Uploads(remote)
        put, sent = remote._fs.put_file, []

        def dies(source: str, target: str) -> Any:
            sent.append(source)
            if len(sent) == 2:
                server.kill()
            return put(source, target)

        remote._fs.put_file = dies
        uploads.offer(opened(tmp_path / "here", 5).save(state(2), header(2)).path)
        assert uploads.flush(1.5)[0].startswith(f"not uploaded to {URL}: step-000000000002-0002 (")
        assert uploads.failed
        server.start()
        assert remote_names(Remote(URL))[0] == "0001"
        assert uploads.flush(60) == []
        assert not uploads.failed
        del remote._fs.put_file
        Remote(URL).fetch("study-1", tmp_path / "back")
        assert newest(tmp_path / "back").load().values == {"step": 2}


def test_bytes_changed_on_the_way_are_noticed(tmp_path: Path, quick: None) -> None:
    remote = Remote(f"memory://{tmp_path.name}")
    put, broken = remote._fs.put_file, [True]

    def corrupts(source: str, target: str) -> None:
        put(source, target)
        if broken:
            content = bytearray(remote._fs.cat_file(target))
            content[len(content) // 2] ^= 1
            remote._fs.pipe_file(target, bytes(content))

    remote._fs.put_file = corrupts
    try:
        uploads = Uploads(remote)
        uploads.offer(filled(tmp_path / "here", 1).paths()[0])
        assert "came back with sha256" in uploads.flush(0.5)[0]
        assert remote.names() == []
        broken.clear()
        assert uploads.flush(60) == []
    finally:
        del remote._fs.put_file


def test_what_is_being_uploaded_is_not_removed(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, 2, keep_last=2)
    held = checkpoints.paths()[0].name
    checkpoints._pinned = lambda: {held}
    checkpoints.save(state(3), header(3))
    assert held in names(tmp_path)
    checkpoints._pinned = lambda: ()
    checkpoints.save(state(4), header(4))
    assert held not in names(tmp_path)


# A run.


def with_uploads(folder: Path, url: str, **changes: Any) -> Any:
    clock = VirtualClock()
    job = study(dqn())
    workload = SyntheticWorkload(clock, COSTS, episode_steps=20, save_s=0.25)
    remote = Remote(url)
    asked = request(folder, job, clock, uploads=Uploads(remote), **changes)
    return run_job(asked, workload, clock, Recorded())


def test_a_run_goes_on_in_an_empty_folder_from_s3(tmp_path: Path, url: str) -> None:
    first = with_uploads(tmp_path / "a", url, quota_s=40)
    assert first.reason is StopReason.DEADLINE
    Uploads(Remote(url)).flush(0)
    job = study(dqn())
    said = Remote(url).fetch(digest(job), tmp_path / "b" / "checkpoints" / "r1")
    assert [line.split()[0] for line in said].count("fetched") >= 1
    second = with_uploads(tmp_path / "b", url)
    assert second.reason is StopReason.FINISHED
    assert not second.notes
    run(tmp_path / "whole", job)
    assert fingerprints(tmp_path / "b") == fingerprints(tmp_path / "whole")


def test_a_network_that_is_down_neither_stops_nor_fails_a_run(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("arzbench.run.job.UNLIMITED_FLUSH_S", 0.5)
    outcome = with_uploads(tmp_path, URL)
    assert outcome.reason is StopReason.FINISHED
    assert outcome.notes[-1].startswith(f"not uploaded to {URL}: step-")
    assert "; the next session sends " in outcome.notes[-1]
    whole = tmp_path / "whole"
    run(whole, study(dqn()))
    assert fingerprints(tmp_path) == fingerprints(whole)


# What cannot work is told before anything is written.


@pytest.mark.parametrize(
    ("wrong", "what", "hint"),
    [
        ("nonsense", "is not a URL", "s3://bucket"),
        ("s3://", "is not a URL", "s3://bucket"),
        ("quux://a/b", "Protocol not known: quux", "fsspec knows"),
        ("s3://no-such-bucket/run-1", "cannot use s3://no-such-bucket/run-1", "the bucket must exist"),
        ("file:///dev/null/x", "cannot use file:///dev/null/x", "name another URL"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, wrong: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        Remote(wrong).check()
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "", "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, ".*[Cc]redentials", "AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "", "AWS_ENDPOINT_URL"),
    ],
    ids=["wrong", "none", "no server"],
)
def test_what_is_wrong_with_the_credentials_or_the_server_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], what: str, hint: str
) -> None:
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"cannot use s3://bucket/{what}") as caught:
        Remote(url).check()
    assert hint in caught.value.hint


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(UsageError, match="s3fs") as caught:
        Remote("s3://bucket/x")
    assert caught.value.hint == 'pip install "arzbench[s3]"'

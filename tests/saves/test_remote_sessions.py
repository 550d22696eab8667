"""Two sessions at one URL: neither removes what the other needs, and each is told."""

from pathlib import Path

import pytest

from arzbench import store
from arzbench.errors import StateError
from arzbench.saves.remote import Remote, TakenError
from arzbench.saves.uploads import Uploads
from tests.saves.states import filled, newest, remote_names, remote_session, run_record


def test_who_began_last_uploads_and_the_other_is_told(tmp_path: Path, url: str) -> None:
    first, second = Remote(url), Remote(url)
    one, two = filled(tmp_path / "one", 4).paths(), filled(tmp_path / "two", 2).paths()
    first.take(remote_session("a"))
    first.upload(one[0])
    second.take(remote_session("b", sessions=2))
    second.upload(two[1])
    before = second._fs.find(url)
    with pytest.raises(TakenError, match="was taken by process 1 on b at 2026-01-01 for run r1"):
        first.upload(one[3])
    assert second._fs.find(url) == before
    uploads = Uploads(first)
    uploads.offer(one[3])
    assert "was taken by process 1 on b" in uploads.flush(60)[0]
    uploads.offer(one[3])
    assert not uploads.pinned()


def test_what_another_session_uploads_meanwhile_is_not_removed(tmp_path: Path, url: str) -> None:
    """Its sessions told nothing of each other: older programs, or a session.json that a kill tore."""
    first, second = Remote(url), Remote(url)
    one, two = filled(tmp_path / "one", 6, keep_last=9).paths(), filled(tmp_path / "two", 3).paths()
    first.upload(one[0])
    second.upload(two[1])
    second._fs.pipe_file(f"{url}/parts/{'0' * 64}", b"on its way")
    for path in one[2:]:
        first.upload(path)
    assert remote_names(first) == ["0002", "0005", "0006"]
    second.download(two[1].name, tmp_path / "back")
    assert second._fs.exists(f"{url}/parts/{'0' * 64}")


def test_an_older_state_that_is_sound_is_kept_where_the_newer_are_not(tmp_path: Path, url: str) -> None:
    remote = Remote(url)
    paths = filled(tmp_path / "here", 5).paths()
    remote.upload(paths[3])
    remote.upload(paths[4])
    for path in paths[3:]:
        for part in remote.manifest(path.name).parts:
            remote._fs.pipe_file(f"{url}/parts/{part.sha256}", bytes(part.bytes))
    again = Remote(url)
    with pytest.raises(StateError, match="no sound checkpoint"):
        again.fetch("study-1", tmp_path / "back")
    again.upload(paths[1])
    assert remote_names(again) == ["0002"]
    Remote(url).fetch("study-1", tmp_path / "back")
    assert newest(tmp_path / "back").load().values == {"step": 2}


def test_runs_that_came_at_once_do_not_mix(tmp_path: Path, url: str) -> None:
    (tmp_path / "run.json").write_bytes(store.encode("arzbench/run", run_record()))
    Remote(url).take(remote_session("a"), tmp_path / "run.json")
    with pytest.raises(TakenError, match="holds the checkpoints of run r1"):
        Remote(url).take(remote_session("b", run="r2"))
    found = Remote(url).session()
    assert found is not None
    assert found.token == "a"


@pytest.mark.parametrize("torn", [b"", b'{"schema": "arzbench/sess'])
def test_a_session_torn_by_a_kill_is_as_if_it_were_absent(tmp_path: Path, url: str, torn: bytes) -> None:
    remote = Remote(url)
    remote._fs.pipe_file(f"{url}/session.json", torn)
    assert remote.session() is None
    remote.take(remote_session("b"))
    assert remote.session() == remote_session("b")

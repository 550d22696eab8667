"""What a URL has is copied where the folder here lacks it, or has it damaged."""

from pathlib import Path

import pytest

from arzbench.saves.read import ARRAYS
from arzbench.saves.remote import Remote
from tests.saves.states import filled, names, newest, truncate


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/there"


def test_a_damaged_newest_here_is_fetched_anew(tmp_path: Path, url: str) -> None:
    here = tmp_path / "here"
    remote = Remote(url)
    for path in filled(here, 2).paths():
        remote.upload(path)
    damaged = names(here)[-1]
    truncate(here / damaged / ARRAYS)
    said = remote.fetch("study-1", here)
    assert [line.split()[:2] for line in said] == [["fetched", damaged]]
    assert newest(here).path.name == damaged
    assert not list(here.glob(".*"))
    assert remote.fetch("study-1", here) == []


def test_a_damaged_newest_here_gives_the_one_before_if_it_is_nowhere(tmp_path: Path, url: str) -> None:
    here = tmp_path / "here"
    remote = Remote(url)
    first, second = filled(here, 2).paths()
    remote.upload(first)
    truncate(second / ARRAYS)
    assert remote.fetch("study-1", here) == []
    assert newest(here).path == first


def test_what_is_removed_while_it_is_fetched_is_passed_over(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(url)
    remote.upload(filled(tmp_path / "here", 1).paths()[0])
    there = [*remote.names(), "step-000000000002-0002"]
    monkeypatch.setattr(remote, "names", lambda: there)
    said = remote.fetch("study-1", tmp_path / "back")
    assert said[0] == f"passed over {url}/step-000000000002-0002: it was removed meanwhile"
    assert newest(tmp_path / "back").load().values == {"step": 1}

"""The best checkpoint is not forgotten where newer ones overtake it on their way to the URL."""

import queue
import random
from pathlib import Path

import pytest

from arzbench.saves.remote import Remote
from arzbench.saves.uploads import Uploads
from tests.saves.s3 import environment
from tests.saves.states import filled


class Slow(Remote):
    """Uploads nothing before it is told to; tells what it uploaded."""

    def __init__(self) -> None:
        super().__init__("memory://slow")
        self.began: queue.Queue[str] = queue.Queue()
        self.go_on: queue.Queue[Exception | None] = queue.Queue()

    def upload(self, path: Path) -> None:
        self.began.put(path.name)
        error = self.go_on.get(timeout=60)
        if error is not None:
            raise error


@pytest.mark.parametrize(
    ("offered", "sent"),
    [
        ("bn", "nb"),  # overtaken, but not forgotten
        ("bnn", "nb"),
        ("nb", "b"),
        ("bb", "b"),  # another best takes its place
        ("bnbn", "nb"),
        ("nn", "n"),
    ],
)
def test_a_best_state_that_is_overtaken_is_sent_after_it(tmp_path: Path, offered: str, sent: str) -> None:
    remote = Slow()
    uploads = Uploads(remote)
    first, *paths = filled(tmp_path, 1 + len(offered), keep_last=9).paths()
    uploads.offer(first)
    assert remote.began.get(timeout=60) == first.name
    for path, kind in zip(paths, offered, strict=True):
        uploads.offer(path, best=kind == "b")
    last = {kind: path.name for path, kind in zip(paths, offered, strict=True)}
    assert uploads.pinned() == {first.name, *(last[kind] for kind in sent)}
    for kind in sent:
        remote.go_on.put(None)
        assert remote.began.get(timeout=60) == last[kind]
    remote.go_on.put(None)
    assert uploads.flush(60) == []
    assert remote.began.empty()


def test_a_best_state_whose_upload_fails_waits_for_the_newest(tmp_path: Path) -> None:
    remote = Slow()
    uploads = Uploads(remote)
    best, newer, newest_one = filled(tmp_path, 3, keep_last=9).paths()
    uploads.offer(best, best=True)
    assert remote.began.get(timeout=60) == best.name
    uploads.offer(newer)
    remote.go_on.put(OSError("broken"))
    assert remote.began.get(timeout=60) == newer.name
    uploads.offer(newest_one)  # newer ones keep coming: its turn comes all the same
    remote.go_on.put(None)
    assert remote.began.get(timeout=60) == best.name
    assert f"{best.name} and {newest_one.name} (" in uploads.flush(0)[0]
    remote.go_on.put(None)
    assert remote.began.get(timeout=60) == newest_one.name
    remote.go_on.put(None)
    assert uploads.flush(60) == []


def test_what_is_closed_tries_no_more(tmp_path: Path) -> None:
    remote = Slow()
    uploads = Uploads(remote)
    first, second = filled(tmp_path, 2, keep_last=9).paths()
    uploads.offer(first, best=True)
    assert remote.began.get(timeout=60) == first.name
    uploads.offer(second)
    uploads.close()
    remote.go_on.put(OSError("broken"))
    uploads._thread.join(60)
    assert not uploads._thread.is_alive()
    assert remote.began.empty()


def test_a_network_that_is_down_draws_no_random_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    remote = Remote("s3://bucket/random")
    before = random.getstate()
    with pytest.raises(Exception, match="Could not connect"):
        remote.upload(filled(tmp_path, 1).paths()[0])
    assert random.getstate() == before  # the training's, whose state is saved

"""Virtual runs need no durable disk; a real S3 server is started once for what needs it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from arzbench.run import uploads
from tests.run.s3 import Server, environment, serving


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """`os.fsync` does nothing within this process; programs that tests start and kill do wait.

    Hundreds of virtual runs would wait for the disk most of the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def url(server: Server, forgetful: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A place of this test's own on the server, which clients know by the environment."""
    for name, value in environment(server.url).items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{tmp_path.name}"


@pytest.fixture
def forgetful() -> None:
    """No client is shared with the test before, whose server was another."""
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(uploads, "LAST_RETRY_S", 0.1)

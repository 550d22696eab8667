"""What tests share: one thread, reproducible examples, the incident's logs, a real S3 server."""

import os

# Before anything imports NumPy or torch: two threads on a busy machine are slower than one, and the
# number of threads changes the last bits of a training.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import warnings
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from arzbench.saves import uploads
from tests.saves.s3 import Server, environment, serving

ROOT = Path(__file__).resolve().parent.parent

# The same examples everywhere, and no verdict that depends on how fast a machine is.
hypothesis.settings.register_profile("arzbench", derandomize=True, deadline=None)
hypothesis.settings.load_profile("arzbench")


@pytest.fixture(scope="session")
def incident_data() -> Path:
    """The folder with the incident's logs, kept beside the repository because they are large."""
    folder = ROOT.parent / "shared" / "data" / "incident"
    if not folder.is_dir():
        reason = "the incident's logs are not here (../shared/data/incident): their facts go unchecked"
        warnings.warn(reason, pytest.PytestWarning, stacklevel=1)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk(request: pytest.FixtureRequest) -> Iterator[None]:
    """In run/ and saves/ `os.fsync` does nothing within this process; programs that tests kill do wait.

    Hundreds of virtual runs would wait for the disk most of the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name in ("run", "saves"):
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
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(uploads, "LAST_RETRY_S", 0.1)

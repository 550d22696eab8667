"""Faults of a real disk: each gives the newest sound state or one clear error, and nothing is lost."""

import contextlib
import errno
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from arzbench import store
from arzbench.clock import VirtualClock
from arzbench.digest import digest
from arzbench.errors import ArzbenchError, StateError, UsageError
from arzbench.facts import StopReason
from arzbench.run.simulated import SyntheticWorkload
from arzbench.saves.checkpoints import CheckpointStore
from arzbench.saves.lock import only_run
from tests.run.jobs import COSTS, dqn, fingerprints, run, study

JOB = study(dqn())
Mount = Callable[[str], Path]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system in memory with the given options; skipped where that is not allowed."""
    place = tmp_path / "disk"

    def mount(options: str) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            reason = "no file system can be mounted here (root can): faults of the disk go unchecked"
            warnings.warn(reason, pytest.PytestWarning, stacklevel=1)
            pytest.skip(reason)
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


class Ballast:
    """Fills a disk until nothing more goes in, from a training step on."""

    def __init__(self, disk: Path, what: str, step: int) -> None:
        self.folder = disk / "ballast"
        self.folder.mkdir()
        self._what = what
        self._step = step

    def __call__(self, step: int) -> None:
        if step >= self._step and not any(self.folder.iterdir()):
            with contextlib.suppress(OSError):
                for number in range(1 << 20):
                    self._put(number)

    def _put(self, number: int) -> None:
        with open(self.folder / str(number), "wb", buffering=0) as file:
            while self._what == "bytes" and file.write(bytes(65536)):
                pass

    def remove(self) -> None:
        shutil.rmtree(self.folder)


class Ended(NamedTuple):
    """How a session told of a fault: in its outcome, or as the one error of the command."""

    said: str
    state: int  # step of the newest sound state, 0 without one


def fail(disk: Path, calls: Callable[[int], None]) -> Ended:
    """A session that cannot go on."""
    clock = VirtualClock()
    workload = SyntheticWorkload(clock, COSTS, episode_steps=20, save_s=0.25, calls=calls)
    try:
        outcome = run(disk, JOB, clock, workload)
        assert outcome.reason is StopReason.FAILED
        said = outcome.detail
    except ArzbenchError as error:
        said = f"{error.message} ({error.hint})"
    return Ended(said, newest(disk))


def newest(disk: Path) -> int:
    checkpoints = CheckpointStore(disk / "checkpoints" / "r1", 2, VirtualClock())
    found = checkpoints.newest(digest(JOB))
    assert not checkpoints.skipped
    if found is None:
        return 0
    found.load()
    return found.manifest.num_timesteps


@pytest.mark.parametrize(
    ("options", "what", "why"),
    [("size=4m", "bytes", errno.ENOSPC), ("size=4m,nr_inodes=120", "inodes", errno.ENOSPC)],
)
@pytest.mark.parametrize("told", [True, False])  # some disks do not tell how much is left
@pytest.mark.parametrize(("step", "kept"), [(0, 0), (250, 200), (599, 500)])
def test_a_full_disk_stops_the_run_with_the_reason_and_loses_nothing(
    mounted: Mount,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    what: str,
    why: int,
    told: bool,
    step: int,
    kept: int,
) -> None:
    disk = mounted(options)
    ballast = Ballast(disk, what, step)
    if not told:

        class Endless:
            free = 1 << 40

        monkeypatch.setattr(shutil, "disk_usage", lambda path: Endless)
    ended = fail(disk, ballast)
    assert "too little space" in ended.said or os.strerror(why) in ended.said
    assert "free space" in ended.said
    assert ended.state == kept
    # as long as it is full, nothing else happens to what is there
    assert fail(disk, ballast).state == kept
    ballast.remove()
    assert run(disk, JOB).reason is StopReason.FINISHED
    run(tmp_path / "whole", JOB)
    assert fingerprints(disk) == fingerprints(tmp_path / "whole")


def test_a_folder_on_a_full_disk_is_held_all_the_same(mounted: Mount) -> None:
    disk = mounted("size=64k")
    Ballast(disk, "bytes", 0)(0)
    assert shutil.disk_usage(disk).free == 0
    with only_run(disk), pytest.raises(StateError, match="another run is using"), only_run(disk):
        pass


def test_a_disk_that_became_read_only_is_one_clear_error(mounted: Mount, tmp_path: Path) -> None:
    disk = mounted("size=4m")
    run(disk, JOB, quota_s=60.0)
    before = newest(disk)
    assert before > 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(UsageError, match=f"cannot write in .*: {os.strerror(errno.EROFS)}") as caught:
        run(disk, JOB)
    assert "another folder with --dir" in caught.value.hint
    assert newest(disk) == before
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert run(disk, JOB).reason is StopReason.FINISHED
    run(tmp_path / "whole", JOB)
    assert fingerprints(disk) == fingerprints(tmp_path / "whole")


def test_a_run_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """Going back behind it would lose what the newer version did."""
    first = run(tmp_path, JOB, quota_s=60.0)
    assert first.checkpoint is not None
    manifest = first.checkpoint / "manifest.json"
    version = store.VERSIONS["arzbench/checkpoint"]
    text = manifest.read_bytes()
    manifest.write_bytes(text.replace(b'"version": %d' % version, b'"version": %d' % (version + 1), 1))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=f"version {version + 1}, this arzbench reads") as caught:
        run(tmp_path, JOB)
    assert "upgrade" in caught.value.hint
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before

"""`arzbench logs` as it is called, and following a file."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from arzbench.clock import VirtualClock
from arzbench.errors import UsageError
from arzbench.logs.findings import LogContext
from arzbench.logs.follow import follow
from tests.logs.reading import STEPS, kaggle, report, tail
from tests.processes import environment


def logs(
    *arguments: str, data: bytes = b"", folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "arzbench", "logs", *arguments]
    return subprocess.run(command, input=data, capture_output=True, env=environment(), cwd=folder)


def test_tables_and_json_of_a_pipe() -> None:
    data = tail("Training started: 1000 total timesteps", *STEPS)
    shown = logs("-", "--quota", "100s", data=data)
    text = shown.stdout.decode()
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert "does not fit 100.0 s" in text or "does not fit" in text
    assert "lines by tag" in text
    found = json.loads(logs("-", "--json", data=data).stdout)
    assert (found["schema"], found["version"]) == ("arzbench/logs", 1)
    assert found["logs"][0]["messages"] == 41


def test_a_study_gives_the_schedule_and_the_whole(tmp_path: Path) -> None:
    step = 21_724
    lines = [f"[R] step={step + i} t={3060.0 + 15 * i}s" for i in range(9)]
    (tmp_path / "a.log").write_bytes(tail(*lines))
    found = json.loads(
        logs("a.log", "--study", "incident", "--quota", "12h", "--json", folder=tmp_path).stdout
    )
    (log,) = found["logs"]
    assert log["cycle"]["fits"] == ["1,000 + 5 x 240"]
    assert "one and only one" in log["cycle"]["sure"]
    assert log["forecast"]["total_steps"] == 98_240


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.log"], "cannot read the log absent.log"),
        (["--pattern", "(", "-"], "--pattern"),
        (["--follow", "-"], "--follow takes one file"),
        (["--total-steps", "0", "-"], "--total-steps"),
        (["--platform", "moon", "-"], "moon"),
    ],
)
def test_one_clear_error(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = logs(*arguments, folder=tmp_path)
    assert done.returncode == 2
    error = done.stderr.decode()
    assert said in error
    assert error.startswith("error: ")


def test_a_plot_or_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(kaggle("Training started", *STEPS))
    done = logs("a.log", "--plot", "a.png", folder=tmp_path)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert done.returncode == 2
        assert b"needs the package matplotlib" in done.stderr
    else:
        assert done.returncode == 0
        assert (tmp_path / "a.png").stat().st_size > 1000


class Growing(VirtualClock):
    """A clock on which a file grows at every sleep."""

    def __init__(self, path: Path, pieces: list[bytes]) -> None:
        super().__init__()
        self.path, self.pieces = path, pieces

    def sleep(self, seconds: float) -> None:
        super().sleep(5.0)
        piece = self.pieces.pop(0)
        self.path.write_bytes(piece) if piece.startswith(b"NEW") else self._append(piece)

    def _append(self, piece: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(piece)


def test_a_growing_file_is_followed(tmp_path: Path) -> None:
    path, whole, out = tmp_path / "a.log", tail(*STEPS), io.StringIO()
    path.write_bytes(b"")
    cuts = [whole[i : i + 100] for i in range(0, len(whole), 100)]
    clock = Growing(path, list(cuts))
    found = follow(str(path), LogContext(total_steps=100), clock, out, lambda: not clock.pieces)
    assert (found.messages, found.format) == (40, report(whole).format)
    assert "step 40 of 100" in out.getvalue().splitlines()[-1] or "ETA" in out.getvalue()


def test_a_file_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"old line\n" * 100)
    clock = Growing(path, [b"NEW line\n", b""])
    assert follow(str(path), LogContext(), clock, io.StringIO(), lambda: not clock.pieces).lines == 101


def test_what_cannot_be_followed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(b"\x1f\x8b rest")
    for name, said in ((path, "compressed"), (tmp_path / "absent", "cannot read")):
        with pytest.raises(UsageError, match=said):
            follow(str(name), LogContext(), VirtualClock(), io.StringIO(), lambda: True)

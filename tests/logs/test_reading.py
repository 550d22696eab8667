"""Formats, damage, ends: small logs of every kind."""

import gzip
import json
import random
from pathlib import Path

import pytest

from arzbench.errors import StateError, UsageError
from arzbench.logs.source import MAX_LINE, open_source
from tests.logs.reading import SB3, STEPS, kaggle, report, tags, tail

TRACE = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "ValueError: no road"]


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_the_tail_is_read_alike_in_pieces_of_any_size(block: int) -> None:
    found = report(tail(*STEPS, "", "bare"), block=block)
    assert found.format == "Kaggle text tail"
    assert (found.messages, tags(found)) == (42, {"A": 40, "(empty)": 1, "(untagged)": 1})
    assert (found.steps.step_s, found.steps.lines, found.steps.sim_s) == (pytest.approx(0.5), 1, 15)


@pytest.mark.parametrize("layout", ["lines", "one line", "indented", "spaced"])
def test_kaggle_s_json_in_any_layout(layout: str) -> None:
    data = kaggle(*STEPS)
    if layout == "one line":
        data = json.dumps(json.loads(data), separators=(",", ":")).encode()
    elif layout == "indented":
        data = json.dumps(json.loads(data), indent=2).encode()
    elif layout == "spaced":
        data = b"\n  " + data + b"\n\n"
    found = report(data, block=100 if layout == "one line" else 1 << 20)
    assert found.format == "Kaggle JSON stream"
    assert (found.messages, tags(found)) == (40, {"A": 40})
    assert found.notes == ()


def test_json_on_one_very_long_line() -> None:
    data = json.dumps(json.loads(kaggle(*STEPS * 300)), separators=(",", ":")).encode()
    assert len(data) > 10 * MAX_LINE
    found = report(data)
    assert (found.messages, found.notes) == (12_000, ())


@pytest.mark.parametrize("data", [b"\n", b"\r", b" ", b"{", b'{"', b"[", b"1", b"s ", b"9%|", b"episode "])
def test_nothing_takes_more_than_its_length(data: bytes) -> None:
    whole = data * (1_000_000 // len(data))
    for start in (b"", b'[{"stream_name":"stdout","time":1,"data":"x"}', b"1.0s 1 "):
        assert report(start + whole).bytes == len(start + whole)


def test_truncated_json_says_so() -> None:
    whole = kaggle(*STEPS)
    found = report(whole[: len(whole) // 2])
    assert 15 <= found.messages <= 20
    assert (found.end.kind, "breaks off" in found.end.text) == ("unknown", True)
    assert "could not be read" in found.notes[0]


RECORDS = [f"2025-10-16 06:38:{i:02d},250 - INFO - env.step:12 - step {i}" for i in range(1, 50)]
FIELDS = [json.dumps({"ts": 1.7e9 + i, "msg": "update", "step": i, "loss": 0.5}) for i in range(50)]


MIDNIGHT = "23:59:58 step 1\n23:59:59 step 2\n00:00:00 step 3\n00:00:01 step 4"
TABLES = "".join(SB3.format(960 * i, 8 * i) for i in range(1, 6))


@pytest.mark.parametrize(
    ("data", "kind", "last_step", "last_s"),
    [
        ("\n".join([*FIELDS, "plain text between", '{"nested": {"a": 1}}']), "JSON lines", 49, 49),
        ("\n".join(RECORDS), "Python logging", 49, 48),
        (MIDNIGHT, "plain text with timestamps", 4, 3),
        (TABLES, "Stable-Baselines3 tables", 4800, None),
    ],
    ids=["json lines", "logging", "past midnight", "tables"],
)
def test_formats(data: str, kind: str, last_step: int, last_s: float | None) -> None:
    found = report(data.encode() + b"\n")
    assert (found.format, found.last_s) == (kind, last_s)
    assert found.steps.last == last_step
    assert found.steps.step_s == (None if last_s is None else pytest.approx(1.0))


def test_python_logging_is_counted_by_logger_and_level() -> None:
    found = report("\n".join([*RECORDS, "2025-10-16 06:39:00,000 - ERROR - train:7 - lost"]).encode())
    assert tags(found) == {"env.step INFO": 49, "train ERROR": 1}
    assert found.last_s == pytest.approx(58.75)


def test_a_user_s_pattern() -> None:
    data = b"".join(b"%d.5 <<ENV>> did 7 of it, #%d at sim %d\n" % (i, i, 10 * i) for i in range(1, 20))
    pattern = r"^(?P<time>[\d.]+) <<(?P<tag>\w+)>> (?P<message>.*#(?P<step>\d+) at sim (?P<t>\d+))"
    found = report(data, pattern=pattern)
    assert tags(found) == {"ENV": 19}
    assert (found.steps.last, found.steps.step_s, found.steps.sim_s) == (19, pytest.approx(1.0), 10)


@pytest.mark.parametrize("pattern", ["(", "no groups", "(?P<other>x)"])
def test_a_wrong_pattern_is_told(pattern: str) -> None:
    with pytest.raises(UsageError, match="--pattern"):
        report(b"a\n", pattern=pattern)


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([*STEPS, *TRACE], "crash"),
        ([*TRACE, *STEPS], "unknown"),  # an error that was survived
        ([*TRACE, *STEPS, "Training finished in 3 s"], "finished"),
        ([*STEPS, "Killed"], "killed"),
        ([*STEPS, "CUDA out of memory. Tried to allocate"], "killed"),
        ([*STEPS, "slurmstepd: CANCELLED AT x DUE TO TIME LIMIT"], "killed"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_how_it_ends(messages: list[str], kind: str) -> None:
    end = report(tail(*messages)).end
    assert end.kind == kind
    if kind == "crash":
        assert end.text == "crashed: ValueError: no road"


def test_the_total_a_log_names_is_extrapolated() -> None:
    found = report(tail("Total timesteps: 1000", *STEPS), quota_s=100.0)
    assert (found.forecast.total_steps, found.forecast.seconds) == (1000, pytest.approx(500))
    assert found.forecast.fits is False


def test_steps_with_more_lines_that_take_longer_are_seen() -> None:
    messages, now = [], 0.0
    for step in range(1, 120):
        lines = 400 + 300 * (step % 3)
        for _ in range(lines):
            now += 0.001
            messages.append(f"{now:.4f}s {len(messages) + 1} [NOISE] x")
        now += 0.1
        messages.append(f"{now:.4f}s {len(messages) + 1} [A] step={step}")
    found = report("\n".join(messages).encode() + b"\n")
    assert "slower: 1e+03 us a line" in found.flood.how
    assert 0.8 < found.flood.at_most < 0.95


@pytest.mark.parametrize("code", ["utf-16", "utf-8-sig", "latin-1"])
def test_other_encodings(code: str) -> None:
    found = report("\n".join(f"[BC à] é step={i}" for i in range(9)).encode(code) + "\n".encode(code)[-2:])
    assert found.lines == 9


def test_lines_of_ten_megabytes_are_shortened() -> None:
    found = report(tail(*STEPS) + b"99.0s 41 " + b"x" * 10_000_000 + b"\n100.0s 42 [B] end\n")
    assert (found.messages, found.bytes) == (42, len(tail(*STEPS)) + 10_000_028)
    assert f"{MAX_LINE:,}" in found.notes[0]


@pytest.mark.parametrize("data", [b"", b"\n", b"\n" * 5000, b"\r", b"[", b"{}", b'[{"stream_name":'])
def test_next_to_nothing_is_a_result(data: bytes) -> None:
    found = report(data)
    assert found.steps is None
    assert found.end.kind == "unknown"


def test_binary_files_are_refused() -> None:
    with pytest.raises(UsageError, match="this is no text"):
        report(random.Random(0).randbytes(100_000))


def test_gzip_whole_cut_and_damaged(tmp_path: Path) -> None:
    packed = gzip.compress(tail(*STEPS * 200))
    assert report(packed).messages == 8000
    cut = report(packed[: len(packed) * 2 // 3])
    assert 0 < cut.messages < 8000
    assert "cut off" in cut.notes[0]
    with pytest.raises(StateError, match="damaged"):
        report(packed[:20] + b"\x55" * 50)


def test_zstandard_or_a_clear_error() -> None:
    try:
        import zstandard
    except ImportError:
        with pytest.raises(UsageError, match="zstandard"):
            report(b"\x28\xb5\x2f\xfd rest")
    else:
        assert report(zstandard.compress(tail(*STEPS))).messages == 40


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "absent.log"):
        with pytest.raises(UsageError, match="cannot read the log"):
            open_source(str(name))


def test_the_number_of_tags_stays_bounded() -> None:
    rng = random.Random(0)
    names = ("".join(rng.choices("abcdef", k=5)) for _ in range(3000))
    data = "".join(f"{i}.0s {i} [{name}] {rng.random()}\n" for i, name in enumerate(names)).encode()
    found = report(data)
    assert len(found.tags) <= 401
    assert sum(tags(found).values()) == 3000

"""Durations and sizes: every form people write, and nothing else."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arzbench.errors import UsageError
from arzbench.units import format_bytes, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("45 sec", 45),
        ("2 seconds", 2),
        ("90m", 5400),
        ("90 min", 5400),
        ("90 minutes", 5400),
        ("12h", 43200),
        ("2 hrs", 7200),
        ("1.5h", 5400),
        ("0.25 s", 0.25),
        ("11h30m", 41400),
        ("1 h 1 min 1 s", 3661),
        (" 12H ", 43200),
        ("2d", 172800),
        ("1 week", 604800),
        ("3 days", 259200),
        ("30:00", 1800),  # Slurm's walltimes: MM:SS
        ("90:15", 5415),
        ("12:00:00", 43200),  # HH:MM:SS
        ("1-06", 108000),  # D-HH
        ("1-06:30", 109800),  # D-HH:MM
        ("1-06:00:00", 108000),  # D-HH:MM:SS
        ("2-23:59:59", 259199),
        ("0-00:00:01", 1),
    ],
)
def test_forms_of_a_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["", "  ", "h", "12x", "12 parsecs", "1h30", "h12", "12h!", "-5h", "1--2", "1-2-3", "1:2:3:4", ":30",
          "12", "43200", "1.5", "0012",  # bare numbers: minutes for Slurm, hours for a person in a hurry
          "1-", "1e5s", "nan", "inf", "1.5:00", "1,5h", "12hs?", "5 s s"], "is not a duration"),
        (["0s", "0h0m", "00:00", "0-0"], "not greater than zero"),
        (["9" * 400 + "h", "9" * 5000 + ":00", "9" * 400 + "-0", "200000w"], "longer than a century"),
    ],
    ids=["other", "nothing", "centuries"],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_the_reason(texts: list[str], said: str) -> None:
    for text in texts:
        with pytest.raises(UsageError, match=said) as caught:
            parse_duration(text)
        assert "11h30m" in caught.value.hint
        assert "1-06:00:00" in caught.value.hint


@given(st.one_of(st.text(), st.text(alphabet="0123456789.:-hmsdw nec")))
@example("١h")
@example("²h")
@example("1-١:00")
def test_any_text_gives_a_positive_number_or_a_usage_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except UsageError as refused:
        error = refused
    else:
        assert isinstance(seconds, float)
        assert 0 < seconds < math.inf
        return
    assert repr(text) in error.message
    assert error.hint


@given(st.integers(1, 10_000_000))
def test_whole_seconds_are_read_back_exactly(seconds: int) -> None:
    hours, rest = divmod(seconds, 3600)
    assert parse_duration(f"{seconds}s") == seconds
    assert parse_duration(f"{hours}h{rest // 60}m{rest % 60}s") == seconds
    assert parse_duration(f"{hours // 24}-{hours % 24}:{rest // 60}:{rest % 60}") == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (850e-6, "850 us"),
        (0.9996e-3, "1 ms"),
        (0.0123, "12.3 ms"),
        (0.9999, "1.0 s"),
        (3.21, "3.2 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (250, "4 min 10 s"),
        (3599.6, "1 h 00 min"),
        (47100, "13 h 05 min"),
        (48 * 3600 - 0.4, "2 d 00 h"),
        (51 * 3600, "2 d 03 h"),
        (-250, "-4 min 10 s"),
        (math.nan, "not measured"),
        (math.inf, "for ever"),
    ],
)
def test_durations_are_shown_with_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_duration_can_be_shown(seconds: float) -> None:
    assert format_duration(seconds)


@given(st.floats(1e-6, 1e9))
def test_a_shown_duration_is_close_to_the_real_one(seconds: float) -> None:
    shown = format_duration(seconds)
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    parts = shown.split()
    read = sum(float(n) * units[u] for n, u in zip(parts[::2], parts[1::2], strict=True))
    assert read == pytest.approx(seconds, rel=0.05)  # 1.05 s is shown as 1.1 s or 1.0 s
    assert "e+" not in shown


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (999.9, "1 kB"), (1234, "1.23 kB"), (999_999, "1 MB"), (118_700, "119 kB"),
     (20_000_000_000, "20 GB"), (3e12, "3 TB")],
)  # fmt: skip
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text

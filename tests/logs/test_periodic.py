"""Periodic messages: which are written, what is counted, how it is configured."""

import io
import itertools
import logging
from pathlib import Path

import pytest

from arzbench.clock import VirtualClock
from arzbench.errors import UsageError
from arzbench.logs.periodic import (
    Period,
    PeriodicFilter,
    PeriodicHandler,
    PeriodicLogger,
    configured,
    parse_period,
)


def written(stream: io.StringIO) -> list[int]:
    return [int(line.partition("#")[2].partition("]")[0]) for line in stream.getvalue().splitlines()]


def test_the_seed_s_own_line() -> None:
    stream = io.StringIO()
    log = PeriodicLogger(1000, stream)
    for i in range(1, 2001):
        log.log("BC_GPU", "inflow_L=%r", [i])
    assert stream.getvalue().splitlines()[1:] == [
        "[PERIODIC:1000] BC_GPU [Call #1000] inflow_L=[1000]",
        "[PERIODIC:1000] BC_GPU [Call #2000] inflow_L=[2000]",
    ]


class Loud:
    def __repr__(self) -> str:
        raise AssertionError("a silent message was put together")


def test_silent_messages_are_never_put_together() -> None:
    log = PeriodicLogger(100, io.StringIO())
    log.log("A", "first")
    for _ in range(98):
        log.log("A", "%r", Loud())
    with pytest.raises(AssertionError):
        log.log("A", "%r", Loud())


@pytest.mark.parametrize("rate", [3.0, 50.0, 1000.0])
def test_every_so_many_seconds(rate: float) -> None:
    clock, stream = VirtualClock(), io.StringIO()
    log = PeriodicLogger(stream=stream, seconds=2.0, clock=clock)
    times = []
    for _ in range(int(rate * 20)):
        before = log.written
        log.log("A", "x")
        times += [clock.now()] if log.written > before else []
        clock.advance(1 / rate)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == 0
    assert all(2 - 1e-9 <= gap <= 2 + 2 / rate + 1e-9 for gap in gaps)
    assert log.calls == {"A": int(rate * 20)}


def test_tags_with_rules_of_their_own() -> None:
    stream = io.StringIO()
    log = PeriodicLogger(Period(calls=10, tags={"B": Period(calls=2)}), stream)
    for _ in range(10):
        log.log("A", "a")
        log.log("B", "b")
    said = [line.replace("]", " ").split()[1] for line in stream.getvalue().splitlines()]
    assert "".join(said) == "AB" + "BBBB" + "AB"
    assert log.calls == {"A": 10, "B": 10}


@pytest.mark.parametrize("period", [1, 2, 7, 100])
@pytest.mark.parametrize("times", [1, 5, 60])
def test_skipping_changes_nothing(period: int, times: int) -> None:
    rounds = {"A": 4, "B": 3}
    plain, skipping = (PeriodicLogger(period, io.StringIO()) for _ in range(2))

    def one(log: PeriodicLogger) -> None:
        for tag, count in rounds.items():
            for _ in range(count):
                log.log(tag, "x")

    for _ in range(9):
        done = 0
        while done < times:
            done += skipping.skip(rounds, times - done)
            if done < times:
                one(skipping)
                done += 1
        for _ in range(times):
            one(plain)
        assert skipping.calls == plain.calls
    assert skipping.stream.getvalue() == plain.stream.getvalue()  # type: ignore[attr-defined]


def test_what_was_suppressed_is_said_at_the_end() -> None:
    stream = io.StringIO()
    log = PeriodicLogger(10, stream)
    for _ in range(25):
        log.log("A", "x")
    log.close()
    assert stream.getvalue().splitlines()[-1] == (
        "[PERIODIC:10] 3 of 25 messages written, 22 suppressed (calls: A 25)"
    )


def test_behind_logging_as_a_filter_and_as_a_handler() -> None:
    stream, logger = io.StringIO(), logging.getLogger("arzbench-test-periodic")
    handler = PeriodicHandler(100, stream)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for i in range(1, 201):
        logger.debug("value %d", i)
        if i == 50:
            logger.warning("another")
    logger.removeHandler(handler)
    assert stream.getvalue().splitlines() == [
        "[PERIODIC:100] [Call #1] value 1",
        "[PERIODIC:100] [Call #1] another",
        "[PERIODIC:100] [Call #100] value 100",
        "[PERIODIC:100] [Call #200] value 200",
    ]


def test_messages_put_together_beforehand_cost_no_memory() -> None:
    keep = PeriodicFilter(10**6)
    for i in range(5000):
        keep.filter(logging.LogRecord("name", 10, "", 0, f"value {i}", (), None))
    assert keep.counts.tags <= 1001


def test_configuration_argument_before_environment_before_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[periodic]\nperiod = 500\n[periodic.tags]\nBC_GPU = "5s"\n')
    variable = {"ARZBENCH_LOG_PERIOD": "50"}
    assert str(configured(file=file, environment={})) == "500"
    assert str(configured(file=file, environment=variable)) == "50"
    rule = configured("every", file=file, environment=variable)
    assert (rule.calls, rule.tags["BC_GPU"].seconds) == (1, 5.0)
    assert str(configured(environment={})) == "1000"
    assert configured("off") is None


@pytest.mark.parametrize("text", ["0", "-1", "often", "1.5", ""])
def test_a_wrong_period_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="no logging period"):
        parse_period(text)


@pytest.mark.parametrize("text", ["periodic = 1", "[periodic]\ntags = 1", "[", "[periodic]\nperiod = []"])
def test_a_wrong_file_is_told(text: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(UsageError):
        configured(file=file, environment={})

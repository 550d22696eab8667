"""`arzbench bench`: counts, peak, what is derived from raw times, and the command."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from arzbench import store
from arzbench.clock import SystemClock, VirtualClock
from arzbench.measure.host import host_info
from arzbench.traffic.bench import timing
from arzbench.traffic.bench.peak import peak_kernel, vector_widths
from arzbench.traffic.bench.record import EngineBench, EngineSpeed, Peak, bench_sheets
from arzbench.traffic.bench.timing import EngineCase, PeakCase, VecEnvCase
from arzbench.traffic.physics.scenario import SCHEMES
from tests.calls import call, listing
from tests.traffic.bench.counting import Number, source_operations, stage_operations


def test_operations_are_counted_one_by_one() -> None:
    tally = Counter[str]()
    a, b = Number(2.0, tally), Number(3.0, tally)
    c = (1.0 - a * b) / np.sqrt(b) + 4.0 * abs(-a)
    assert c.value == pytest.approx(-5 / 3**0.5 + 8)
    np.where(a < b, a, b)
    np.minimum(a, 1.0), np.maximum(2.0, b)
    assert tally == {
        "addition": 2, "multiplication": 2, "division": 1, "root": 1, "minimum": 1, "maximum": 1,
    }  # fmt: skip


def test_the_counts_on_record_are_those_of_the_model() -> None:
    counted = {scheme: stage_operations(scheme) for scheme in SCHEMES}
    assert counted | {"source": source_operations()} == timing.OPERATIONS


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("width", vector_widths())
def test_the_peak_kernel_does_all_its_work(dtype: str, width: int) -> None:
    """The sum over chains and lanes after three rounds of x = x a + b, chain j starting from j."""
    kernel, per_round = peak_kernel(dtype, width)
    real = np.dtype(dtype).type
    lanes = width // (8 * real().itemsize)
    chains = per_round // (2 * lanes)
    x = np.arange(1, chains + 1)
    for _ in range(3):
        x = x * 0.5 + 0.25
    assert kernel(3, real(0.5), real(0.25)) == pytest.approx(lanes * x.sum(), rel=1e-6)


def bench(**changes: object) -> EngineBench:
    speed = EngineSpeed(
        device="cpu", scheme="weno5", dtype="float64", roads=64, threads=1, cells=100, substeps=40,
        stages=3, seconds=(1e-3, 2e-3),
    )  # fmt: skip
    values = {
        "id": "x", "created": "2026-01-01T00:00:00+00:00", "host": host_info(), "versions": {},
        "took_s": 1.0, "quick": True,
        "peaks": (Peak(dtype="float64", threads=1, vector_bits=512, flops=(4e9, 2e9)),),
        "operations": {"weno5": {"addition": 6, "multiplication": 4}, "source": {"addition": 10}},
        "speeds": (speed,),
    }  # fmt: skip
    return EngineBench(**(values | changes))  # type: ignore[arg-type]


def test_derived_values() -> None:
    record = bench()
    speed = record.speeds[0]
    flop = 100 * (40 * (3 * 10 + 10) + 10)
    assert speed.flop(record.operations) == flop
    assert speed.cell_stage_s == pytest.approx(1.5e-3 / 12_000)
    assert record.fraction(speed) == pytest.approx(
        flop / 4e6
    )  # in either round: half the pace, half the peak
    assert bench(peaks=()).fraction(speed) is None


def test_ratios_are_of_the_same_round() -> None:
    one = bench().speeds[0]
    narrow = msgspec.structs.replace(one, dtype="float32", seconds=(0.5e-3, 1e-3))
    sheets = list(bench_sheets(bench(speeds=(one, narrow))))
    rows = {row[0]: row[1] for sheet in sheets for row in sheet.rows}
    assert rows["weno5, 64 roads: float32 over float64"] == "2.00"


def test_parts_of_a_vectorised_step_are_timed_inside_it() -> None:
    case, advance = VecEnvCase(2, SystemClock()), timing.cpu.advance
    whole, engine, observe = case.steps(3)
    assert 0 < engine < whole
    assert 0 < observe < whole - engine
    assert timing.cpu.advance is advance  # back in its place


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One engine case, one vector width."""
    engine = EngineCase(scheme="first_order", dtype="float64", roads=2, threads=1)
    peak = PeakCase(dtype="float64", threads=1, width=128, rounds=100)
    monkeypatch.setattr(timing, "_engine_cases", lambda *_: [engine])
    monkeypatch.setattr(timing, "_peak_cases", lambda *_: [peak])
    monkeypatch.setattr(timing, "NUM_ENVS", 2)


@pytest.mark.usefixtures("small")
def test_the_command_prints_tables_and_keeps_the_record(tmp_path: Path) -> None:
    ended = call("bench --quick --output b.json", tmp_path)
    assert ended.code == 0, ended.err
    for part in ("of peak", "first_order", "ns/cell-RHS", "VecEnv of 2", "raw values: b.json"):
        assert part in ended.out
    record = store.load(tmp_path / "b.json", "arzbench/bench", EngineBench, "bench")
    assert [len(record.peaks[0].flops), len(record.speeds[0].seconds)] == [3, 3]
    assert record.through is not None


@pytest.mark.usefixtures("small")
def test_the_command_prints_json_alone(tmp_path: Path) -> None:
    ended = call("bench --quick --json", tmp_path)
    assert json.loads(ended.out)["schema"] == "arzbench/bench"
    assert listing(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("bench --device tpu", ["unknown device 'tpu'", "valid: auto, cpu, cuda"]),
        ("bench --device cuda", ["no NVIDIA GPU was found", "hint: use --device cpu"]),
        ("bench --output .", ["cannot write .: it is a folder", "--output"]),
    ],
)
def test_bad_requests_are_refused_before_anything_is_measured(
    arguments: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arzbench.wiring.checks.gpu_name", lambda: None)
    ended = call(arguments, tmp_path)
    assert ended.code == 2
    for part in expected:
        assert part in ended.err
    assert listing(tmp_path) == {}


def test_repeats_fill_a_slice_of_time() -> None:
    clock = VirtualClock()

    class Slow:
        units = 2

        def run(self) -> None:
            clock.advance(0.004)

    assert timing._repeats(Slow(), clock, 0.04) == 10
    assert timing._time(Slow(), clock, 5) == pytest.approx(0.002)

"""What `arzbench bench` measured, and its tables.

Times are raw, one value a round; every ratio is of the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from arzbench.facts import Record
from arzbench.records import HostInfo
from arzbench.report.sheets import Sheet
from arzbench.units import format_duration


class Peak(Record, frozen=True, kw_only=True):
    """Chains of fused multiply-adds on `threads` threads at once."""

    dtype: str
    threads: int
    vector_bits: int
    flops: tuple[float, ...]  # floating-point operations per second, all threads together

    @property
    def median(self) -> float:
        """Floating-point operations per second."""
        return statistics.median(self.flops)


class EngineSpeed(Record, frozen=True, kw_only=True):
    """The engine on `roads` identical roads."""

    device: str  # cpu or cuda
    scheme: str
    dtype: str
    roads: int
    threads: int  # of the host; 0 on a GPU
    cells: int
    substeps: int
    stages: int  # of the Runge-Kutta scheme
    seconds: tuple[float, ...]  # per env step: one road over one decision

    @property
    def median_s(self) -> float:
        """Seconds per env step."""
        return statistics.median(self.seconds)

    @property
    def cell_stage_s(self) -> float:
        """Seconds per cell-RHS: one cell, both classes, one stage, with its share of the source."""
        return self.median_s / (self.cells * self.substeps * self.stages)

    def flop(self, operations: dict[str, dict[str, int]]) -> int:
        """Floating-point operations of an env step: its stages, and the source between substeps."""
        stage, source = (sum(operations[name].values()) for name in (self.scheme, "source"))
        return self.cells * (self.substeps * (self.stages * stage + source) + source)


class EnvSpeed(Record, frozen=True, kw_only=True):
    """An environment as a learner sees it."""

    env: str
    decisions: int
    episode_s: tuple[float, ...]  # one episode, through gymnasium.make
    num_envs: int
    step_s: tuple[float, ...]  # one step of a `VecEnv` of num_envs
    engine_s: tuple[float, ...]  # of it, within the engine's compiled step
    observe_s: tuple[float, ...]  # of it, within the compiled observation and accounts

    @property
    def python_s(self) -> float:
        """Seconds of Python per env step."""
        rest = (a - b - c for a, b, c in zip(self.step_s, self.engine_s, self.observe_s, strict=True))
        return statistics.median(rest) / self.num_envs


class EngineBench(Record, frozen=True, kw_only=True):
    """One run of `arzbench bench`."""

    id: str
    created: str
    host: HostInfo
    versions: dict[str, str]
    took_s: float
    quick: bool
    operations: dict[str, dict[str, int]]  # counted, per cell: of a stage of each scheme, of the source
    peaks: tuple[Peak, ...]
    speeds: tuple[EngineSpeed, ...]
    through: EnvSpeed | None = None  # not measured on a GPU

    def peak(self, dtype: str, threads: int) -> Peak | None:
        """The peak measured for a dtype and a number of threads."""
        return next((p for p in self.peaks if (p.dtype, p.threads) == (dtype, threads)), None)

    def fraction(self, speed: EngineSpeed) -> float | None:
        """Share of the peak of as many threads, None where there is none of it."""
        peak = self.peak(speed.dtype, speed.threads)
        if peak is None:
            return None
        flop = speed.flop(self.operations)
        return statistics.median(flop / s / p for s, p in zip(speed.seconds, peak.flops, strict=True))

    def find(self, **wanted: object) -> EngineSpeed | None:
        """The first speed with these values."""
        return next((s for s in self.speeds if all(getattr(s, k) == v for k, v in wanted.items())), None)


def bench_sheets(bench: EngineBench) -> Iterator[Sheet]:
    """Peak, engine, ratios, environments."""
    yield _peak_sheet(bench)
    yield _engine_sheet(bench)
    if ratios := list(_ratios(bench)):
        yield Sheet(
            title="ratios, each within its round", columns=("", "ratio"), align="lr", rows=tuple(ratios)
        )
    if bench.through is not None:
        yield _through_sheet(bench)


def _peak_sheet(bench: EngineBench) -> Sheet:
    rows = tuple((p.dtype, str(p.threads), str(p.vector_bits), f"{p.median / 1e9:.1f}") for p in bench.peaks)
    return Sheet(
        title="peak: independent fused multiply-adds, two operations each",
        columns=("dtype", "threads", "vector bits", "Gflop/s"),
        align="lrrr",
        rows=rows,
    )


def _engine_sheet(bench: EngineBench) -> Sheet:
    counts = ", ".join(f"{name} {sum(kinds.values())}" for name, kinds in bench.operations.items())
    return Sheet(
        title="engine: an env step is one road over one decision of 15 s",
        columns=("scheme", "dtype", "roads", "threads", "env steps/s", "per env step", "ns/cell-RHS",
                 "Gflop/s", "of peak"),
        align="llrrrrrrr",
        rows=tuple(_engine_row(bench, speed) for speed in bench.speeds),
        notes=(
            "cell-RHS: one cell, both classes, one Runge-Kutta stage, with its share of the source",
            f"operations counted per cell and stage: {counts}; a division or a root counts as one, "
            "a minimum or a maximum too, as in the processor's own counters",
        ),
    )  # fmt: skip


def _engine_row(bench: EngineBench, speed: EngineSpeed) -> tuple[str, ...]:
    fraction = bench.fraction(speed)
    return (
        speed.scheme,
        speed.dtype,
        f"{speed.roads:,}",
        str(speed.threads) if speed.device == "cpu" else speed.device,
        f"{1 / speed.median_s:,.0f}",
        format_duration(speed.median_s),
        f"{speed.cell_stage_s * 1e9:.2f}",
        f"{speed.flop(bench.operations) / speed.median_s / 1e9:.1f}",
        "-" if fraction is None else f"{fraction:.1%}",
    )


def _ratios(bench: EngineBench) -> Iterator[tuple[str, str]]:
    """What decides whether narrower numbers and more threads pay."""
    least = min((s.threads for s in bench.speeds), default=1)
    most = max((s.roads for s in bench.speeds if s.threads == least), default=0)
    for scheme in dict.fromkeys(s.scheme for s in bench.speeds):
        wide = bench.find(scheme=scheme, dtype="float64", roads=most, threads=least)
        narrow = bench.find(scheme=scheme, dtype="float32", roads=most, threads=least)
        if wide and narrow:
            yield f"{scheme}, {most} roads: float32 over float64", _ratio(wide.seconds, narrow.seconds)
    for peak in bench.peaks:
        one = bench.peak(peak.dtype, 1)
        if peak.threads == 1 or one is None:
            continue
        yield f"peak {peak.dtype}: {peak.threads} threads over one", _ratio(peak.flops, one.flops)
        for many in (s for s in bench.speeds if (s.dtype, s.threads) == (peak.dtype, peak.threads)):
            alone = bench.find(scheme=many.scheme, dtype=many.dtype, roads=many.roads, threads=1)
            if alone is not None:
                name = f"{many.scheme} {many.dtype}, {many.roads} roads: {many.threads} threads over one"
                yield name, _ratio(alone.seconds, many.seconds)


def _ratio(above: tuple[float, ...], below: tuple[float, ...]) -> str:
    return f"{statistics.median(a / b for a, b in zip(above, below, strict=True)):.2f}"


def _through_sheet(bench: EngineBench) -> Sheet:
    through = bench.through
    assert through is not None
    each = through.num_envs
    parts = (
        ("whole", statistics.median(through.step_s) / each),
        ("engine", statistics.median(through.engine_s) / each),
        ("observation and accounts, compiled", statistics.median(through.observe_s) / each),
        ("Python", through.python_s),
    )
    episode = format_duration(statistics.median(through.episode_s))
    return Sheet(
        title=f"{through.env}, two roads",
        columns=("", "time"),
        align="lr",
        rows=(
            (f"episode of {through.decisions} decisions, gymnasium.make", episode),
            *((f"VecEnv of {each}, per env step: {name}", format_duration(s)) for name, s in parts),
        ),
    )

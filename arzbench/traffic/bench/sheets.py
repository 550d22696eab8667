"""Tables of what `arzbench bench` measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from arzbench.report.sheets import Sheet
from arzbench.traffic.bench.record import Bench, Speed
from arzbench.units import format_duration


def bench_sheets(bench: Bench) -> Iterator[Sheet]:
    """Peak, engine, ratios, environments."""
    yield _peak_sheet(bench)
    yield _engine_sheet(bench)
    if ratios := list(_ratios(bench)):
        yield Sheet(
            title="ratios, each within its round", columns=("", "ratio"), align="lr", rows=tuple(ratios)
        )
    if bench.through is not None:
        yield _through_sheet(bench)


def _peak_sheet(bench: Bench) -> Sheet:
    rows = tuple((p.dtype, str(p.threads), str(p.vector_bits), f"{p.median / 1e9:.1f}") for p in bench.peaks)
    return Sheet(
        title="peak: independent fused multiply-adds, two operations each",
        columns=("dtype", "threads", "vector bits", "Gflop/s"),
        align="lrrr",
        rows=rows,
    )


def _engine_sheet(bench: Bench) -> Sheet:
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


def _engine_row(bench: Bench, speed: Speed) -> tuple[str, ...]:
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


def _ratios(bench: Bench) -> Iterator[tuple[str, str]]:
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


def _through_sheet(bench: Bench) -> Sheet:
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

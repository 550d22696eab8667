"""Rounds over all cases: what is compared is measured within the same moments of the machine."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from importlib.util import find_spec

from arzbench.clock import Clock
from arzbench.measure.host import host_info
from arzbench.traffic.bench.cases import (
    Case,
    EngineCase,
    EpisodeCase,
    PeakCase,
    VecEnvCase,
    through_record,
)
from arzbench.traffic.bench.record import Bench
from arzbench.traffic.physics.flops import source_operations, stage_operations
from arzbench.traffic.physics.peak import vector_widths
from arzbench.traffic.physics.scenario import DTYPES, SCHEMES

BATCHES = (64, 256)
NUM_ENVS = 64
_GPU_BATCHES = (256, 1024, 4096)
_PACKAGES = ("arzbench", "numpy", "numba", "llvmlite", "gymnasium", "stable-baselines3", "numba-cuda")


def measure(clock: Clock, *, device: str, quick: bool, progress: Callable[[str], None]) -> Bench:
    """Measure everything; `progress` is told what is being done."""
    start = clock.now()
    rounds, slice_s = (3, 0.01) if quick else (11, 0.04)
    progress("compiling")
    cores = host_info().cores
    peaks, engines = _peak_cases(clock, cores), _engine_cases(device, cores, quick)
    on_cpu = device == "cpu"
    episode, vector = (EpisodeCase(), VecEnvCase(NUM_ENVS, clock)) if on_cpu else (None, None)
    cases: list[Case] = [*peaks, *engines]
    if episode is not None:
        cases.append(episode)
    repeats = [_repeats(case, clock, slice_s) for case in cases]
    times: list[list[float]] = [[] for _ in cases]
    steps: list[tuple[float, float, float]] = []
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for case, repeat, seconds in zip(cases, repeats, times, strict=True):
            seconds.append(_time(case, clock, repeat))
        if vector is not None:
            steps.append(vector.steps(2 if quick else 10))
    operations = {scheme: dict(stage_operations(scheme)) for scheme in SCHEMES}
    now = clock.wall()
    host = host_info("auto" if device == "cuda" else "cpu")
    return Bench(
        id=f"{host.key}-{now:%Y%m%dT%H%M%SZ}",
        created=now.isoformat(timespec="seconds"),
        host=host,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES if _installed(name)},
        took_s=clock.now() - start,
        quick=quick,
        operations={**operations, "source": dict(source_operations())},
        peaks=tuple(case.record(seconds) for case, seconds in zip(peaks, times, strict=False)),
        speeds=tuple(
            case.record(seconds) for case, seconds in zip(engines, times[len(peaks) :], strict=False)
        ),
        through=through_record(times[-1], NUM_ENVS, steps) if steps else None,
    )


def _installed(name: str) -> bool:
    return find_spec(name.replace("-", "_")) is not None


def _peak_cases(clock: Clock, cores: int) -> list[PeakCase]:
    """One and all threads of each dtype, at the width that is fastest here."""
    cases = []
    for dtype in sorted(DTYPES, reverse=True):
        widths = [PeakCase(dtype=dtype, threads=1, width=width) for width in vector_widths()]
        best = max(widths, key=lambda case: case.flop / min(_time(case, clock, 1) for _ in range(20)))
        cases += [PeakCase(dtype=dtype, threads=t, width=best.width) for t in dict.fromkeys((1, cores))]
    return cases


def _engine_cases(device: str, cores: int, quick: bool) -> list[EngineCase]:
    batches = BATCHES[:1] if quick else BATCHES
    layouts = [(1, 1), *((n, 1) for n in batches)]
    if cores > 1:
        layouts.append((batches[-1], cores))
    if device == "cuda":
        layouts = [(n, 1) for n in _GPU_BATCHES]
    return [
        EngineCase(scheme=scheme, dtype=dtype, roads=roads, threads=threads, device=device)
        for scheme in sorted(SCHEMES, key=SCHEMES.__getitem__, reverse=True)
        for dtype in sorted(DTYPES, reverse=True)
        for roads, threads in layouts
    ]


def _time(case: Case, clock: Clock, repeat: int) -> float:
    """Seconds per unit of `case`."""
    before = clock.ticks()
    for _ in range(repeat):
        case.run()
    return (clock.ticks() - before) / (repeat * case.units)


def _repeats(case: Case, clock: Clock, slice_s: float) -> int:
    """Runs of `case` that fill about `slice_s`."""
    once = min(_time(case, clock, 1) for _ in range(3)) * case.units
    return max(1, round(slice_s / max(once, 1e-9)))

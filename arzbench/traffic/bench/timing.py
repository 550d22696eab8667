"""What `arzbench bench` times: the peak, the engine on few and many roads, environments as learners use them.

All cases take turns within a round: what is compared is measured within the same moments of the machine.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import gymnasium
import numpy as np

from arzbench.clock import Clock
from arzbench.measure.host import host_info
from arzbench.traffic.bench.peak import peak_kernel, vector_widths
from arzbench.traffic.bench.record import EngineBench, EngineSpeed, EnvSpeed, Peak
from arzbench.traffic.env import DECISIONS, batch, register_envs
from arzbench.traffic.env.vec_env import ArzVecEnv
from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.detectors import SEGMENTS
from arzbench.traffic.physics.scenario import DTYPES, SCHEMES, Scenario
from arzbench.traffic.physics.threads import team

ENV = "arzbench/TrafficLight-v0"
GREEN = 4  # decisions: a light of 60 s red, 60 s green
DEMAND = (0.15, 0.10)  # veh/s: a queue forms at each red and clears at each green
_WARMUP = 40  # decisions until roads carry traffic
BATCHES = (64, 256)
NUM_ENVS = 64
_GPU_BATCHES = (256, 1024, 4096)
_PACKAGES = ("arzbench", "numpy", "numba", "llvmlite", "gymnasium", "stable-baselines3", "numba-cuda")
#: floating-point operations of a cell: of a stage of each scheme, and of the source between substeps
OPERATIONS = {
    "first_order": {
        "division": 4,
        "maximum": 20,
        "minimum": 13,
        "multiplication": 56,
        "addition": 55,
        "root": 4,
    },
    "muscl": {"division": 8, "maximum": 52, "minimum": 45, "addition": 87, "multiplication": 76, "root": 4},
    "weno5": {"addition": 171, "multiplication": 188, "division": 6, "maximum": 22, "minimum": 15, "root": 4},
    "source": {"multiplication": 24, "addition": 20, "root": 1, "maximum": 9, "minimum": 5},
}


class Case(Protocol):
    """One thing to time; `run` does `units` of it."""

    units: int

    def run(self) -> None:
        """Do the work once."""


@dataclass(kw_only=True)
class PeakCase:
    """Chains of FMAs, one loop on each thread."""

    dtype: str
    threads: int
    width: int
    units: int = 1
    rounds: int = 2_000_000  # some milliseconds

    def __post_init__(self) -> None:
        self._kernel, per_round = peak_kernel(self.dtype, self.width)
        self.flop = per_round * self.rounds * self.threads

    def run(self) -> None:
        real = DTYPES[self.dtype]
        work: tuple[Any, ...] = self.rounds, real(0.5), real(0.5)
        team(self.threads).run(self._kernel, [work] * self.threads)

    def record(self, seconds: list[float]) -> Peak:
        """The record of the times measured."""
        flops = tuple(self.flop / s for s in seconds)
        return Peak(dtype=self.dtype, threads=self.threads, vector_bits=self.width, flops=flops)


@dataclass(kw_only=True)
class EngineCase:
    """Roads with a stop line, red and green in turn."""

    scheme: str
    dtype: str
    roads: int
    threads: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.units = self.roads
        self.scenario = Scenario(scheme=self.scheme, dtype=self.dtype)
        self._demand = np.full((self.roads, 2), DEMAND)
        start = np.arange(self.roads)
        self._reds = [np.where((start + t) // GREEN % 2, self.scenario.substeps, 0) for t in range(2 * GREEN)]
        self._time = 0
        self.state = cpu.init(self.scenario, self.roads)
        self._step = self._on_cpu
        if self.device == "cuda":
            from arzbench.traffic.physics.cuda import RoadsOnGpu

            self._gpu = RoadsOnGpu(self.scenario, self.state, np.ones((self.roads, SEGMENTS)))
            self._step = self._on_gpu
        for _ in range(_WARMUP):
            self.run()

    def run(self) -> None:
        self._step(self._reds[self._time % len(self._reds)])
        self._time += 1

    def _on_cpu(self, red: Any) -> None:
        cpu.step(self.scenario, self.state, self._demand, red, threads=self.threads)

    def _on_gpu(self, red: Any) -> None:
        from numba.cuda import synchronize

        self._gpu.launch(self._demand, red, None)
        synchronize()

    def record(self, seconds: list[float]) -> EngineSpeed:
        """The record of the times measured."""
        return EngineSpeed(
            device=self.device,
            scheme=self.scheme,
            dtype=self.dtype,
            roads=self.roads,
            threads=self.threads if self.device == "cpu" else 0,
            cells=self.scenario.n_cells,
            substeps=self.scenario.substeps,
            stages=1 + SCHEMES[self.scheme],
            seconds=tuple(seconds),
        )


class EpisodeCase:
    """An episode of the crossing through `gymnasium.make`, under a fixed-time light."""

    units = 1

    def __init__(self) -> None:
        register_envs()
        self._env = gymnasium.make(ENV)

    def run(self) -> None:
        self._env.reset(seed=0)
        for t in range(DECISIONS):
            self._env.step(t // GREEN % 2)


@dataclass
class Inside:
    """Times a compiled function where it is called from."""

    clock: Clock
    seconds: float = 0.0

    @contextmanager
    def of(self, module: Any, name: str) -> Iterator[None]:
        """Within the block each call of `module.name` adds its time."""
        function = getattr(module, name)
        ticks = self.clock.ticks

        def timed(*arguments: Any) -> Any:
            before = ticks()
            result = function(*arguments)
            self.seconds += ticks() - before
            return result

        setattr(module, name, timed)
        try:
            yield
        finally:
            setattr(module, name, function)


class VecEnvCase:
    """A step of many crossings as one Stable-Baselines3 `VecEnv`, and where its time goes."""

    def __init__(self, num_envs: int, clock: Clock) -> None:
        self.num_envs, self.clock = num_envs, clock
        self._env = ArzVecEnv(ENV, num_envs)
        self._env.seed(0)
        self._env.reset()
        self._actions = [np.full(num_envs, t // GREEN % 2) for t in range(2 * GREEN)]
        self._time = 0

    def _step(self) -> None:
        self._env.step(self._actions[self._time % len(self._actions)])
        self._time += 1

    def steps(self, count: int) -> tuple[float, float, float]:
        """Seconds per step: whole, in the engine, in observation and accounts.

        As in a training, where one step follows another: the first two, after other cases, are not timed.
        """
        for _ in range(2):
            self._step()
        engine, observe = Inside(self.clock), Inside(self.clock)
        with engine.of(cpu, "advance"), observe.of(batch, "detect"), observe.of(batch, "account"):
            before = self.clock.ticks()
            for _ in range(count):
                self._step()
            whole = self.clock.ticks() - before
        return whole / count, engine.seconds / count, observe.seconds / count


def measure(clock: Clock, *, device: str, quick: bool, progress: Callable[[str], None]) -> EngineBench:
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
    now = clock.wall()
    host = host_info("auto" if device == "cuda" else "cpu")
    return EngineBench(
        id=f"{host.key}-{now:%Y%m%dT%H%M%SZ}",
        created=now.isoformat(timespec="seconds"),
        host=host,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES if _installed(name)},
        took_s=clock.now() - start,
        quick=quick,
        operations=OPERATIONS,
        peaks=tuple(case.record(seconds) for case, seconds in zip(peaks, times, strict=False)),
        speeds=tuple(
            case.record(seconds) for case, seconds in zip(engines, times[len(peaks) :], strict=False)
        ),
        through=_env_speed(times[-1], steps) if steps else None,
    )


def _env_speed(episodes: list[float], steps: list[tuple[float, float, float]]) -> EnvSpeed:
    whole, engine, observe = zip(*steps, strict=True)
    return EnvSpeed(
        env=ENV, decisions=DECISIONS, episode_s=tuple(episodes),
        num_envs=NUM_ENVS, step_s=whole, engine_s=engine, observe_s=observe,
    )  # fmt: skip


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

"""What is timed: the peak, the engine on few and many roads, environments through their interfaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np

from arzbench.clock import Clock
from arzbench.traffic.bench.record import Peak, Speed, Through
from arzbench.traffic.env import DECISIONS, batch, register_envs
from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.peak import peak_kernel
from arzbench.traffic.physics.scenario import DTYPES, SCHEMES, Scenario
from arzbench.traffic.physics.threads import team

ENV = "arzbench/TrafficLight-v0"
GREEN = 4  # decisions: a light of 60 s red, 60 s green
DEMAND = (0.15, 0.10)  # veh/s: a queue forms at each red and clears at each green
_WARMUP = 40  # decisions until roads carry traffic


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
        self._step: Callable[[Any], None]
        if self.device == "cuda":
            from numba.cuda import synchronize

            from arzbench.traffic.physics import cuda

            self.state = cuda.init(self.scenario, self.roads)
            self._step = lambda red: cuda.step(self.scenario, self.state, self._demand, red)
            self._wait: Callable[[], None] = synchronize
        else:
            self.state = cpu.init(self.scenario, self.roads)
            self._step = lambda red: cpu.step(
                self.scenario, self.state, self._demand, red, threads=self.threads
            )
            self._wait = lambda: None
        for _ in range(_WARMUP):
            self.run()

    def run(self) -> None:
        self._step(self._reds[self._time % len(self._reds)])
        self._wait()
        self._time += 1

    def record(self, seconds: list[float]) -> Speed:
        """The record of the times measured."""
        return Speed(
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
    functions: list[Any] = field(default_factory=list)

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
        from arzbench.traffic.env.sb3 import ArzVecEnv

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


def through_record(episodes: list[float], num_envs: int, steps: list[tuple[float, float, float]]) -> Through:
    """The record of the times measured through environments."""
    whole, engine, observe = zip(*steps, strict=True)
    return Through(
        env=ENV,
        decisions=DECISIONS,
        episode_s=tuple(episodes),
        num_envs=num_envs,
        step_s=whole,
        engine_s=engine,
        observe_s=observe,
    )

"""What `arzbench bench` measured: raw times, one value a round; every ratio is of the same round."""

from __future__ import annotations

import statistics

from arzbench.records import HostInfo, Record


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


class Speed(Record, frozen=True, kw_only=True):
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


class Through(Record, frozen=True, kw_only=True):
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


class Bench(Record, frozen=True, kw_only=True):
    """One run of `arzbench bench`."""

    id: str
    created: str
    host: HostInfo
    versions: dict[str, str]
    took_s: float
    quick: bool
    operations: dict[str, dict[str, int]]  # counted, per cell: of a stage of each scheme, of the source
    peaks: tuple[Peak, ...]
    speeds: tuple[Speed, ...]
    through: Through | None = None  # not measured on a GPU

    def peak(self, dtype: str, threads: int) -> Peak | None:
        """The peak measured for a dtype and a number of threads."""
        return next((p for p in self.peaks if (p.dtype, p.threads) == (dtype, threads)), None)

    def fraction(self, speed: Speed) -> float | None:
        """Share of the peak of as many threads, None where there is none of it."""
        peak = self.peak(speed.dtype, speed.threads)
        if peak is None:
            return None
        flop = speed.flop(self.operations)
        return statistics.median(flop / s / p for s, p in zip(speed.seconds, peak.flops, strict=True))

    def find(self, **wanted: object) -> Speed | None:
        """The first speed with these values."""
        return next((s for s in self.speeds if all(getattr(s, k) == v for k, v in wanted.items())), None)

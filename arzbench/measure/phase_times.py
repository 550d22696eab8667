"""Where measured times go: totals for a long run, raw values for a calibration."""

from __future__ import annotations

from typing import Any

from arzbench.facts import Phase
from arzbench.records import PhaseSamples

#: phases whose cost depends on whether the env's messages are on
PER_STEP = frozenset({Phase.ENV_STEP, Phase.POLICY, Phase.ROLLOUT, Phase.RESET, Phase.LOG})
#: raw values kept of a phase in one repetition; longer series are merged into blocks
MAX_VALUES = 1000


class PhaseTotals:
    """Seconds and units per phase; constant memory however long the run is."""

    def __init__(self) -> None:
        self._totals: dict[Phase, list[Any]] = {}
        self._taken: dict[Phase, tuple[float, int]] = {}

    def add(self, phase: Phase, seconds: float, units: int = 1) -> None:
        """`units` of `phase` took `seconds`."""
        try:
            total = self._totals[phase]
        except KeyError:
            total = self._totals[phase] = [0.0, 0]
        total[0] += seconds
        total[1] += units

    @property
    def totals(self) -> dict[Phase, tuple[float, int]]:
        """(seconds, units) per phase since the beginning."""
        return {phase: (seconds, units) for phase, (seconds, units) in self._totals.items()}

    def take(self, *only: Phase) -> dict[str, tuple[float, int]]:
        """(seconds, units) per phase, or of those named, since they were last taken."""
        new = {}
        for phase in only or tuple(self._totals):
            seconds, units = self._totals.get(phase, (0.0, 0))
            before = self._taken.get(phase, (0.0, 0))
            if units > before[1]:
                new[phase.value] = (seconds - before[0], units - before[1])
                self._taken[phase] = (seconds, units)
        return new


class PhaseValues:
    """Every single measurement, in order, under the logging mode it was made in."""

    def __init__(self, variant: str = "") -> None:
        self.variant = variant
        self.varied = PER_STEP  # phases kept apart by variant
        self._values: dict[tuple[Phase, str, float], list[tuple[float, int]]] = {}
        self._owed: dict[Phase, float] = {}  # of units that are not over

    def add(
        self, phase: Phase, seconds: float, units: int = 1, size: float = 0.0, variant: str | None = None
    ) -> None:
        """`units` of `phase`, of size `size`, took `seconds`; `variant`: of its own (jit: cold, warm).

        What is told of no unit is a part of the next.
        """
        seconds = max(0.0, seconds) + self._owed.pop(phase, 0.0)
        if units < 1:
            self._owed[phase] = seconds
            return
        if variant is None:
            variant = self.variant if phase in self.varied else ""
        self._values.setdefault((phase, variant, size), []).append((seconds, units))

    def samples(self, repetition: int) -> list[PhaseSamples]:
        """The raw record; the first value of a phase in a process is a warm-up where more follow."""
        samples = []
        for (phase, variant, size), values in self._values.items():
            first = len(values) > 1 and not size and phase not in (Phase.JIT, Phase.LOG)
            for warmup, chosen in ((True, values[:first]), (False, _blocks(values[first:]))):
                if chosen:
                    samples.append(
                        PhaseSamples(
                            phase=phase,
                            repetition=repetition,
                            warmup=warmup,
                            variant=variant,
                            size=size,
                            seconds=tuple(round(s, 9) for s, _ in chosen),
                            units=tuple(u for _, u in chosen),
                        )
                    )
        return samples


def _blocks(values: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Consecutive values merged so that at most MAX_VALUES remain."""
    width = -(-len(values) // MAX_VALUES)
    if width <= 1:
        return values
    groups = (values[i : i + width] for i in range(0, len(values), width))
    return [(sum(s for s, _ in g), sum(u for _, u in g)) for g in groups]

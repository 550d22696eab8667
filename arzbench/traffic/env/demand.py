"""Seeded stochastic demand, from quiet to rush hour."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandModel:
    """Arrivals at one origin: a quiet level, a rush hour, and noise.

    The mean flow rises from `quiet` to `peak` around a rush hour placed at random and falls
    back; a lognormal factor with correlation from one decision to the next multiplies it.

    Attributes:
        quiet: Range of the quiet flow [veh/s], drawn once for each episode and origin.
        peak: Range of the flow at the height of the rush hour [veh/s].
        width: Range of the rush hour's standard deviation, as a share of the episode.
        share_m: Range of the share of motorcycles [-].
        noise: Standard deviation of the logarithm of the factor [-].
        memory: Its correlation from one decision to the next [-].
    """

    quiet: tuple[float, float]
    peak: tuple[float, float]
    width: tuple[float, float] = (0.12, 0.25)
    share_m: tuple[float, float] = (0.4, 0.7)
    noise: float = 0.25
    memory: float = 0.8

    def sample(self, decisions: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return flows of motorcycles and cars [veh/s], shape (decisions, 2)."""
        time = (np.arange(decisions) + 0.5) / decisions
        quiet, peak = rng.uniform(*self.quiet), rng.uniform(*self.peak)
        width, centre = rng.uniform(*self.width), rng.uniform(0.3, 0.7)
        share = rng.uniform(*self.share_m)
        log = rng.standard_normal(decisions)
        fresh = np.sqrt(1 - self.memory**2)
        for i in range(1, decisions):
            log[i] = self.memory * log[i - 1] + fresh * log[i]
        factor = np.exp(self.noise * log - 0.5 * self.noise**2)
        flow = quiet + (peak - quiet) * np.exp(-0.5 * ((time - centre) / width) ** 2)
        return np.stack([flow * factor * share, flow * factor * (1 - share)], axis=1)


# By name, a model for each origin of a road: its entry, then its on-ramp if it has one.
Demands: TypeAlias = dict[str, tuple[DemandModel, ...]]

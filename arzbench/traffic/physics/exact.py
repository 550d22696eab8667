"""Exact solution of the Riemann problem of the single-class homogeneous ARZ model.

One class with p(rho) = K (rho / rho_jam)^gamma, no relaxation. Two waves leave the jump: the
first, of speed lambda_1 = v - rho p'(rho), is a shock or a rarefaction and keeps w = v + p; the
second is a contact that moves with v and keeps it. Between them rho solves
p(rho) = w_left - v_right. Where the vehicles ahead are faster than w_left a vacuum opens.
Aw & Rascle, SIAM J. Appl. Math. 60 (2000) 916, section 4.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Riemann:
    """A Riemann problem.

    Attributes:
        left: Density [veh/m] and speed [m/s] on the left.
        right: The same on the right.
        k: Pressure at jam density [m/s].
        rho_jam: Jam density [veh/m].
        gamma: Exponent of the pressure [-].
    """

    left: tuple[float, float]
    right: tuple[float, float]
    k: float
    rho_jam: float
    gamma: float

    def __post_init__(self) -> None:
        """Check the states.

        Raises:
            ValueError: If a density or a speed is negative.
        """
        if min(*self.left, *self.right) < 0:
            raise ValueError(f"left={self.left}, right={self.right}: densities and speeds must be >= 0")

    def pressure(self, rho: float) -> float:
        """p(rho) [m/s]."""
        return self.k * (rho / self.rho_jam) ** self.gamma

    @property
    def middle(self) -> tuple[float, float]:
        """State between the waves; of zero density if a vacuum opens, then with speed w_left."""
        (rho_l, v_l), (rho_r, v_r) = self.left, self.right
        if rho_l == 0:
            return 0.0, v_r
        w = v_l + self.pressure(rho_l)
        if rho_r == 0 or v_r >= w:
            return 0.0, w
        return float(self.rho_jam * ((w - v_r) / self.k) ** (1 / self.gamma)), v_r

    def sample(self, xi: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Density and speed at similarity coordinates xi = x / t [m/s], each of xi's shape.

        The speed of a vacuum is reported as that of the vehicle behind it.
        """
        (rho_l, v_l), (rho_r, v_r) = self.left, self.right
        rho_m, v_m = self.middle
        rho, v = np.full(xi.shape, rho_m), np.full(xi.shape, v_m)
        if rho_l > 0:
            w = v_l + self.pressure(rho_l)
            if v_m < v_l:  # shock
                head = tail = (rho_m * v_m - rho_l * v_l) / (rho_m - rho_l)
            else:
                head = v_l - self.gamma * self.pressure(rho_l)
                tail = v_m - self.gamma * self.pressure(rho_m)
            fan = (xi >= head) & (xi < tail)
            p = (w - xi[fan]) / (1 + self.gamma)
            rho[fan] = self.rho_jam * (p / self.k) ** (1 / self.gamma)
            v[fan] = w - p
            rho[xi < head], v[xi < head] = rho_l, v_l
        if rho_r > 0:
            rho[xi >= v_r], v[xi >= v_r] = rho_r, v_r
        return rho, v

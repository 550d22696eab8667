"""Problems with a known solution: Riemann problems of one class, and a smooth contact of two.

The Riemann solver is that of the single-class homogeneous ARZ model.

One class with p(rho) = K (rho / rho_jam)^gamma, no relaxation. Two waves leave the jump: the
first, of speed lambda_1 = v - rho p'(rho), is a shock or a rarefaction and keeps w = v + p; the
second is a contact that moves with v and keeps it. Between them rho solves
p(rho) = w_left - v_right. Where the vehicles ahead are faster than w_left a vacuum opens.
Aw & Rascle, SIAM J. Appl. Math. 60 (2000) 916, section 4.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.scenario import Scenario

Shape = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # of place [m]: densities of both classes

STILL = dataclasses.replace(PARAMETER_SETS["default"], tau_m=1e15, tau_c=1e15)
JAM = STILL.rho_jam
# Densities over jam density and speeds over free speed; v + p <= free speed.
CASES = {
    "shock": ((0.3, 0.7), (0.8, 0.1)),
    "standing shock": ((0.3, 0.6), (1.0, 0.0)),
    "rarefaction": ((0.8, 0.1), (0.3, 0.5)),
    "queue discharge": ((1.0, 0.0), (0.3, 0.6)),
    "contact": ((0.2, 0.4), (0.5, 0.4)),
    "vacuum opens": ((0.1, 0.1), (0.2, 0.8)),
    "vacuum ahead": ((0.5, 0.3), (0.0, 0.0)),
    "vacuum behind": ((0.0, 0.0), (0.4, 0.5)),
}


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


def problem(case: str, motorcycles: bool) -> Riemann:
    free, k, gamma = (STILL.v_free_m, STILL.k_m, 1.5) if motorcycles else (STILL.v_free_c, STILL.k_c, 2.0)
    left, right = (((x * JAM), v * free) for x, v in CASES[case])
    return Riemann(left=left, right=right, k=k, rho_jam=JAM, gamma=gamma)


def solved(case: str, motorcycles: bool, scheme: str, n: int) -> tuple[Riemann, np.ndarray]:
    """A problem in the middle of 1 km of `n` cells, and the density the engine makes of it in 15 s."""
    r = problem(case, motorcycles)
    scenario = Scenario(parameters=STILL, scheme=scheme, n_cells=n, stop_line=None)
    state = cpu.init(scenario, 1)
    row = 0 if motorcycles else 2
    fields = state.u[0, row : row + 2, scenario.cells]
    for cells, (rho, v) in ((slice(0, n // 2), r.left), (slice(n // 2, n), r.right)):
        fields[0, cells] = rho
        fields[1, cells] = rho * (v + r.pressure(rho))
    cpu.step(scenario, state, np.zeros((1, 2)), np.zeros(1, np.int64))
    return r, fields[0]


def hills(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.03 + 0.05 * np.exp(-(((x - 480) / 60) ** 2)), 0.05 + 0.04 * np.exp(-(((x - 520) / 60) ** 2))


def contact_errors(scheme: str, sizes: list[int], power: float, shape: Shape = hills) -> list[float]:
    """L1 error of a smooth contact (equal speeds, so densities are carried along) after 15 s."""
    speed, errors = 4.0, []
    nodes, weights = np.polynomial.legendre.leggauss(8)

    def averages(n: int, shift: float) -> list[np.ndarray]:
        dx = 1000.0 / n
        x = (np.arange(n)[:, None] + 0.5 + 0.5 * nodes) * dx - shift
        rho_m, rho_c = shape(x)
        p_m = STILL.k_m * ((rho_m + STILL.alpha * rho_c) / STILL.rho_jam) ** 1.5
        p_c = STILL.k_c * ((rho_m + rho_c) / STILL.rho_jam) ** 2
        fields = rho_m, rho_m * (speed + p_m), rho_c, rho_c * (speed + p_c)
        return [f @ weights / 2 for f in fields]

    for n in sizes:
        scenario = Scenario(
            parameters=STILL, scheme=scheme, n_cells=n, stop_line=None,
            n_substeps=int(40 * (n / 100) ** power) + 1,
        )  # fmt: skip
        state = cpu.init(scenario, 1)
        state.u[0, :, scenario.cells] = averages(n, 0.0)
        cpu.step(scenario, state, np.zeros((1, 2)), np.zeros(1, np.int64))
        exact = averages(n, speed * scenario.decision_s)
        inside = slice(int(0.3 * n), int(0.7 * n))  # what the boundaries cannot have reached
        gap = state.u[0, :, scenario.cells] - exact
        errors.append(float(np.abs(gap[:, inside]).mean()))
    return errors

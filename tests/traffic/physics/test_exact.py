"""The engine converges to the exact solutions of Riemann problems."""

import numpy as np
import pytest

from tests.traffic.physics.riemann import CASES, problem, solved


@pytest.mark.parametrize("case", CASES)
def test_solution_keeps_mass_and_momentum(case: str) -> None:
    """Integral form over a box: d/dt of the content is the difference of the fluxes at its ends."""
    r = problem(case, motorcycles=True)
    edges = np.linspace(-40, 40, 400_001)
    xi = (edges[1:] + edges[:-1]) / 2
    rho, v = r.sample(xi)
    w = v + np.array([r.pressure(x) for x in np.unique(rho)])[np.unique(rho, return_inverse=True)[1]]
    width = edges[1] - edges[0]
    for density in (rho, rho * w):
        start = 40 * (density[0] + density[-1])
        assert density.sum() * width - start == pytest.approx(
            density[0] * v[0] - density[-1] * v[-1], abs=2e-3
        )


def error(scheme: str, case: str, motorcycles: bool, n: int) -> float:
    """L1 error in density over the vehicles there, after 15 s on 1 km, jump in the middle."""
    r, density = solved(case, motorcycles, scheme, n)
    x = (np.arange(n * 20) + 0.5) * 50 / n - 500  # twenty places in each cell
    exact = r.sample(x / 15.0)[0].reshape(n, 20).mean(axis=1)
    inside = slice(n // 4, int(0.68 * n))  # neither entry nor exit has reached it
    return float(np.abs(density[inside] - exact[inside]).sum() / exact[n // 4 :].sum())


@pytest.mark.parametrize("motorcycles", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", ["weno5", "muscl", "first_order"])
def test_engine_converges_to_the_exact_solution(scheme: str, case: str, motorcycles: bool) -> None:
    errors = [error(scheme, case, motorcycles, n) for n in (50, 200, 800)]
    # The slowest is a contact, spread over dx^(1/2) by a first-order scheme: coarse grids, on which
    # it has hardly begun to spread, show less than that.
    gain, bound = {"weno5": (3.5, 0.004), "muscl": (2.5, 0.006), "first_order": (1.6, 0.02)}[scheme]
    assert errors[2] < errors[0] / gain
    assert errors[2] < bound

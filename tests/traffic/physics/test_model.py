"""Formulas of the model: against the equations written out in NumPy, and compiled against plain."""

import numpy as np
import pytest
from numba import njit

from arzbench.traffic.physics import junction, model
from arzbench.traffic.physics.model import constants
from arzbench.traffic.physics.parameters import PARAMETER_SETS, Parameters

RNG = np.random.default_rng(5)
DEFAULT, INCIDENT = PARAMETER_SETS["default"], PARAMETER_SETS["incident"]


def coefficients(p: Parameters) -> tuple[float, float]:
    return p.k_m / p.rho_jam**1.5, p.k_c / p.rho_jam**2


def random_densities(p: Parameters, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    return RNG.uniform(1e-3, 0.5, size) * p.rho_jam, RNG.uniform(1e-3, 0.5, size) * p.rho_jam


@pytest.mark.parametrize("p", [DEFAULT, INCIDENT])
def test_pressures_are_the_equations(p: Parameters) -> None:
    rho_m, rho_c = random_densities(p)
    p_m, p_c = model.pressures(rho_m, rho_c, *coefficients(p), constants(p))
    np.testing.assert_allclose(p_m, p.k_m * ((rho_m + p.alpha * rho_c) / p.rho_jam) ** 1.5, rtol=1e-13)
    np.testing.assert_allclose(p_c, p.k_c * ((rho_m + rho_c) / p.rho_jam) ** 2, rtol=1e-13)


def test_default_is_yu_and_krstic_for_one_class() -> None:
    """p = v_f (rho/rho_max)^gamma and V = v_f (1 - (rho/rho_max)^gamma)."""
    p, k = DEFAULT, constants(DEFAULT)
    x = np.linspace(0, 1, 50)
    zero = np.zeros_like(x)
    p_m, p_c = model.pressures(x * p.rho_jam, zero, *coefficients(p), k)
    ve_m, _ = model.equilibrium(x * p.rho_jam, zero, p_m, p_c, 1 / p.rho_jam, np.inf, k)
    np.testing.assert_allclose(ve_m, p.v_free_m * (1 - x**1.5), atol=1e-12)
    p_m, p_c = model.pressures(zero, x * p.rho_jam, *coefficients(p), k)
    _, ve_c = model.equilibrium(zero, x * p.rho_jam, p_m, p_c, 1 / p.rho_jam, np.inf, k)
    np.testing.assert_allclose(ve_c, p.v_free_c * (1 - x**2), atol=1e-12)


def test_incident_values_are_those_of_the_incident() -> None:
    p = INCIDENT
    speeds = [3.6 * v for v in (p.k_m, p.k_c, p.v_free_m, p.v_free_c, p.v_floor_m)]
    np.testing.assert_allclose(speeds, [10, 15, 70, 60, 5])
    assert (p.alpha, p.rho_jam, p.tau_m, p.tau_c) == (0.4, 0.25, 5.0, 10.0)
    ve_m, ve_c = model.equilibrium(0.25, 0.1, 3.0, 3.0, 4.0, np.inf, constants(p))
    assert ve_m == pytest.approx(5 / 3.6)  # motorcycles creep where the road is full
    assert ve_c == 0.0


@pytest.mark.parametrize("p", [DEFAULT, INCIDENT])
def test_smallest_eigenvalue_is_that_of_the_system(p: Parameters) -> None:
    """Against the Jacobian of the 4x4 quasilinear system in (rho_m, w_m, rho_c, w_c)."""
    k, (c_m, c_c) = constants(p), coefficients(p)
    for rho_m, rho_c in zip(*random_densities(p, 50), strict=True):
        p_m, p_c = model.pressures(rho_m, rho_c, c_m, c_c, k)
        w_m, w_c = p_m + 4.0, p_c + 2.0
        s_m, s_c = rho_m + p.alpha * rho_c, rho_m + rho_c
        slope_m, slope_c = 1.5 * p_m / s_m, 2 * p_c / s_c
        jacobian = np.array(
            [
                [4.0 - rho_m * slope_m, rho_m, -rho_m * p.alpha * slope_m, 0],
                [0, 4.0, 0, 0],
                [-rho_c * slope_c, 0, 2.0 - rho_c * slope_c, rho_c],
                [0, 0, 0, 2.0],
            ]
        )
        eigenvalues = np.linalg.eigvals(jacobian)
        v_m, v_c, lam = model.face_speeds(rho_m, w_m, rho_c, w_c, c_m, c_c, k)
        np.testing.assert_allclose(eigenvalues.imag, 0, atol=1e-9)
        assert lam == pytest.approx(eigenvalues.real.min(), rel=1e-9)
        assert (v_m, v_c) == pytest.approx((4.0, 2.0))


def test_wave_speed_bound_holds_where_the_road_is_not_overfull() -> None:
    p, k = DEFAULT, constants(DEFAULT)
    x_m, x_c = RNG.dirichlet((1, 1, 1), 20_000)[:, :2].T
    lam = model.face_speeds(x_m * p.rho_jam, p.v_free_m, x_c * p.rho_jam, p.v_free_c, *coefficients(p), k)
    assert -lam[2].min() <= p.wave_speed_bound
    assert max(lam[0].max(), lam[1].max()) <= p.wave_speed_bound


@pytest.mark.parametrize("p", [DEFAULT, INCIDENT])
@pytest.mark.parametrize("real", [np.float64, np.float32])
def test_compiled_functions_are_the_plain_ones(p: Parameters, real: type) -> None:
    @njit(error_model="numpy")
    def compiled(rho_m, rho_c, w_m, w_c, c_m, c_c, k):
        p_m, p_c = model.pressures(rho_m, rho_c, c_m, c_c, k)
        v_m, v_c, lam = model.face_speeds(rho_m, w_m, rho_c, w_c, c_m, c_c, k)
        flux = model.hll_mass_flux(rho_m, v_m, lam, rho_c, v_c, lam, k)
        return p_m, p_c, v_m, v_c, lam, flux

    k = constants(p, real)
    c_m, c_c = (real(c) for c in coefficients(p))
    rho_m, rho_c = random_densities(p, 30)
    for a, b in zip(rho_m.astype(real), rho_c.astype(real), strict=True):
        arguments = (a, b, real(9), real(8), c_m, c_c, k)
        ours = compiled(*arguments)
        plain = compiled.py_func(*arguments)
        assert all(np.asarray(x).dtype == real for x in plain)  # no literal promotes a float32
        np.testing.assert_allclose(ours, plain, rtol=0, atol=100 * np.finfo(real).eps)


def test_relaxation_is_exact() -> None:
    """v(t) = Ve + (v0 - Ve) exp(-t/tau) with rho and p fixed."""
    k = constants(DEFAULT)
    rho, p, v0, ve, t, tau = 0.05, 1.7, 6.0, 11.0, 4.0, 5.0
    _, flow = model.relax(rho, rho * (v0 + p), p, ve, -np.expm1(-t / tau), k)
    assert flow / rho == pytest.approx(ve + (v0 - ve) * np.exp(-t / tau), rel=1e-14)


def test_supply_is_the_largest_equilibrium_flow_then_falls_to_zero() -> None:
    p, k = DEFAULT, constants(DEFAULT)
    x = np.linspace(0, 1, 2001)
    expected = (x * p.rho_jam * p.v_free_c * (1 - x**2)).max()
    _, free = junction.supplies(0.0, 0.0, p.rho_jam, np.inf, k)
    _, full = junction.supplies(0.0, p.rho_jam, p.rho_jam, np.inf, k)
    assert free == pytest.approx(expected, rel=1e-6)
    assert full == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("change", [{"alpha": -0.1}, {"rho_jam": 0}, {"tau_m": 0}, {"k_c": np.nan}])
def test_parameters_out_of_range_are_refused(change: dict[str, float]) -> None:
    values = {name: getattr(DEFAULT, name) for name in Parameters.__dataclass_fields__}
    with pytest.raises(ValueError, match=next(iter(change))):
        Parameters(**(values | change))

"""Reconstruction: constant w kept, no state out of range; `test_engine` has the orders."""

import numpy as np
import pytest

from arzbench.traffic.physics.model import constants
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.reconstruction import muscl, weno5

K = constants(PARAMETER_SETS["default"])
TOP, FREE = 1.0, 14.0


def test_a_constant_w_stays_constant_at_a_jump() -> None:
    rho = np.array([0.01, 0.012, 0.2, 0.25, 0.02])
    y = 9.3 * rho
    for got in (weno5(*rho, *y, TOP, FREE, FREE, K), muscl(*rho[1:4], *y[1:4], FREE, FREE, K)):
        assert got[1] == pytest.approx(9.3, rel=1e-12)
        assert got[3] == pytest.approx(9.3, rel=1e-12)


def test_states_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    rho = rng.uniform(0, 0.25, (5, 4000)) * (rng.random((5, 4000)) < 0.6)
    y = rho * rng.uniform(0, 14, (5, 4000))
    for got, slack in (
        (weno5(*rho, *y, 0.25, FREE, FREE, K), 1.0),
        (muscl(*rho[1:4], *y[1:4], FREE, FREE, K), 37 / 36),  # what small steps may overshoot
    ):
        for density, w in (got[:2], got[2:]):
            assert density.min() >= 0
            assert density.max() <= 0.25 * slack
            assert w.min() >= 0
            assert w.max() <= FREE


def test_muscl_makes_no_new_extremum_of_a_large_step() -> None:
    rng = np.random.default_rng(1)
    rho = np.array([1.0, 1.3, 1.0])[:, None] * rng.uniform(0.01, 0.1, 4000) * rng.uniform(0.9, 1.1, (3, 4000))
    y = rho * np.array([1.0, 1.3, 1.0])[:, None] * rng.uniform(5, 6, (3, 4000))
    rho_l, w_l, rho_r, w_r = muscl(*rho, *y, FREE, FREE, K)
    steep = np.abs(np.diff(rho, axis=0)).max(axis=0) > rho[1] / 6
    for got, cells in ((rho_l, rho), (rho_r, rho)):
        assert (got[steep] >= cells.min(axis=0)[steep]).all()
        assert (got[steep] <= cells.max(axis=0)[steep]).all()
    w = y / rho
    steep = np.abs(np.diff(w, axis=0)).max(axis=0) > w[1] / 6
    assert steep.sum() > 100
    for got in (w_l, w_r):
        assert (got[steep] >= w.min(axis=0)[steep] * (1 - 1e-12)).all()
        assert (got[steep] <= w.max(axis=0)[steep] * (1 + 1e-12)).all()

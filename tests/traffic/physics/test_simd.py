"""Packs: each operation is NumPy's, lane by lane; and the engine leaves denormal numbers as it found them."""

import numpy as np
import pytest
from numba import njit

from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.model import choose, greatest, least, newton_root, root
from arzbench.traffic.physics.scenario import Scenario
from arzbench.traffic.physics.simd import lanes, largest, load_pack, spread, store_pack, total, within

REALS = [np.float64, np.float32]
RNG = np.random.default_rng(7)


@njit(error_model="numpy")
def every_operation(a, b, c, out):
    for q in range(0, a.size, lanes(c)):
        x, y = load_pack(a, q), load_pack(b, q)
        place = q
        for value in (x + y, x - y, x * y, x / y, -x, abs(x), x + c, c - x, c / y, least(x, y),
                      greatest(x, c), choose(x > y, x, c), choose((x <= y) & (x >= c), y, x),
                      spread(c)):  # fmt: skip
            store_pack(out, place, value)
            place += a.size


@pytest.mark.parametrize("real", REALS)
def test_operations_are_those_of_numpy(real: type) -> None:
    a, b = RNG.uniform(-2, 2, (2, 64)).astype(real)
    c = real(0.7)
    out = np.zeros(14 * a.size, real)
    every_operation(a, b, c, out)
    expected = [
        a + b, a - b, a * b, a / b, -a, abs(a), a + c, c - a, c / b, np.minimum(a, b), np.maximum(a, c),
        np.where(a > b, a, c), np.where((a <= b) & (a >= c), b, a), np.full_like(a, c),
    ]  # fmt: skip
    np.testing.assert_array_equal(out.reshape(14, -1), expected)


@njit(error_model="numpy")
def roots(a, out, c, newton):
    for q in range(0, a.size, lanes(c)):
        x = load_pack(a, q)
        store_pack(out, q, newton_root(x) if newton else root(x))


@pytest.mark.parametrize("newton", [False, True])
@pytest.mark.parametrize("real", REALS)
def test_roots_are_good_to_the_last_bits(real: type, newton: bool) -> None:
    a = np.concatenate([10.0 ** RNG.uniform(-30, 6, 16_000), np.zeros(16), np.arange(1.0, 17.0) ** 2]).astype(
        real
    )
    out = np.full_like(a, -1)
    roots(a, out, real(1), newton)
    exact = np.sqrt(a.astype(np.longdouble))
    assert (abs(out - exact) <= 1.5 * np.finfo(real).eps * exact).all()
    assert (out[-32:-16] == 0).all()


@njit(error_model="numpy")
def folds(a, c, index, count):
    x = load_pack(a, 0)
    return total(x), largest(x), total(choose(within(index, count, c), c, c - c))


@pytest.mark.parametrize("real", REALS)
def test_folds_and_the_mask_of_a_range(real: type) -> None:
    lanes = 64 // np.dtype(real).itemsize
    a = RNG.uniform(-2, 2, lanes).astype(real)
    for index in (-20, -3, -1, 0, 5):
        for count in (0, 1, 5, 9, 100):
            together, most, inside = folds(a, real(1), index, count)
            assert together == pytest.approx(a.sum(), rel=1e-5)
            assert most == a.max()
            assert inside == sum(0 <= index + i < count for i in range(lanes))


def test_the_engine_leaves_denormals_on() -> None:
    scenario = Scenario()
    cpu.step(scenario, cpu.init(scenario, 1), np.zeros((1, 2)), np.zeros(1, np.int64))
    assert np.float64(1e-310) / np.float64(2) > 0


def test_a_draining_road_ends_empty_not_in_denormals() -> None:
    scenario = Scenario(dtype="float32")
    state = cpu.init(scenario, 1)
    for i in range(60):
        level = 0.2 if i < 5 else 0.0
        cpu.step(scenario, state, np.full((1, 2), level), np.array([scenario.substeps]))
    u = state.u[0, :, scenario.cells]
    assert not ((u > 0) & (u < np.finfo(np.float32).tiny)).any()

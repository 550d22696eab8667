"""The engine: conservation, positivity, jam, stop line, orders of convergence."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.scenario import (
    ARRIVED,
    CROSSED,
    DELAY,
    LEFT,
    QUEUE_C,
    QUEUE_M,
    SCHEMES,
    STANDING,
    STOPS,
    WAITING,
    Scenario,
    State,
    vehicles,
)

DEFAULT = PARAMETER_SETS["default"]
Shape = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # of place [m]: densities of both classes


def run(scenario: Scenario, state: State, steps: int, demand: object, red: object) -> None:
    demand = np.array(demand, np.float64)
    red = np.array(red, np.int64)
    for _ in range(steps):
        cpu.step(scenario, state, demand, red)


def kept(scenario: Scenario, state: State) -> np.ndarray:
    return vehicles(scenario, state) + state.totals[:, WAITING].sum(axis=1) + state.totals[:, LEFT]


@settings(max_examples=60)
@given(
    scheme=st.sampled_from(sorted(SCHEMES)),
    parameters=st.sampled_from(sorted(PARAMETER_SETS)),
    seed=st.integers(0, 2**32 - 1),
    level=st.floats(0.0, 1.5),
)
def test_one_hour_keeps_every_vehicle(scheme: str, parameters: str, seed: int, level: float) -> None:
    """240 decisions of random demand and random light: mass to 1e-12, rho, y >= 0, no overfill."""
    rng = np.random.default_rng(seed)
    scenario = Scenario(parameters=PARAMETER_SETS[parameters], scheme=scheme)
    state = cpu.init(scenario, 1)
    for _ in range(240):
        red = rng.choice([0, scenario.substeps // 5, scenario.substeps], 1)
        cpu.step(scenario, state, rng.uniform(0, level, (1, 2)), red)
        assert state.u.min() >= 0
        assert state.totals.min() >= -1e-12
    arrived = state.totals[:, ARRIVED]
    assert abs(kept(scenario, state) - arrived).max() <= 1e-12 * max(arrived.max(), 1.0)
    report = state.report()
    assert report["negative_cells"] == 0
    if parameters == "default":
        assert report["overfull_cells"] == report["cfl_exceeded"] == report["refined_substeps"] == 0


def test_float32_keeps_vehicles_to_its_own_rounding() -> None:
    scenario = Scenario(dtype="float32")
    state = cpu.init(scenario, 1)
    for i in range(240):
        run(scenario, state, 1, [[0.2, 0.15]], [scenario.substeps * (i // 4 % 2)])
    arrived = state.totals[0, ARRIVED]
    assert abs(kept(scenario, state)[0] - arrived) <= 1e-5 * arrived
    assert state.u.dtype == np.float32
    assert state.u.min() >= 0


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("mix", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.4)])
def test_each_class_stops_at_its_own_jam(scheme: str, mix: tuple[float, float]) -> None:
    """A closed road fills to jam and no further, and what cannot enter waits at the origin."""
    scenario = Scenario(scheme=scheme)
    state = cpu.init(scenario, 1)
    run(scenario, state, 240, [mix], [scenario.substeps])
    stop = scenario.stop_cell
    rho_m, _, rho_c, _ = state.u[0, :, scenario.cells]
    effective, total = rho_m + DEFAULT.alpha * rho_c, rho_m + rho_c
    assert effective.max() <= DEFAULT.rho_jam * (1 + 1e-12)
    assert effective[stop:].max() == 0.0
    assert state.totals[0, CROSSED] == 0.0
    assert state.totals[0, QUEUE_M] + state.totals[0, QUEUE_C] > 50
    if mix[1] == 0:
        np.testing.assert_allclose(effective[:stop], DEFAULT.rho_jam, rtol=1e-2)
    if mix[0] == 0:
        assert total.max() <= DEFAULT.rho_jam * (1 + 1e-12)
        np.testing.assert_allclose(total[:stop], DEFAULT.rho_jam, rtol=1e-2)
    if min(mix) > 0:
        assert total[:stop].max() > DEFAULT.rho_jam  # motorcycles filter past standing cars


def test_soft_pressures_pass_jam_and_say_so() -> None:
    scenario = Scenario(parameters=PARAMETER_SETS["incident"])
    state = cpu.init(scenario, 1)
    run(scenario, state, 120, [[0.5, 0.4]], [scenario.substeps])
    report = state.report()
    assert report["overfull_cells"] > 0
    assert report["refined_substeps"] > 0
    assert report["negative_cells"] == 0


def test_green_and_red_differ_more_than_tenfold() -> None:
    scenario = Scenario()
    state = cpu.init(scenario, 2)
    run(scenario, state, 60, [[0.2, 0.2], [0.2, 0.2]], [0, scenario.substeps])
    green, red = state.totals[:, CROSSED]
    assert green > 300
    assert red * 10 < green


def test_queue_forms_and_discharges() -> None:
    scenario = Scenario()
    state = cpu.init(scenario, 1)
    run(scenario, state, 8, [[0.15, 0.1]], [scenario.substeps])
    standing = state.totals[0, STANDING]
    assert standing > 10
    assert state.totals[0, STOPS] >= standing * 0.9
    run(scenario, state, 8, [[0.15, 0.1]], [0])
    assert state.totals[0, STANDING] < 1
    before = state.totals[0, DELAY]
    run(scenario, state, 20, [[0.0, 0.0]], [0])
    assert vehicles(scenario, state)[0] < 1e-3
    assert state.totals[0, DELAY] - before < 100


def test_free_flow_has_no_queue_and_little_delay() -> None:
    scenario = Scenario()
    state = cpu.init(scenario, 1)
    run(scenario, state, 60, [[0.05, 0.05]], [0])
    totals = state.totals[0]
    assert totals[QUEUE_M] + totals[QUEUE_C] < 1e-9
    assert totals[STOPS] == 0
    assert totals[DELAY] < 0.2 * totals[ARRIVED] * 100  # a free crossing takes about 100 s


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cells", [1, 2, *range(94, 111), 126, 127])
def test_nothing_off_the_road_counts(cells: int, dtype: str) -> None:
    """Wherever a road ends within a pack, and however long its rows are."""
    stop_line = 10.0 * (cells // 2) if cells > 1 else None
    scenario = Scenario(n_cells=cells, length=10.0 * cells, stop_line=stop_line, dtype=dtype, n_substeps=40)
    states = [cpu.init(scenario, 1) for _ in range(2)]
    off = np.ones(scenario.stride, bool)
    off[scenario.cells] = False
    for red in (40, 40, 40, 0, 40):
        states[1].u[..., off] = 0.1
        for state in states:
            run(scenario, state, 1, [[0.5, 0.4]], [red])
    clean, littered = states
    assert clean.totals[0, STANDING] > 0 or cells < 3
    standing = clean.standing[0, scenario.cells].sum() * scenario.dx
    assert clean.totals[0, STANDING] == pytest.approx(standing, rel=1e-5)
    assert not clean.standing[:, off].any()
    np.testing.assert_array_equal(clean.totals, littered.totals)
    np.testing.assert_array_equal(clean.counters, littered.counters)
    np.testing.assert_array_equal(clean.u[..., scenario.cells], littered.u[..., scenario.cells])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    scenario = Scenario()
    rng = np.random.default_rng(3)
    demand, red = rng.uniform(0, 0.5, (7, 2)), rng.choice([0, 8, 40], 7)
    states = [cpu.init(scenario, 7) for _ in range(2)]
    for _ in range(10):
        cpu.step(scenario, states[0], demand, red, threads=threads)
        cpu.step(scenario, states[1], demand, red)
    np.testing.assert_array_equal(states[0].u, states[1].u)
    np.testing.assert_array_equal(states[0].totals, states[1].totals)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_road_is_bitwise_the_same_in_any_batch(dtype: str) -> None:
    scenario = Scenario(dtype=dtype)
    demand = np.random.default_rng(1).uniform(0, 0.5, (5, 2))
    red = np.array([0, 40, 8, 0, 40])
    batch = cpu.init(scenario, 5)
    run(scenario, batch, 12, demand, red)
    for i in range(5):
        alone = cpu.init(scenario, 1)
        run(scenario, alone, 12, demand[i : i + 1], red[i : i + 1])
        np.testing.assert_array_equal(alone.u[0], batch.u[i])
        np.testing.assert_array_equal(alone.totals[0], batch.totals[i])


def hills(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.03 + 0.05 * np.exp(-(((x - 480) / 60) ** 2)), 0.05 + 0.04 * np.exp(-(((x - 520) / 60) ** 2))


def waves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.06 + 0.03 * np.sin(x * np.pi / 125), 0.06 + 0.02 * np.cos(x * np.pi / 125)


def ripples(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.06 + 0.005 * np.sin(x * np.pi / 150), 0.06 + 0.004 * np.cos(x * np.pi / 150)


def lone_hill(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.05 + 0.06 * np.exp(-(((x - 480) / 80) ** 2)), 0 * x


def contact_errors(scheme: str, sizes: list[int], power: float, shape: Shape = hills) -> list[float]:
    """L1 error of a smooth contact (equal speeds, so densities are carried along) after 15 s."""
    still = dataclasses.replace(DEFAULT, tau_m=1e15, tau_c=1e15)
    speed, errors = 4.0, []
    nodes, weights = np.polynomial.legendre.leggauss(8)

    def averages(n: int, shift: float) -> list[np.ndarray]:
        dx = 1000.0 / n
        x = (np.arange(n)[:, None] + 0.5 + 0.5 * nodes) * dx - shift
        rho_m, rho_c = shape(x)
        p_m = still.k_m * ((rho_m + still.alpha * rho_c) / still.rho_jam) ** 1.5
        p_c = still.k_c * ((rho_m + rho_c) / still.rho_jam) ** 2
        fields = rho_m, rho_m * (speed + p_m), rho_c, rho_c * (speed + p_c)
        return [f @ weights / 2 for f in fields]

    for n in sizes:
        scenario = Scenario(
            parameters=still, scheme=scheme, n_cells=n, stop_line=None,
            n_substeps=int(40 * (n / 100) ** power) + 1,
        )  # fmt: skip
        state = cpu.init(scenario, 1)
        state.u[0, :, scenario.cells] = averages(n, 0.0)
        run(scenario, state, 1, [[0.0, 0.0]], [0])
        exact = averages(n, speed * scenario.decision_s)
        inside = slice(int(0.3 * n), int(0.7 * n))  # what the boundaries cannot have reached
        gap = state.u[0, :, scenario.cells] - exact
        errors.append(float(np.abs(gap[:, inside]).mean()))
    return errors


@pytest.mark.parametrize(
    ("scheme", "sizes", "power", "order"),
    [
        ("weno5", [100, 200, 400], 5 / 3, 4.8),  # dt ~ dx^(5/3): third order in time, fifth in space
        ("muscl", [50, 100, 200, 400, 800], 1.0, 1.8),
        ("first_order", [400, 800, 1600], 1.0, 0.95),
    ],
)
def test_order_on_a_smooth_contact(scheme: str, sizes: list[int], power: float, order: float) -> None:
    errors = contact_errors(scheme, sizes, power)
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() >= order


@pytest.mark.parametrize("shape", [waves, ripples, lone_hill])
def test_order_of_muscl_at_extrema(shape: Shape) -> None:
    """A limiter that flattens extrema falls below 1.8 on one pair of grids or another."""
    errors = contact_errors("muscl", [50, 100, 200, 400], 1.0, shape)
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() >= 1.8


@pytest.mark.parametrize("change", [{"scheme": "weno9"}, {"dtype": "float16"}, {"n_cells": 0},
                                    {"stop_line": 503.0}, {"n_substeps": 0}, {"cfl": 2.0}])  # fmt: skip
def test_bad_scenarios_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(change)))):
        Scenario(**change)


def test_no_road_is_refused() -> None:
    with pytest.raises(ValueError, match="roads=0"):
        cpu.init(Scenario(), 0)

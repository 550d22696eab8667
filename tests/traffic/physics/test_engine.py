"""The engine: jam, stop line, what it counts, batches, orders of convergence."""

import numpy as np
import pytest

from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.scenario import (
    ARRIVED,
    CROSSED,
    DELAY,
    QUEUE_C,
    QUEUE_M,
    SCHEMES,
    STANDING,
    STOPS,
    Scenario,
    State,
    vehicles,
)
from tests.traffic.physics.riemann import Shape, contact_errors

DEFAULT = PARAMETER_SETS["default"]


def run(scenario: Scenario, state: State, steps: int, demand: object, red: object) -> None:
    demand = np.array(demand, np.float64)
    red = np.array(red, np.int64)
    for _ in range(steps):
        cpu.step(scenario, state, demand, red)


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


@pytest.mark.parametrize(
    ("dtype", "threads"), [("float64", 1), ("float32", 1), ("float64", 2), ("float64", 3)]
)
def test_a_road_is_bitwise_the_same_in_any_batch_on_any_threads(dtype: str, threads: int) -> None:
    scenario = Scenario(dtype=dtype)
    demand = np.random.default_rng(1).uniform(0, 0.5, (5, 2))
    red = np.array([0, 40, 8, 0, 40])
    batch = cpu.init(scenario, 5)
    for _ in range(12):
        cpu.step(scenario, batch, demand, red, threads=threads)
    for i in range(5):
        alone = cpu.init(scenario, 1)
        run(scenario, alone, 12, demand[i : i + 1], red[i : i + 1])
        np.testing.assert_array_equal(alone.u[0], batch.u[i])
        np.testing.assert_array_equal(alone.totals[0], batch.totals[i])


def waves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.06 + 0.03 * np.sin(x * np.pi / 125), 0.06 + 0.02 * np.cos(x * np.pi / 125)


def ripples(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.06 + 0.005 * np.sin(x * np.pi / 150), 0.06 + 0.004 * np.cos(x * np.pi / 150)


def lone_hill(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.05 + 0.06 * np.exp(-(((x - 480) / 80) ** 2)), 0 * x


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

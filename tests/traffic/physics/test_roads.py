"""Any road, control and demand: no vehicle is lost, nothing is negative, each class keeps to its own jam."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from arzbench.traffic.physics import cpu
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.scenario import (
    ARRIVED,
    LEFT,
    PROFILE_LIMIT,
    SCHEMES,
    WAITING,
    Scenario,
    State,
    vehicles,
)

DEFAULT = PARAMETER_SETS["default"]
ROADS = 8
KINDS = {
    "crossing": {"stop_line": 200.0},
    "merge": {"stop_line": None, "ramp": 250.0},
    "lane drop": {"stop_line": None},
}


def road(kind: str, rng: np.random.Generator, **options: object) -> tuple[Scenario, State]:
    """Eight roads of 400 m; a lane drop takes a random share of the lanes."""
    scenario = Scenario(length=400.0, n_cells=40, **KINDS[kind], **options)
    state = cpu.init(scenario, ROADS)
    if kind == "lane drop":
        lanes = np.where(np.arange(scenario.n_cells) < 25, 1.0, rng.uniform(0.3, 0.9))
        state.profile[:] = scenario.profile(jam=lanes * scenario.parameters.rho_jam)
    return scenario, state


@settings(max_examples=54)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    scheme=st.sampled_from(sorted(SCHEMES)),
    parameters=st.sampled_from(sorted(PARAMETER_SETS)),
    seed=st.integers(0, 2**32 - 1),
    level=st.floats(0.0, 1.5),
    dtype=st.sampled_from(["float64", "float32"]),
)
def test_an_hour_of_any_control_keeps_every_vehicle(
    kind: str, scheme: str, parameters: str, seed: int, level: float, dtype: str
) -> None:
    """54 draws of eight roads with controls and demands of their own: 432 hours."""
    rng, tolerance = np.random.default_rng(seed), 1e-12 if dtype == "float64" else 1e-5
    scenario, state = road(kind, rng, scheme=scheme, parameters=PARAMETER_SETS[parameters], dtype=dtype)
    for _ in range(240):
        red = rng.integers(0, scenario.substeps + 1, ROADS) * (kind == "crossing")
        rate = rng.choice([0.0, 0.05, 0.3, np.inf], ROADS)
        if kind == "lane drop":
            state.profile[:, PROFILE_LIMIT, 10:20] = rng.choice([2.0, 8.0, 30.0], (ROADS, 1))
        cpu.step(scenario, state, rng.uniform(0, level, (ROADS, scenario.origins, 2)), red, rate)
        assert state.u.min() >= 0
        assert state.totals[:, WAITING].min() >= -1e-12
    arrived = state.totals[:, ARRIVED]
    kept = vehicles(scenario, state) + state.totals[:, WAITING].sum(axis=1) + state.totals[:, LEFT]
    assert (np.abs(kept - arrived) <= tolerance * np.maximum(arrived, 1.0)).all()
    report = state.report()
    assert report["negative_cells"] == 0
    if scenario.parameters.hard:
        assert report["overfull_cells"] == report["refined_substeps"] == 0
    if parameters == "default" and kind != "lane drop":  # the bound is of one jam density
        assert report["cfl_exceeded"] == 0


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    scheme=st.sampled_from(sorted(SCHEMES)),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_class_overfills_through_a_stop_line_or_an_entry(kind: str, scheme: str, seed: int) -> None:
    """From any state up to jam, under more demand than there is room: effective density stays at most
    jam, and total density at most jam or what the motorcycles alone have made of it."""
    rng = np.random.default_rng(seed)
    scenario, state = road(kind, rng, scheme=scheme)
    cells, p = scenario.cells, scenario.parameters
    jam = state.profile[:, 2, cells]
    total, share = jam * rng.uniform(0.3, 1.0, jam.shape), rng.uniform(0, 1, jam.shape)
    state.u[:, 0, cells], state.u[:, 2, cells] = share * total, (1 - share) * total
    for row, free in ((0, p.v_free_m), (2, p.v_free_c)):
        state.u[:, row + 1, cells] = state.u[:, row, cells] * free * rng.uniform(0.5, 1.0, jam.shape)
    for _ in range(4):
        before = state.u[:, 2, cells].copy()
        red = np.full(ROADS, scenario.substeps if kind == "crossing" else 0)
        cpu.step(scenario, state, np.full((ROADS, scenario.origins, 2), 2.0), red)
        rho_m, rho_c = state.u[:, 0, cells], state.u[:, 2, cells]
        assert (rho_m + p.alpha * rho_c <= jam * (1 + 1e-12)).all()
        full = rho_m + rho_c > jam * (1 + 1e-9)  # by motorcycles: cars alone would not fit
        assert (rho_m[full] > 0).all()
        assert (rho_c <= np.maximum(before, jam) * (1 + 1e-12)).all()
    report = state.report()
    assert report["negative_cells"] == report["overfull_cells"] == 0

"""An hour under random controls and demands, in every environment: no vehicle lost, none invented.

Each case is one environment's hour; they run in batches, which give the numbers of single ones.
"""

import numpy as np
import pytest

from arzbench.traffic.env import ENVIRONMENTS
from arzbench.traffic.env.vector import env_class
from arzbench.traffic.physics.scenario import ARRIVED, LEFT, SCHEMES, WAITING, vehicles

# Options, environments of a batch, and what mass is kept to: 3 x 3 of each kind, 270 hours. Soft pressures
# take many more substeps.
KINDS: dict[str, tuple[dict[str, str], int, float]] = {
    "own": ({}, 20, 1e-12),
    "incident": ({"parameters": "incident"}, 4, 1e-12),
    "float32": ({"parameters": "default", "dtype": "float32"}, 6, 1e-5),
}
HOUR = 240


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_an_hour_keeps_every_vehicle(name: str, scheme: str, kind: str) -> None:
    """Mass to 1e-12 of what arrived; rho, y and queues >= 0; with hard pressures no cell past its jam."""
    options, cases, tolerance = KINDS[kind]
    rng = np.random.default_rng([sorted(ENVIRONMENTS).index(name), SCHEMES[scheme], list(KINDS).index(kind)])
    batch = env_class(name).batch_type(cases, scheme=scheme, **options)
    for env in range(cases):
        batch.reset_env(env, rng)
    # From an empty road to one and a half vehicles a second of each class, in steps and bursts.
    level = rng.uniform(0.0, 1.5, (cases, 1, 1, 1, 1))
    batch.demand[:] = level * rng.uniform(0, 1, batch.demand.shape) ** 2
    batch.demand *= rng.random(batch.demand.shape) < 0.8
    hold = rng.integers(1, 20, cases)  # decisions for which a control is kept
    state = batch.state
    for t in range(HOUR):
        if t == 0:
            actions = rng.integers(0, batch.actions, cases)
        actions = np.where(t % hold == 0, rng.integers(0, batch.actions, cases), actions)
        *accounts, _ = batch.report(actions)
        assert np.min(accounts) >= -1e-12
        assert state.u[..., batch.scenario.cells].min() >= 0
        assert state.totals[:, : LEFT + 1].min() >= -1e-12
    arrived = state.totals[:, ARRIVED]
    kept = vehicles(batch.scenario, state) + state.totals[:, WAITING].sum(axis=1) + state.totals[:, LEFT]
    assert arrived.max() > 100
    np.testing.assert_array_less(np.abs(kept - arrived), tolerance * np.maximum(arrived, 1.0))
    report = state.report()
    assert report["negative_cells"] == 0
    if batch.scenario.parameters.hard:
        assert report["overfull_cells"] == report["cfl_exceeded"] == report["refined_substeps"] == 0

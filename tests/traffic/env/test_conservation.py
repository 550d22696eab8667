"""An hour under random controls and demands, in every environment: no vehicle lost, none invented.

Each case is one environment's hour; they run in batches, which give the numbers of single ones.
"""

import numpy as np
import pytest

from arzbench.traffic.env import ENVIRONMENTS
from arzbench.traffic.env.batch import ArzBatch
from arzbench.traffic.env.vector import env_class
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.scenario import ARRIVED, LEFT, SCHEMES, WAITING, vehicles

# Environments of a batch, 3 x 3 of each kind: 216 hours. Soft pressures take many more substeps.
CASES = {"own": 20, "incident": 4}
HOUR = 240


@pytest.mark.parametrize("parameters", ["own", "incident"])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_an_hour_keeps_every_vehicle(name: str, scheme: str, parameters: str) -> None:
    """Mass to 1e-12 of what arrived; rho, y and queues >= 0; with hard pressures no cell past its jam."""
    options = {} if parameters == "own" else {"parameters": parameters}
    seed = [sorted(ENVIRONMENTS).index(name), SCHEMES[scheme], parameters == "own"]
    play(
        env_class(name).batch_type(CASES[parameters], scheme=scheme, **options),
        np.random.default_rng(seed),
        1e-12,
    )


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_an_hour_in_float32_keeps_them_to_its_rounding(name: str, scheme: str) -> None:
    seed = [sorted(ENVIRONMENTS).index(name), SCHEMES[scheme], 2]
    batch = env_class(name).batch_type(6, scheme=scheme, dtype="float32", parameters="default")
    play(batch, np.random.default_rng(seed), 1e-5)


def play(batch: ArzBatch, rng: np.random.Generator, tolerance: float) -> None:
    cases = batch.num_envs
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
        _, accounts = batch.step(actions)
        assert min(values.min() for values in accounts.values()) >= -1e-12
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


def test_both_kinds_of_pressure_are_among_the_cases() -> None:
    own = {PARAMETER_SETS[env_class(name).batch_type.default_parameters].hard for name in ENVIRONMENTS}
    assert own == {True}
    assert not PARAMETER_SETS["incident"].hard
    assert len(SCHEMES) * len(ENVIRONMENTS) * sum(CASES.values()) >= 200

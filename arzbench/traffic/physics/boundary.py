"""Compiled boundaries of one road: its entry, its exit, and an on-ramp that merges into a cell."""

from typing import Any

from arzbench.traffic.physics.cells import inlined
from arzbench.traffic.physics.junction import beyond, enter, merge
from arzbench.traffic.physics.memory import load, store
from arzbench.traffic.physics.scenario import (
    FIELDS,
    NUM_GHOST,
    PROFILE_C_C,
    PROFILE_C_M,
    PROFILE_INV_JAM,
    PROFILE_JAM,
    PROFILE_LIMIT,
)


@inlined
def _cell(u: Any, road: Any, stride: Any, q: Any) -> Any:
    return (
        load(u, q), load(u, q + 2 * stride),
        load(road, PROFILE_C_M * stride + q), load(road, PROFILE_C_C * stride + q),
        load(road, PROFILE_JAM * stride + q), load(road, PROFILE_INV_JAM * stride + q),
        load(road, PROFILE_LIMIT * stride + q),
    )  # fmt: skip


@inlined
def entering(
    u: Any, road: Any, wish_m: Any, wish_c: Any, stride: Any, q: Any, dxdt: Any, slack: Any, k: Any
) -> Any:
    """Fluxes into the first cell, q."""
    return enter(_cell(u, road, stride, q), wish_m, wish_c, dxdt, slack, k)


@inlined
def set_exit(u: Any, road: Any, stride: Any, n: Any, k: Any) -> None:
    """Set the ghosts past the exit: free traffic."""
    q = NUM_GHOST + n - 1
    share = beyond(load(u, q), load(u, q + 2 * stride), load(road, PROFILE_INV_JAM * stride + q), k)
    for field in range(FIELDS):
        value = share * load(u, field * stride + q)
        for g in range(NUM_GHOST):
            store(u, field * stride + q + 1 + g, value)


@inlined
def set_merge(
    u: Any, flux: Any, road: Any, wish_m: Any, wish_c: Any, rate: Any, stride: Any, q: Any,
    dxdt: Any, slack: Any, k: Any,
) -> Any:  # fmt: skip
    """Set the mainline's fluxes into cell q and return the on-ramp's."""
    p = q - 1
    main = load(flux, p), load(flux, p + stride), load(flux, p + 2 * stride), load(flux, p + 3 * stride)
    f = merge(_cell(u, road, stride, q), main, wish_m, wish_c, rate, dxdt, slack, k)
    for field in range(FIELDS):
        store(flux, field * stride + p, f[field])
    return f[4], f[5], f[6], f[7]


@inlined
def add_to_cell(out: Any, q: Any, stride: Any, amounts: Any) -> None:
    """Add four amounts to the fields of cell q."""
    for field in range(FIELDS):
        store(out, field * stride + q, load(out, field * stride + q) + amounts[field])

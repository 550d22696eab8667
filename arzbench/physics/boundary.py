"""Compiled boundary fluxes of one road: its entry, and an on-ramp that merges into a cell."""

from typing import Any

from arzbench.physics.cells import inlined, inner
from arzbench.physics.memory import load, store
from arzbench.physics.model import equilibrium, greatest, least, limit_fluxes, pressures, supplies
from arzbench.physics.scenario import (
    FIELDS,
    PROFILE_C_C,
    PROFILE_C_M,
    PROFILE_INV_JAM,
    PROFILE_JAM,
    PROFILE_LIMIT,
)


@inlined
def _entering_w(u: Any, road: Any, stride: Any, q: Any, k: Any) -> Any:
    """w_m, w_c of vehicles that enter cell q: its equilibrium."""
    rho_m, rho_c = load(u, q), load(u, q + 2 * stride)
    c_m, c_c = load(road, PROFILE_C_M * stride + q), load(road, PROFILE_C_C * stride + q)
    limit, inv_jam = load(road, PROFILE_LIMIT * stride + q), load(road, PROFILE_INV_JAM * stride + q)
    p_m, p_c = pressures(rho_m, rho_c, c_m, c_c, k)
    ve_m, ve_c = equilibrium(rho_m, rho_c, p_m, p_c, inv_jam, limit, k)
    return least(ve_m + p_m, k.w_max_m), least(ve_c + p_c, k.w_max_c)


@inlined
def _cell(u: Any, road: Any, stride: Any, q: Any, dxdt: Any, slack: Any, k: Any) -> Any:
    """What cell q can take [veh/s]: supplies for motorcycles and cars, then room for both."""
    rho_m, rho_c = load(u, q), load(u, q + 2 * stride)
    jam = load(road, PROFILE_JAM * stride + q)
    limit = load(road, PROFILE_LIMIT * stride + q)
    supply_m, supply_c = supplies(rho_m, rho_c, jam, limit, k)
    take = dxdt * k.keep
    room_m = greatest(jam - (rho_m + k.alpha * rho_c), k.zero) * take + slack
    room_c = greatest(jam - (rho_m + rho_c), k.zero) * take + slack
    return supply_m, supply_c, room_m, room_c


@inner
def entry(
    u: Any, flux: Any, road: Any, wish_m: Any, wish_c: Any, stride: Any, q: Any, dxdt: Any,
    slack: Any, k: Any,
) -> None:  # fmt: skip
    """Set the fluxes into the first cell, q: who wishes to enter, cut to what the cell can take."""
    supply_m, supply_c, room_m, room_c = _cell(u, road, stride, q, dxdt, slack, k)
    f_m = wish_m * least(k.one, supply_m / greatest(wish_m + k.alpha * wish_c, k.v_min))
    f_c = wish_c * least(k.one, supply_c / greatest(wish_m + wish_c, k.v_min))
    f_m, f_c = limit_fluxes(f_m, f_c, wish_m * k.keep, wish_c * k.keep, room_m, room_c, k)
    w_m, w_c = _entering_w(u, road, stride, q, k)
    store(flux, q, f_m)
    store(flux, stride + q, f_m * w_m)
    store(flux, 2 * stride + q, f_c)
    store(flux, 3 * stride + q, f_c * w_c)


@inner
def merge(
    u: Any, flux: Any, road: Any, wish_m: Any, wish_c: Any, rate: Any, stride: Any, q: Any,
    dxdt: Any, slack: Any, k: Any,
) -> Any:  # fmt: skip
    """Fluxes (rho_m, y_m, rho_c, y_c) of an on-ramp into cell q, metered to `rate` [veh/s].

    The ramp takes what the mainline leaves of the cell's supply, and at least a quarter of it:
    the priority of a merge. The mainline's flux into the cell then yields the room that is short.
    """
    supply_m, supply_c, room_m, room_c = _cell(u, road, stride, q, dxdt, slack, k)
    main_m, main_c = load(flux, q), load(flux, q + 2 * stride)
    metered = least(k.one, rate / greatest(wish_m + wish_c, k.v_min))
    quarter = k.half * k.half
    free_m = greatest(supply_m - (main_m + k.alpha * main_c), quarter * supply_m)
    free_c = greatest(supply_c - (main_m + main_c), quarter * supply_c)
    f_m = wish_m * least(metered, free_m / greatest(wish_m + k.alpha * wish_c, k.v_min))
    f_c = wish_c * least(metered, free_c / greatest(wish_m + wish_c, k.v_min))
    f_m, f_c = limit_fluxes(f_m, f_c, wish_m * k.keep, wish_c * k.keep, room_m, room_c, k)
    left_m, left_c = room_m - (f_m + k.alpha * f_c), room_c - (f_m + f_c)
    new_m, new_c = limit_fluxes(main_m, main_c, main_m, main_c, left_m, left_c, k)
    share_m = new_m / greatest(main_m, k.rho_min)
    share_c = new_c / greatest(main_c, k.rho_min)
    store(flux, q, new_m)
    store(flux, q + stride, share_m * load(flux, q + stride))
    store(flux, q + 2 * stride, new_c)
    store(flux, q + 3 * stride, share_c * load(flux, q + 3 * stride))
    w_m, w_c = _entering_w(u, road, stride, q, k)
    return f_m, f_m * w_m, f_c, f_c * w_c


@inlined
def add_to_cell(out: Any, q: Any, stride: Any, amounts: Any) -> None:
    """Add four amounts to the fields of cell q."""
    for field in range(FIELDS):
        store(out, field * stride + q, load(out, field * stride + q) + amounts[field])

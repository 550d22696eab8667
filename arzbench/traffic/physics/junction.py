"""Scalar functions of the boundaries: how vehicles enter and leave a road, and how an on-ramp merges.

A `cell` is `(rho_m, rho_c, c_m, c_c, jam, inv_jam, limit)`: averages, and its column of the
road's profile. As in `model`, nothing branches and no number is a bare literal.
"""

from typing import TypeAlias

from arzbench.traffic.physics.model import (
    Constants,
    Real,
    equilibrium,
    greatest,
    least,
    limit_fluxes,
    pressures,
    room,
    root,
    scalar,
)

Cell: TypeAlias = tuple[Real, Real, Real, Real, Real, Real, Real]


@scalar
def supplies(rho_m: Real, rho_c: Real, jam: Real, limit: Real, k: Constants) -> tuple[Real, Real]:
    """Largest flows a cell can take [veh/s]: of `f_m + alpha f_c` and of `f_m + f_c`.

    The equilibrium flow at the cell's occupancy, or the largest one if the cell is less than
    critical, for each class in its own unit (effective and total density): the supply of
    Lebacque, ISTTT 13 (1996) 647.
    """
    x_m = least(greatest((rho_m + k.alpha * rho_c) / jam, k.x_crit_m), k.one)
    x_c = least(greatest((rho_m + rho_c) / jam, k.x_crit_c), k.one)
    p_m = k.k_m * (x_m * root(x_m))
    p_c = k.k_c * (x_c * x_c)
    ve_m = least(greatest(k.v_free_m - k.a_m * p_m - k.b_m * x_m, k.v_floor_m), limit)
    ve_c = least(greatest(k.v_free_c - k.a_c * p_c - k.b_c * x_c, k.v_floor_c), limit)
    return jam * (x_m * ve_m), jam * (x_c * ve_c)


@scalar
def beyond(rho_m: Real, rho_c: Real, inv_jam: Real, k: Constants) -> Real:
    """Density past the exit over that of the last cell: the same, or critical if that is more.

    The road ends in free traffic. A copy of a jam beyond the exit would hold the jam up for ever.
    """
    free_m = k.x_crit_m / greatest((rho_m + k.alpha * rho_c) * inv_jam, k.x_crit_m)
    return least(free_m, k.x_crit_c / greatest((rho_m + rho_c) * inv_jam, k.x_crit_c))


@scalar
def entering_w(cell: Cell, k: Constants) -> tuple[Real, Real]:
    """w_m, w_c [m/s] of vehicles that enter a cell: its equilibrium."""
    rho_m, rho_c, c_m, c_c, _, inv_jam, limit = cell
    p_m, p_c = pressures(rho_m, rho_c, c_m, c_c, k)
    ve_m, ve_c = equilibrium(rho_m, rho_c, p_m, p_c, inv_jam, limit, k)
    return least(ve_m + p_m, k.w_max_m), least(ve_c + p_c, k.w_max_c)


@scalar
def enter(
    cell: Cell, wish_m: Real, wish_c: Real, dxdt: Real, slack: Real, k: Constants
) -> tuple[Real, Real, Real, Real]:
    """Fluxes (rho_m, y_m, rho_c, y_c) into the first cell: the wish, cut to what it can take."""
    rho_m, rho_c, _, _, jam, _, limit = cell
    supply_m, supply_c = supplies(rho_m, rho_c, jam, limit, k)
    room_m, room_c = room(rho_m, rho_c, jam, dxdt * k.keep, slack, k)
    f_m = wish_m * least(k.one, supply_m / greatest(wish_m + k.alpha * wish_c, k.v_min))
    f_c = wish_c * least(k.one, supply_c / greatest(wish_m + wish_c, k.v_min))
    f_m, f_c = limit_fluxes(f_m, f_c, wish_m * k.keep, wish_c * k.keep, room_m, room_c, k)
    w_m, w_c = entering_w(cell, k)
    return f_m, f_m * w_m, f_c, f_c * w_c


@scalar
def merge(
    cell: Cell, main: tuple[Real, Real, Real, Real], wish_m: Real, wish_c: Real, rate: Real,
    dxdt: Real, slack: Real, k: Constants,
) -> tuple[Real, ...]:  # fmt: skip
    """Fluxes of the mainline and of an on-ramp into a cell, four each; the ramp is metered to `rate`.

    The ramp takes what the mainline leaves of the cell's supply, and at least a quarter of it:
    the priority of a merge. The mainline's flux into the cell then yields the room that is short.
    """
    rho_m, rho_c, _, _, jam, _, limit = cell
    supply_m, supply_c = supplies(rho_m, rho_c, jam, limit, k)
    room_m, room_c = room(rho_m, rho_c, jam, dxdt * k.keep, slack, k)
    main_m, main_ym, main_c, main_yc = main
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
    w_m, w_c = entering_w(cell, k)
    return (
        new_m, share_m * main_ym, new_c, share_c * main_yc,
        f_m, f_m * w_m, f_c, f_c * w_c,
    )  # fmt: skip

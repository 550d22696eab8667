"""Scalar functions of the two-class ARZ model: one source for NumPy, Numba CPU and Numba CUDA.

Classes are `m` (motorcycles) and `c` (cars). In conservative form, with `w_i = v_i + p_i`::

    d_t rho_i       + d_x(rho_i v_i)     = 0
    d_t (rho_i w_i) + d_x(rho_i w_i v_i) = rho_i (Ve_i - v_i) / tau_i
    p_m = K_m (s_m / rho_jam)^(3/2),   s_m = rho_m + alpha rho_c   (effective density)
    p_c = K_c (s_c / rho_jam)^2,       s_c = rho_m + rho_c         (total density)

Aw & Rascle, SIAM J. Appl. Math. 60 (2000) 916; Zhang, Transp. Res. B 36 (2002) 275. Units are SI:
densities in veh/m, speeds in m/s, `y_i = rho_i w_i` in veh/s.

Every function takes numbers or NumPy arrays and has no branch, so that it serves as it stands
from Python, from `numba.njit` and from a CUDA kernel. Numbers inside them come from a
`Constants` of the state's own type: a bare Python literal would turn float32 into float64.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from arzbench.traffic.physics.parameters import KMH, Parameters

Real: TypeAlias = Any  # a float, a NumPy scalar or an array of them
Function = TypeVar("Function", bound=Callable[..., Any])

# Contraction to FMA is wanted; reassociation is not: the update's increment form must stay as written.
FASTMATH = {"contract", "nnan", "nsz"}
JIT = {"fastmath": FASTMATH, "error_model": "numpy", "forceinline": True}
SMOOTH_LENGTH = 25.0  # m, the sharpest crest that MUSCL takes for a smooth one
STANDING_SPEED = 5 * KMH  # m/s, slower counts as standing in a queue


class Constants(NamedTuple):
    """`Parameters` and the numbers of the schemes, all of one floating type.

    `zero` .. `nine_halves` are literals; `beta_s` = 13/3 and `weno_eps` belong to WENO5; `calm` is
    the relative step under which MUSCL's limiter rests; `w_max_i` bounds a reconstructed w_i;
    `x_crit_i` is the occupancy of largest equilibrium flow; `rho_min` is the density under which a
    class counts as absent; `keep` and `over` are one minus and one plus a few rounding errors.
    """

    zero: Real
    third: Real
    sixth: Real
    half: Real
    one: Real
    two: Real
    three: Real
    six: Real
    three_halves: Real
    nine_halves: Real
    beta_s: Real
    weno_eps: Real
    calm: Real
    rho_min: Real
    v_min: Real
    keep: Real
    over: Real
    alpha: Real
    k_m: Real
    k_c: Real
    x_crit_m: Real
    x_crit_c: Real
    v_free_m: Real
    v_free_c: Real
    inv_free_m: Real
    inv_free_c: Real
    w_max_m: Real
    w_max_c: Real
    a_m: Real
    a_c: Real
    b_m: Real
    b_c: Real
    v_floor_m: Real
    v_floor_c: Real
    standing: Real
    stuck: Real


def constants(parameters: Parameters, dtype: Any = np.float64, dx: float = 10.0) -> Constants:
    """Return the constants of `parameters`, on cells of `dx` [m], as scalars of `dtype`."""
    p = parameters
    # A hard set keeps w <= v_free by itself; a soft one has no bound of its own.
    w_max_m, w_max_c = (p.v_free_m, p.v_free_c) if p.hard else (1e3, 1e3)
    x = np.linspace(0.0, 1.0, 10_001)
    flow_m = x * np.maximum(p.v_free_m - p.a_m * p.k_m * x**1.5 - p.b_m * x, p.v_floor_m)
    flow_c = x * np.maximum(p.v_free_c - p.a_c * p.k_c * x**2 - p.b_c * x, p.v_floor_c)
    eps = float(np.finfo(dtype).eps)
    values = {
        "zero": 0, "third": 1 / 3, "sixth": 1 / 6, "half": 0.5, "one": 1, "two": 2, "three": 3,
        "six": 6, "three_halves": 1.5, "nine_halves": 4.5, "beta_s": 13 / 3,
        "weno_eps": 1e-6 * (p.rho_jam * p.v_free_m) ** 2,
        "calm": min((dx / SMOOTH_LENGTH) ** 2, 1 / 6),
        "rho_min": 1e-9, "v_min": 1e-6, "keep": 1 - 16 * eps, "over": 1 + 64 * eps,
        "x_crit_m": x[flow_m.argmax()], "x_crit_c": x[flow_c.argmax()],
        "inv_free_m": 1 / p.v_free_m, "inv_free_c": 1 / p.v_free_c,
        "w_max_m": w_max_m, "w_max_c": w_max_c, "standing": STANDING_SPEED,
        "stuck": 0.05 * p.v_free_c if p.hard else 1e6,
    }  # fmt: skip
    names = {field.name for field in fields(p)}
    return Constants(
        *(dtype(getattr(p, name) if name in names else values[name]) for name in Constants._fields)
    )


def least(a: Real, b: Real) -> Real:
    """Smaller of two numbers (`np.minimum`; a plain select in compiled code, which vectorises)."""
    return np.minimum(a, b)


def greatest(a: Real, b: Real) -> Real:
    """Greater of two numbers."""
    return np.maximum(a, b)


def choose(condition: Any, a: Real, b: Real) -> Real:
    """`a` where `condition` holds, else `b`."""
    return np.where(condition, a, b)


def root(a: Real) -> Real:
    """Square root."""
    return np.sqrt(a)


def newton_root(a: Real) -> Real:
    """Square root, which packs make of multiply-adds: for a second one beside a busy divider."""
    return np.sqrt(a)


def _numbers(*kinds: Any) -> bool:
    return all(isinstance(kind, types.Number) for kind in kinds)


# Of numbers; packs of them have their own in `simd`.
@overload(least, jit_options=JIT, strict=False)
def _least(a: Real, b: Real) -> Any:
    return (lambda a, b: a if a < b else b) if _numbers(a, b) else None


@overload(greatest, jit_options=JIT, strict=False)
def _greatest(a: Real, b: Real) -> Any:
    return (lambda a, b: a if a > b else b) if _numbers(a, b) else None


@overload(choose, jit_options=JIT, strict=False)
def _choose(condition: Any, a: Real, b: Real) -> Any:
    return (lambda condition, a, b: a if condition else b) if isinstance(condition, types.Boolean) else None


@overload(newton_root, jit_options=JIT, strict=False)
@overload(root, jit_options=JIT, strict=False)
def _root(a: Real) -> Any:
    return (lambda a: math.sqrt(a)) if _numbers(a) else None


def scalar(function: Function) -> Function:
    """Mark a function of this file as callable from Python and from compiled code alike."""
    jitable: Any = register_jitable(**JIT)
    marked: Function = jitable(function)
    return marked


def source_tag(*modules: str) -> int:
    """Return a number that changes when any of these modules of this package does.

    Numba recompiles a cached function when its own file changes, not when the files do that it
    takes functions or constants from. What a function closes over is part of its key, so one
    that closes over this number is recompiled then too.
    """
    digest = hashlib.sha256()
    for module in modules:
        digest.update((Path(__file__).parent / f"{module}.py").read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


@scalar
def pressures(rho_m: Real, rho_c: Real, c_m: Real, c_c: Real, k: Constants) -> tuple[Real, Real]:
    """Pressures p_m, p_c [m/s], with `c_m = K_m / rho_jam^(3/2)` and `c_c = K_c / rho_jam^2`."""
    s_m = rho_m + k.alpha * rho_c
    s_c = rho_m + rho_c
    return c_m * (s_m * root(s_m)), c_c * (s_c * s_c)


@scalar
def equilibrium(
    rho_m: Real, rho_c: Real, p_m: Real, p_c: Real, inv_jam: Real, limit: Real, k: Constants
) -> tuple[Real, Real]:
    """Equilibrium speeds Ve_m, Ve_c [m/s] under a speed limit [m/s]."""
    x = (rho_m + rho_c) * inv_jam
    ve_m = greatest(k.v_free_m - k.a_m * p_m - k.b_m * x, k.v_floor_m)
    ve_c = greatest(k.v_free_c - k.a_c * p_c - k.b_c * x, k.v_floor_c)
    return least(ve_m, limit), least(ve_c, limit)


@scalar
def face_speeds(
    rho_m: Real, w_m: Real, rho_c: Real, w_c: Real, c_m: Real, c_c: Real, k: Constants
) -> tuple[Real, Real, Real]:
    """Speeds v_m, v_c and the smallest eigenvalue of a state [m/s].

    The eigenvalues are v_m, v_c and those of the density block
    `[[v_m - a, -alpha a], [-b, v_c - b]]`, `a = rho_m dp_m/drho_m`, `b = rho_c dp_c/drho_c`;
    their discriminant `(..)^2 + 4 alpha a b` is never negative, so the system is hyperbolic. Cars
    held well below v = 0 by the motorcycles filtering past them do not respond to density at
    all (d v_c = 0): there b = 0, which keeps the bound of `Parameters.wave_speed_bound`.
    """
    s_m = rho_m + k.alpha * rho_c
    s_c = rho_m + rho_c
    slope_m = c_m * root(s_m)
    slope_c = c_c * s_c
    v_m = greatest(w_m - slope_m * s_m, k.zero)
    excess = w_c - slope_c * s_c
    v_c = greatest(excess, k.zero)
    a = k.three_halves * (slope_m * rho_m)
    b = choose(excess > -k.stuck, k.two * (slope_c * rho_c), k.zero)
    z = v_c - b
    half_gap = k.half * ((v_m - a) - z)
    lam = (z + half_gap) - newton_root(half_gap * half_gap + k.alpha * (a * b))
    return v_m, v_c, lam


@scalar
def ratio(rho: Real, y: Real, w_free: Real, w_max: Real, k: Constants) -> Real:
    """w = y / rho [m/s] in [0, w_max]; where the class is absent, the w of a free vehicle."""
    present = rho > k.rho_min
    w = choose(present, y, w_free) / choose(present, rho, k.one)
    return least(greatest(w, k.zero), w_max)


@scalar
def admissible(rho: Real, y: Real, rho_max: Real, k: Constants) -> Any:
    """Whether a reconstructed state is one: within the physical range."""
    return (rho > k.rho_min) & (rho <= rho_max) & (y >= k.zero)


@scalar
def hll_mass_flux(
    rho_l: Real, v_l: Real, lam_l: Real, rho_r: Real, v_r: Real, lam_r: Real, k: Constants
) -> Real:
    """HLL flux of one class's mass [veh/s] (Harten, Lax & van Leer, SIAM Rev. 25 (1983) 35).

    The bound on the right is the class's own speed: a class moves no faster than itself, and a
    contact (equal speeds) then gets the exact upwind flux. The flux of y is the flux of mass
    times the upstream w, as in the exact Riemann solution, where w is carried by the vehicles.
    """
    s_l = least(least(lam_l, lam_r), k.zero)
    s_r = greatest(greatest(v_l, v_r), k.v_min)
    flux = s_r * (rho_l * v_l) - s_l * (rho_r * v_r) + (s_l * s_r) * (rho_r - rho_l)
    return flux / (s_r - s_l)


@scalar
def limit_fluxes(
    f_m: Real, f_c: Real, give_m: Real, give_c: Real, room_m: Real, room_c: Real, k: Constants
) -> tuple[Real, Real]:
    """Fluxes of mass [veh/s] cut to what the donor holds and the receiver can take.

    No vehicle drives backward, none leaves an empty cell, and none enters a cell that is jammed
    for its class: `f_m + f_c <= room_c` for cars, `f_m + alpha f_c <= room_m` for motorcycles.
    A smooth flow at CFL < 1 never meets these limits, so they cost no order of accuracy.
    """
    f_m = least(greatest(f_m, k.zero), give_m)
    f_c = least(least(greatest(f_c, k.zero), give_c), greatest(room_c - f_m, k.zero))
    return least(f_m, greatest(room_m - k.alpha * f_c, k.zero)), f_c


@scalar
def room(rho_m: Real, rho_c: Real, jam: Real, take: Real, slack: Real, k: Constants) -> tuple[Real, Real]:
    """Fluxes `f_m + alpha f_c` and `f_m + f_c` that fill a cell in one step [veh/s]."""
    room_m = greatest(jam - (rho_m + k.alpha * rho_c), k.zero) * take + slack
    return room_m, greatest(jam - (rho_m + rho_c), k.zero) * take + slack


@scalar
def face_fluxes(
    left: tuple[Real, ...], right: tuple[Real, ...], donor: tuple[Real, ...],
    receiver: tuple[Real, ...], dxdt: Real, slack: Real, k: Constants,
) -> tuple[Real, ...]:  # fmt: skip
    """Fluxes (rho_m, y_m, rho_c, y_c) at a face, what limits cut off, and the largest wave speed.

    Args:
        left: Face state on the left, `rho_m, w_m, v_m, rho_c, w_c, v_c, lam`.
        right: Face state on the right, `rho_m, v_m, rho_c, v_c, lam`.
        donor: Averages of the cell on the left, `rho_m, y_m, rho_c, y_c`.
        receiver: Averages of the cell on the right, `rho_m, rho_c`, and its jam density.
        dxdt: Cell size over time step [m/s].
        slack: 0 for a hard parameter set, infinity for a soft one.
        k: Constants.
    """
    rho_ml, w_m, v_ml, rho_cl, w_c, v_cl, lam_l = left
    rho_mr, v_mr, rho_cr, v_cr, lam_r = right
    raw_m = hll_mass_flux(rho_ml, v_ml, lam_l, rho_mr, v_mr, lam_r, k)
    raw_c = hll_mass_flux(rho_cl, v_cl, lam_l, rho_cr, v_cr, lam_r, k)
    give = dxdt * k.keep
    room_m, room_c = room(receiver[0], receiver[1], receiver[2], give, slack, k)
    f_m, f_c = limit_fluxes(raw_m, raw_c, donor[0] * give, donor[2] * give, room_m, room_c, k)
    y_m, y_c = least(f_m * w_m, donor[1] * give), least(f_c * w_c, donor[3] * give)
    speed = greatest(greatest(v_ml, v_mr), greatest(v_cl, v_cr))
    speed = greatest(speed, -least(lam_l, lam_r))
    return f_m, y_m, f_c, y_c, abs(raw_m - f_m) + abs(raw_c - f_c), speed


@scalar
def relax(rho: Real, y: Real, p: Real, ve: Real, decay: Real, k: Constants) -> tuple[Real, Real]:
    """(y, rho v) after relaxation, `decay = 1 - exp(-dt/tau)`: exact wherever w >= p.

    Densities and pressures do not change in the source step, so v obeys dv/dt = (Ve - v)/tau.
    """
    y = y + decay * (rho * ve - greatest(y - rho * p, k.zero))
    return y, greatest(y - rho * p, k.zero)


@scalar
def relax_cell(
    rho_m: Real, y_m: Real, rho_c: Real, y_c: Real, before: Real, c_m: Real, c_c: Real,
    inv_jam: Real, limit: Real, decay_m: Real, decay_c: Real, k: Constants,
) -> tuple[Real, ...]:  # fmt: skip
    """Relaxed y of a cell, and what is measured there.

    Returns:
        y_m, y_c; standing density [veh/m], its growth over `before`, density of time lost [-];
        1 if a field is negative, 1 if the cell is fuller than jam.
    """
    p_m, p_c = pressures(rho_m, rho_c, c_m, c_c, k)
    ve_m, ve_c = equilibrium(rho_m, rho_c, p_m, p_c, inv_jam, limit, k)
    bad = choose(least(least(rho_m, rho_c), least(y_m, y_c)) < k.zero, k.one, k.zero)
    y_m, flow_m = relax(rho_m, y_m, p_m, ve_m, decay_m, k)
    y_c, flow_c = relax(rho_c, y_c, p_c, ve_c, decay_c, k)
    slow_m = choose(flow_m < k.standing * rho_m, rho_m, k.zero)
    slow = slow_m + choose(flow_c < k.standing * rho_c, rho_c, k.zero)
    late = greatest(rho_m - flow_m * k.inv_free_m, k.zero) + greatest(rho_c - flow_c * k.inv_free_c, k.zero)
    over = choose((rho_m + k.alpha * rho_c) * inv_jam > k.over, k.one, k.zero)
    return y_m, y_c, slow, greatest(slow - before, k.zero), late, bad, over

"""Parameters of the two classes, and the sets of them that have a name."""

import math
from dataclasses import dataclass, fields, replace

KMH = 1 / 3.6  # km/h in m/s

# Free speeds in km/h by road category 1..5.
SPEED_TABLE_M = (85.0, 70.0, 50.0, 45.0, 30.0)
SPEED_TABLE_C = (75.0, 60.0, 35.0, 25.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameters of the two classes, SI units.

    The exponents of the pressures (3/2 and 2) are part of the model's form here: written as
    `s sqrt(s)` and `s s` they need no power function on any backend. The equilibrium speed is
    `Ve_i = max(v_free_i - a_i p_i - b_i s_c / rho_jam, v_floor_i)`.

    Attributes:
        alpha: Share of a car's space that a motorcycle cannot use [-].
        rho_jam: Jam density [veh/m].
        k_m: Pressure of motorcycles at jam density [m/s].
        k_c: Pressure of cars at jam density [m/s].
        v_free_m: Free speed of motorcycles [m/s].
        v_free_c: Free speed of cars [m/s].
        a_m: Weight of the pressure in Ve_m [-].
        a_c: Weight of the pressure in Ve_c [-].
        b_m: Weight of the total density in Ve_m [m/s].
        b_c: Weight of the total density in Ve_c [m/s].
        v_floor_m: Speed at which motorcycles still creep in a jam [m/s].
        v_floor_c: The same for cars [m/s].
        tau_m: Relaxation time of motorcycles [s].
        tau_c: Relaxation time of cars [s].
        hard: Whether each class stops at its own jam condition. If not, pressures are soft,
            densities may pass `rho_jam`, and the engine counts the cells where they do.
    """

    alpha: float
    rho_jam: float
    k_m: float
    k_c: float
    v_free_m: float
    v_free_c: float
    a_m: float
    a_c: float
    b_m: float
    b_c: float
    v_floor_m: float
    v_floor_c: float
    tau_m: float
    tau_c: float
    hard: bool

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: If a value is not finite, is negative, or is zero where it divides.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name}={value!r} must be finite and >= 0")
        for name in ("rho_jam", "k_m", "k_c", "v_free_m", "v_free_c", "tau_m", "tau_c"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name}=0 must be > 0")

    @property
    def wave_speed_bound(self) -> float:
        """Bound on |lambda| [m/s] while the total density is at most `rho_jam`.

        The two fields of the coupled density block have spectral radius at most the largest column
        sum of `[[rho_m dp_m/drho_m, rho_m dp_m/drho_c], [rho_c dp_c/drho_m, rho_c dp_c/drho_c]]`,
        which is at most `3/2 K_m x_m + 2 K_c x_c` with `x_i = rho_i / rho_jam`, `x_m + x_c <= 1`;
        the other two eigenvalues are the speeds themselves.
        """
        return max(self.v_free_m, self.v_free_c, 1.5 * self.k_m, 2 * self.k_c)


def _default(category: int) -> Parameters:
    """K_i = free speed and Ve_i = v_free_i - p_i, so w_i <= v_free_i and v_i = 0 at its own jam.

    The two-class form of p = v_f (rho/rho_max)^gamma, V = v_f (1 - (rho/rho_max)^gamma) of
    Yu & Krstic, Automatica 100 (2019) 38.
    """
    v_m = SPEED_TABLE_M[category - 1] * KMH
    v_c = SPEED_TABLE_C[category - 1] * KMH
    return Parameters(
        alpha=0.4, rho_jam=0.25, k_m=v_m, k_c=v_c, v_free_m=v_m, v_free_c=v_c,
        a_m=1.0, a_c=1.0, b_m=0.0, b_c=0.0, v_floor_m=0.0, v_floor_c=0.0,
        tau_m=5.0, tau_c=10.0, hard=True,
    )  # fmt: skip


def _incident(category: int) -> Parameters:
    """The parameters of the run that timed out: weak pressures, and motorcycles creep in a jam."""
    p, creep = _default(category), 5 * KMH
    return replace(
        p, k_m=10 * KMH, k_c=15 * KMH, a_m=0.0, a_c=0.0, b_m=p.v_free_m - creep, b_c=p.v_free_c,
        v_floor_m=creep, hard=False,
    )  # fmt: skip


def _freeway(category: int) -> Parameters:
    """As `default`, but Ve_i = max(v_free_i (1 - 1.15 (rho_m + rho_c) / rho_jam), 0).

    Speed linear in density (Greenshields, Proc. Highway Research Board 14 (1935) 448), at rest at
    0.87 rho_jam. Equilibrium w = Ve + p is then lowest where traffic is dense: who stood in a queue
    leaves it with a low w, and passes a bottleneck at a lower flow than free traffic would. That is
    the capacity drop of a freeway, and what ramp meters and speed limits are for.
    """
    p = _default(category)
    return replace(p, a_m=0.0, a_c=0.0, b_m=1.15 * p.v_free_m, b_c=1.15 * p.v_free_c)


PARAMETER_SETS: dict[str, Parameters] = {
    "default": _default(category=3),  # an urban street: 50 and 35 km/h
    "incident": _incident(category=2),
    "freeway": _freeway(category=1),  # 85 and 75 km/h
}

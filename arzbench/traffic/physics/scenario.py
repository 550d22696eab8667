"""What is simulated: road, grid, junction, scheme; and the layout of an engine's state."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arzbench.traffic.physics.model import Constants, constants
from arzbench.traffic.physics.parameters import PARAMETER_SETS, Parameters

FloatArray: TypeAlias = NDArray[np.floating[Any]]

NUM_GHOST = 3
TILE = 16  # cells; a multiple of every pack's size: rows of whole tiles are aligned alike
FIELDS = 4  # rho_m, y_m, rho_c, y_c

# Schemes by the number of their Runge-Kutta stages less one: Euler, and SSP-RK2 and SSP-RK3 of Shu & Osher,
# JCP 77 (1988) 439. A stage has a weight of its fluxes in the whole step, and a share of its own increment.
SCHEMES = {"first_order": 0, "muscl": 1, "weno5": 2}
STAGES = (
    ((1.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
    ((0.5, 0.5, 0.0), (1.0, 0.5, 0.0)),
    ((1 / 6, 1 / 6, 2 / 3), (1.0, 1 / 4, 2 / 3)),
)
DTYPES: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float64": np.float64}

# Rows of a road's profile, one value per cell.
PROFILE_C_M, PROFILE_C_C, PROFILE_JAM, PROFILE_INV_JAM, PROFILE_LIMIT = range(5)
PROFILE_ROWS = 5

# Columns of State.totals, one row per road, always float64. Vehicles, seconds.
QUEUE_M, QUEUE_C, RAMP_M, RAMP_C, ARRIVED, LEFT, CROSSED, DELAY, STOPS, STANDING = range(10)
WAITING = slice(QUEUE_M, RAMP_C + 1)  # origin queues, the on-ramp's included
TOTALS = 10

# Columns of State.counters.
COUNTERS = ("limited_faces", "cfl_exceeded", "refined_substeps", "negative_cells", "overfull_cells")
LIMITED, CFL_EXCEEDED, REFINED, NEGATIVE, OVERFULL = range(5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # looked up in caches, by what it is
class Scenario:
    """Identical one-way roads and how they are computed.

    Attributes:
        parameters: Parameters of the two classes.
        scheme: `weno5`, `muscl` or `first_order`.
        dtype: `float64` or `float32`.
        length: Road length [m].
        n_cells: Number of cells.
        stop_line: Position of the stop line [m], on a face; None for a road without one.
        ramp: Position of the on-ramp [m], which merges into the cell there; None without one.
        decision_s: Simulated time of one engine step [s].
        cfl: Largest `|lambda| dt / dx` aimed at.
        n_substeps: Substeps in a step; None for the smallest multiple of five that keeps `cfl`
            with `Parameters.wave_speed_bound` (a multiple of five puts 3 s of all-red on a
            substep). A soft parameter set has no bound: there each substep is checked against
            the actual speeds and divided when it must be, which `refined_substeps` counts.
    """

    parameters: Parameters = PARAMETER_SETS["default"]
    scheme: str = "weno5"
    dtype: str = "float64"
    length: float = 1000.0
    n_cells: int = 100
    stop_line: float | None = 500.0
    ramp: float | None = None
    decision_s: float = 15.0
    cfl: float = 0.8
    n_substeps: int | None = None

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            ValueError: If the scheme or dtype is unknown, the grid has no cell, or the stop line
                is not on an inner face.
        """
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme={self.scheme!r} is not one of {', '.join(SCHEMES)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.n_cells < 1 or self.length <= 0 or self.decision_s <= 0 or not 0 < self.cfl <= 1:
            raise ValueError(
                f"n_cells={self.n_cells}, length={self.length}, decision_s={self.decision_s} and "
                f"cfl={self.cfl}: all must be > 0, and cfl <= 1"
            )
        if self.n_substeps is not None and self.n_substeps < 1:
            raise ValueError(f"n_substeps={self.n_substeps} must be >= 1")
        if self.stop_line is not None:
            face = self.stop_line / self.dx
            if not (math.isclose(face, round(face)) and 0 < round(face) < self.n_cells):
                raise ValueError(f"stop_line={self.stop_line} is not an inner face of the grid")
        if self.ramp is not None and not self.dx <= self.ramp < self.length:
            raise ValueError(f"ramp={self.ramp} is not inside the road")

    @property
    def dx(self) -> float:
        """Cell size [m]."""
        return self.length / self.n_cells

    @property
    def substeps(self) -> int:
        """Substeps in one step."""
        if self.n_substeps is not None:
            return self.n_substeps
        least = self.decision_s * self.parameters.wave_speed_bound / (self.cfl * self.dx)
        return 5 * math.ceil(least / 5)

    @property
    def dt(self) -> float:
        """Time of a substep [s]."""
        return self.decision_s / self.substeps

    @property
    def decay(self) -> tuple[np.floating[Any], ...]:
        """`1 - exp(-t / tau)` of both classes over half a substep, then over a whole one."""
        taus, real = (self.parameters.tau_m, self.parameters.tau_c), self.float_type
        return tuple(real(-math.expm1(-part * self.dt / tau)) for part in (0.5, 1.0) for tau in taus)

    @property
    def slack(self) -> np.floating[Any]:
        """0 for a hard parameter set, infinity for a soft one."""
        return self.float_type(0 if self.parameters.hard else np.inf)

    @property
    def stop_cell(self) -> int:
        """Number of cells upstream of the stop line; -1 without one."""
        return -1 if self.stop_line is None else round(self.stop_line / self.dx)

    @property
    def places(self) -> tuple[int, int, int]:
        """Number of cells, `stop_cell`, and the cell the on-ramp merges into, -1 without one."""
        return self.n_cells, self.stop_cell, -1 if self.ramp is None else int(self.ramp / self.dx)

    @property
    def origins(self) -> int:
        """Origins of a road: its entry, and the on-ramp if it has one."""
        return 1 if self.ramp is None else 2

    @property
    def stride(self) -> int:
        """Length of a row: ghosts, cells, and room for the packs that a pass over them ends with."""
        tiles = -(-(self.n_cells + 2) // TILE)
        return TILE * (tiles + 1)

    @property
    def cells(self) -> slice:
        """The road's own cells in a row."""
        return slice(NUM_GHOST, NUM_GHOST + self.n_cells)

    @property
    def float_type(self) -> type[np.floating[Any]]:
        """NumPy type of the state."""
        return DTYPES[self.dtype]

    def constants(self) -> Constants:
        """Constants of the model in the state's type."""
        return constants(self.parameters, self.float_type, self.dx)

    def profile(self, *, jam: FloatArray | None = None, limit: float = np.inf) -> FloatArray:
        """Return the road's profile, shape (PROFILE_ROWS, stride).

        Args:
            jam: Jam density of each cell [veh/m], shape (n_cells,); uniform if None.
            limit: Speed limit [m/s].
        """
        p = self.parameters
        row = np.full(self.stride, p.rho_jam)
        if jam is not None:
            row[self.cells] = jam
        out = np.empty((PROFILE_ROWS, self.stride), self.float_type)
        out[PROFILE_C_M] = p.k_m / row**1.5
        out[PROFILE_C_C] = p.k_c / row**2
        out[PROFILE_JAM] = row
        out[PROFILE_INV_JAM] = 1 / row
        out[PROFILE_LIMIT] = min(limit, max(p.v_free_m, p.v_free_c))
        return out


STATE_ARRAYS = ("u", "standing", "totals", "counters", "profile")


@dataclass(slots=True, kw_only=True)
class State:
    """State of a batch of roads; an engine changes it in place.

    Attributes:
        u: Fields rho_m, y_m, rho_c, y_c with ghosts, shape (roads, FIELDS, stride).
        standing: Vehicles per metre standing in each cell, shape (roads, stride).
        totals: Origin queues [veh] and sums since the start, shape (roads, TOTALS), float64.
        counters: How often a limiter or a guard acted, shape (roads, len(COUNTERS)), int64.
        profile: Rows of `Scenario.profile`, shape (roads, PROFILE_ROWS, stride).
    """

    u: FloatArray
    standing: FloatArray
    totals: NDArray[np.float64]
    counters: NDArray[np.int64]
    profile: FloatArray

    def report(self) -> dict[str, int]:
        """Counters summed over the roads, by name."""
        return dict(zip(COUNTERS, self.counters.sum(axis=0).tolist(), strict=True))


def vehicles(scenario: Scenario, state: State) -> NDArray[np.float64]:
    """Vehicles on each road, both classes, shape (roads,)."""
    cells = state.u[:, ::2, scenario.cells].astype(np.float64)
    total: NDArray[np.float64] = cells.sum(axis=(1, 2)) * scenario.dx
    return total

"""Floating-point operations of the model, counted by running its scalar functions on numbers that count.

Counted as a processor counts its own (Intel's event FP_ARITH_INST_RETIRED): additions, subtractions,
multiplications, divisions, square roots, minima and maxima are one each (a fused multiply-add is two);
comparisons, selections, signs and absolute values are none. A product of constants alone is worked out
once and not counted.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from arzbench.traffic.physics.cells import increment
from arzbench.traffic.physics.model import Constants, constants, face_fluxes, face_speeds, relax_cell
from arzbench.traffic.physics.parameters import PARAMETER_SETS
from arzbench.traffic.physics.reconstruction import first_order, muscl, weno5

_UFUNCS = {np.sqrt: "root", np.minimum: "minimum", np.maximum: "maximum"}


def _counted(kind: str, operator: Callable[[float, float], float]) -> Any:
    def method(self: "Number", other: Any) -> "Number":
        self.tally[kind] += 1
        return Number(operator(self.value, _value(other)), self.tally)

    return method


class Number:
    """A number that books each operation done with it in a tally shared by all that come of it."""

    def __init__(self, value: float, tally: Counter[str]) -> None:
        self.value = float(value)
        self.tally = tally

    __add__ = __radd__ = _counted("addition", lambda a, b: a + b)
    __sub__ = _counted("addition", lambda a, b: a - b)
    __rsub__ = _counted("addition", lambda a, b: b - a)
    __mul__ = __rmul__ = _counted("multiplication", lambda a, b: a * b)
    __truediv__ = _counted("division", lambda a, b: a / b)
    __rtruediv__ = _counted("division", lambda a, b: b / a)

    def __neg__(self) -> "Number":
        return Number(-self.value, self.tally)

    def __abs__(self) -> "Number":
        return Number(abs(self.value), self.tally)

    def __lt__(self, other: Any) -> bool:
        return self.value < _value(other)

    def __le__(self, other: Any) -> bool:
        return self.value <= _value(other)

    def __gt__(self, other: Any) -> bool:
        return self.value > _value(other)

    def __ge__(self, other: Any) -> bool:
        return self.value >= _value(other)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any) -> Any:
        self.tally[_UFUNCS[ufunc]] += 1
        return Number(ufunc(*map(_value, inputs)), self.tally)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        assert function is np.where
        return arguments[1] if arguments[0] else arguments[2]


def _value(number: Any) -> float:
    return number.value if isinstance(number, Number) else float(number)


def _numbers(values: Any, tally: Counter[str]) -> Any:
    return tuple(Number(value, tally) for value in values)


def stage_operations(scheme: str) -> Counter[str]:
    """Operations of one Runge-Kutta stage of one cell, both classes and one face, by kind."""
    tally: Counter[str] = Counter()
    p = PARAMETER_SETS["default"]
    k = Constants(*map(float, constants(p)))
    rho, y = _numbers((0.05, 0.06, 0.08, 0.07, 0.06), tally), _numbers((0.3, 0.5, 0.6, 0.4, 0.4), tally)
    jam, c_m, c_c = _numbers((p.rho_jam, p.k_m / p.rho_jam**1.5, p.k_c / p.rho_jam**2), tally)
    faces = []
    for w_free, w_max in ((k.v_free_m, k.w_max_m), (k.v_free_c, k.w_max_c)):
        if scheme == "weno5":
            faces.append(weno5(*(*rho, *y, jam, w_free, w_max, k)))
        elif scheme == "muscl":
            faces.append(muscl(*(*rho[1:4], *y[1:4], w_free, w_max, k)))
        else:
            faces.append(first_order(rho[2], y[2], w_free, w_max, k))
    m, c = faces
    vm_l, vc_l, lam_l = face_speeds(m[0], m[1], c[0], c[1], c_m, c_c, k)
    vm_r, vc_r, lam_r = face_speeds(m[2], m[3], c[2], c[3], c_m, c_c, k)
    face_fluxes(
        (m[2], m[3], vm_r, c[2], c[3], vc_r, lam_r), (m[0], vm_l, c[0], vc_l, lam_l),
        (rho[2], y[2], rho[2], y[2]), (rho[3], rho[3], jam), 10.0, 0.0, k,
    )  # fmt: skip
    for _ in range(4):
        increment(rho[1], rho[2], y[1], y[2], 0.25, 0.1)
    return tally


def source_operations() -> Counter[str]:
    """Operations of the relaxation of one cell, both classes, with what is measured there, by kind."""
    tally: Counter[str] = Counter()
    p = PARAMETER_SETS["default"]
    k = Constants(*map(float, constants(p)))
    jam = p.rho_jam
    cell = (0.05, 0.5, 0.06, 0.4, 0.0, p.k_m / jam**1.5, p.k_c / jam**2, 1 / jam, k.v_free_m)
    relax_cell(*(*_numbers(cell, tally), 0.1, 0.05, k))
    return tally

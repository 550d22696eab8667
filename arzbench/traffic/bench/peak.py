"""The most floating-point operations a core can do: chains of FMAs with nothing else to wait for.

A chain is `x = x a + b` on one vector register. Enough independent chains hide the latency of
the unit, no load or store stands between them, and the sum of all chains is returned, so that
nothing can be left out.
"""

import functools
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from arzbench.traffic.physics.scenario import DTYPES
from arzbench.traffic.physics.simd import call, splat

_CHAINS = 12  # 2 units x 4-5 cycles of latency; with a and b they fit 16 registers
_BITS = {"float64": 64, "float32": 32}


def vector_widths() -> tuple[int, ...]:
    """Widths of this core's vector registers [bits], the widest first."""
    features = binding.get_host_cpu_features()
    needed = {512: "avx512f", 256: "avx2"}
    return (*(bits for bits, feature in needed.items() if features.get(feature)), 128)


@functools.cache
def peak_kernel(dtype: str, width: int) -> tuple[Any, int]:
    """Return a compiled `kernel(rounds, a, b)` and the floating-point operations of a round.

    Args:
        dtype: `float64` or `float32`.
        width: Bits of a vector, one of `vector_widths()`. An FMA is two operations.
    """
    lanes = width // _BITS[dtype]

    @intrinsic
    def chains(typing_context: Any, rounds: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _emit(builder, ir.VectorType(context.get_value_type(a), lanes), *arguments)

        return a(types.int64, a, b), codegen

    @njit(nogil=True)
    def kernel(rounds: int, a: Any, b: Any) -> Any:
        return chains(np.int64(rounds), a, b)

    real = DTYPES[dtype]
    kernel(1, real(0.5), real(0.5))
    return kernel, 2 * _CHAINS * lanes


def _emit(builder: Any, vector: Any, rounds: Any, a: Any, b: Any) -> Any:
    """A loop of `rounds` over the chains; returns the sum of all lanes of all of them."""
    gain, rise = splat(builder, a, vector.count), splat(builder, b, vector.count)
    # They begin apart, so that none is another's copy; the compiler keeps each in a register.
    starts = (ir.Constant(vector, [float(chain + 1)] * vector.count) for chain in range(_CHAINS))
    chains = [cgutils.alloca_once_value(builder, start) for start in starts]
    with cgutils.for_range(builder, rounds):
        for chain in chains:
            builder.store(call(builder, "llvm.fma", builder.load(chain), gain, rise), chain)
    total = functools.reduce(builder.fadd, map(builder.load, chains))
    lanes = (builder.extract_element(total, ir.Constant(ir.IntType(32), i)) for i in range(vector.count))
    return functools.reduce(builder.fadd, lanes)

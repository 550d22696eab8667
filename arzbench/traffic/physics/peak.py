"""The most floating-point operations a core can do: chains of FMAs with nothing else to wait for.

A chain is `x = x a + b` on one vector register. Enough independent chains hide the latency of
the unit, no load or store stands between them, and the sum of all chains is returned, so that
nothing can be left out.
"""

from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

from arzbench.traffic.physics.scenario import DTYPES

_CHAINS = 12  # 2 units x 4-5 cycles of latency; with a and b they fit 16 registers
_BITS = {"float64": 64, "float32": 32}


def vector_widths() -> tuple[int, ...]:
    """Widths of this core's vector registers [bits], the widest first."""
    features = binding.get_host_cpu_features()
    known = {512: "avx512f", 256: "avx2"}
    return (*(bits for bits, feature in known.items() if features.get(feature)), 128)


@cache
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
    index = ir.IntType(64)

    def spread(value: Any) -> Any:
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
        return builder.shuffle_vector(one, one, mask)

    gain, rise = spread(a), spread(b)
    begin = builder.block
    loop = builder.append_basic_block("chains")
    after = builder.append_basic_block("sum")
    builder.branch(loop)
    builder.position_at_end(loop)
    count = builder.phi(index)
    count.add_incoming(ir.Constant(index, 0), begin)
    suffix = {"double": "f64", "float": "f32"}[str(vector.element)]
    signature = ir.FunctionType(vector, [vector] * 3)
    fma = builder.module.declare_intrinsic(f"llvm.fma.v{vector.count}{suffix}", fnty=signature)
    chains = [builder.phi(vector) for _ in range(_CHAINS)]
    ends = []
    for chain, value in enumerate(chains):
        start = ir.Constant(
            vector, [float(chain + 1)] * vector.count
        )  # apart, so that none is another's copy
        value.add_incoming(start, begin)
        ends.append(builder.call(fma, [value, gain, rise]))
        value.add_incoming(ends[-1], loop)
    following = builder.add(count, ir.Constant(index, 1))
    count.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, rounds), loop, after)
    builder.position_at_end(after)
    total = ends[0]
    for end in ends[1:]:
        total = builder.fadd(total, end)
    result = builder.extract_element(total, ir.Constant(ir.IntType(32), 0))
    for lane in range(1, vector.count):
        result = builder.fadd(result, builder.extract_element(total, ir.Constant(ir.IntType(32), lane)))
    return result

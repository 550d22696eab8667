"""Raw loads and stores of single numbers, and arrays without an owner, for compiled CPU loops.

Nothing here checks bounds nor wraps a negative index: callers own that.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """`array[index]` of a contiguous 1-D array, index >= 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]], inbounds=True))

    return array.dtype(array, index), codegen


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """`array[index] = value` of a contiguous 1-D array, index >= 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        cast = context.cast(builder, arguments[2], signature.args[2], signature.args[0].dtype)
        builder.store(cast, builder.gep(data, [arguments[1]], inbounds=True))
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic
def borrow(typing_context: Any, array: Any) -> Any:
    """The same array without its owner; the caller keeps that alive.

    What is done with it then counts no references: that is an atomic operation on each call and
    slice, and each one waits for all stores before it.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        for name in ("meminfo", "parent"):
            setattr(view, name, getattr(view, name).type(None))
        return view._getvalue()

    return array(array), codegen


@intrinsic
def first_aligned(typing_context: Any, array: Any, ahead: Any) -> Any:
    """First index >= 0 from which the element `ahead` further on begins a cache line of 64 bytes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        size, line = array.dtype.bitwidth // 8, 64
        at = builder.ptrtoint(builder.gep(data, [arguments[1]]), arguments[1].type)
        short = builder.and_(builder.neg(at), at.type(line - 1))
        return builder.udiv(short, at.type(size))

    return types.int64(array, types.int64), codegen

"""Raw loads, stores and stack scratch for compiled CPU loops.

Numba's own indexing wraps negative indices, and that select keeps LLVM from vectorising a
stencil; and two arrays passed in may overlap as far as LLVM knows, while an array on the
stack cannot overlap anything. Nothing here checks bounds: callers own that.
"""

from typing import Any

from llvmlite import ir
from numba import carray, types
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
def stack_pointer(typing_context: Any, size: Any, like: Any) -> Any:
    """Pointer to `size` (a literal) elements of `like`'s type on this function's stack, not set."""
    if not isinstance(size, types.IntegerLiteral):
        return None
    length = size.literal_value

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = context.get_data_type(like)
        with builder.goto_entry_block():  # Numba's own alloca_once would also zero it on each call
            pointer = builder.alloca(ir.ArrayType(element, length))
        pointer.align = 64
        return builder.bitcast(pointer, element.as_pointer())

    return types.CPointer(like)(size, like), codegen


__all__ = ["carray", "load", "stack_pointer", "store"]

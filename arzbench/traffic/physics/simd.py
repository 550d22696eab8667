"""Packs: values of 512 bits that compiled code computes with as with one number.

A scalar function of the model runs on packs as it stands: each operator becomes one vector
instruction (or two, four on a core with shorter vectors), and `least`, `greatest`, `choose`
and the roots have their own. Nothing is left to an automatic vectoriser, which gives up on what it
cannot prove about pointers.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, models, overload, register_model

from arzbench.traffic.physics.model import JIT, choose, greatest, least, newton_root, root

_BITS = 512
_AVX512 = bool(binding.get_host_cpu_features().get("avx512f"))
_INDEX = ir.IntType(64)


class Pack(types.Type):  # type: ignore[misc]
    """Numba's type of a pack of `dtype`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = _BITS // dtype.bitwidth
        super().__init__(f"Pack({dtype})")

    def can_convert_from(self, context: Any, other: Any) -> Any:
        """A number of the same type stands for a pack of copies."""
        return context.can_convert(other, self.dtype) if other == self.dtype else None


class Mask(types.Type):  # type: ignore[misc]
    """Numba's type of the result of comparing two packs."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(f"Mask({lanes})")


@register_model(Pack)
class _PackModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, pack: Any) -> None:
        super().__init__(
            manager, pack, ir.VectorType(manager.lookup(pack.dtype).get_value_type(), pack.lanes)
        )


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, mask: Any) -> None:
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.lanes))


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of copies of a value."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))


@lower_cast(types.Float, Pack)
def _float_to_pack(context: Any, builder: Any, from_type: Any, to_type: Any, value: Any) -> Any:
    return splat(builder, value, to_type.lanes)


def _define(function: Any, arity: int, kind: Any, result: Any, emit: Callable[..., Any]) -> None:
    """Give `function` a meaning for packs (or masks): `emit(builder, *values)`."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, arguments: Any, keywords: Any) -> Any:
            pack = next((a for a in arguments if isinstance(a, kind)), None)
            if pack is None or len(arguments) != arity:
                return None
            if any(a != pack and a != getattr(pack, "dtype", None) for a in arguments):
                return None
            return signature(result(pack), *[pack] * arity)

    infer_global(function)(Template)
    lower_builtin(function, *[kind] * arity)(
        lambda context, builder, signature, arguments: emit(builder, *arguments)
    )


def _same(pack: Any) -> Any:
    return pack


def _mask(pack: Any) -> Any:
    return Mask(pack.lanes)


def call(builder: Any, name: str, *values: Any) -> Any:
    """Call LLVM's function `name` of vectors."""
    vector = values[0].type
    suffix = {"double": "f64", "float": "f32"}[str(vector.element)]
    kind = ir.FunctionType(vector, [vector] * len(values))
    return builder.call(
        builder.module.declare_intrinsic(f"{name}.v{vector.count}{suffix}", fnty=kind), values
    )


def _newton_root(builder: Any, number: Any) -> Any:
    """Root of a pack of numbers >= 0, to the last bit or two.

    With AVX-512 from the 14 bits of `vrsqrt14`: multiply-adds, which run beside a divider that would be
    busy for 7 to 18 cycles. With g = a r, where r is about 1 / root a, and e = 1 - g r: root a =
    g (1 - e)^(-1/2), a series in e of which float32 needs one term and float64 three.
    """
    vector = number.type
    if not _AVX512:
        return call(builder, "llvm.sqrt", number)
    double = str(vector.element) == "double"

    def copies(value: float) -> Any:
        return ir.Constant(vector, [value] * vector.count)

    least = copies(1e-300 if double else 1e-37)  # the root of 0 is 0
    positive = builder.select(builder.fcmp_ordered(">", number, least), number, least)
    name = f"llvm.x86.avx512.rsqrt14.p{'d' if double else 's'}.512"
    bits = ir.IntType(vector.count)
    kind = ir.FunctionType(vector, [vector, vector, bits])
    estimate = builder.call(
        builder.module.declare_intrinsic(name, fnty=kind),
        [positive, ir.Constant(vector, None), ir.Constant(bits, -1)],
    )

    def fma(a: Any, b: Any, c: Any) -> Any:
        return call(builder, "llvm.fma", a, b, c)

    g, series = builder.fmul(number, estimate), copies(1 / 2)
    error = fma(builder.fneg(g), estimate, copies(1.0))
    if double:
        series = fma(error, fma(error, copies(5 / 16), copies(3 / 8)), series)
    return fma(builder.fmul(g, error), series, g)


def _compared(symbol: str) -> Callable[..., Any]:
    return lambda builder, a, b: builder.fcmp_ordered(symbol, a, b)


_define(operator.add, 2, Pack, _same, lambda builder, a, b: builder.fadd(a, b))
_define(operator.sub, 2, Pack, _same, lambda builder, a, b: builder.fsub(a, b))
_define(operator.mul, 2, Pack, _same, lambda builder, a, b: builder.fmul(a, b))
_define(operator.truediv, 2, Pack, _same, lambda builder, a, b: builder.fdiv(a, b))
_define(operator.neg, 1, Pack, _same, lambda builder, a: builder.fneg(a))
_define(abs, 1, Pack, _same, lambda builder, a: call(builder, "llvm.fabs", a))
_define(root, 1, Pack, _same, lambda builder, a: call(builder, "llvm.sqrt", a))
_define(newton_root, 1, Pack, _same, _newton_root)
_define(operator.and_, 2, Mask, _same, lambda builder, a, b: builder.and_(a, b))
_define(least, 2, Pack, _same, lambda builder, a, b: builder.select(_compared("<")(builder, a, b), a, b))
_define(greatest, 2, Pack, _same, lambda builder, a, b: builder.select(_compared(">")(builder, a, b), a, b))
for _operator, _symbol in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _define(_operator, 2, Pack, _mask, _compared(_symbol))


@intrinsic
def _select(context: Any, mask: Any, a: Any, b: Any) -> Any:
    pack = next((kind for kind in (a, b) if isinstance(kind, Pack)), None) or Pack(a)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return signature(pack, mask, pack, pack), codegen


@overload(choose, jit_options=JIT, strict=False)
def _choose(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, Mask):
        return lambda condition, a, b: _select(condition, a, b)
    return None


def _pointer(context: Any, builder: Any, array: Any, kind: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index], inbounds=True), vector.as_pointer())


@intrinsic
def load_pack(context: Any, array: Any, index: Any) -> Any:
    """Elements of a contiguous 1-D array from `index` on, as many as a pack holds."""
    pack = Pack(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(pack)
        at = _pointer(context, builder, arguments[0], signature.args[0], arguments[1], vector)
        return builder.load(at, align=array.dtype.bitwidth // 8)

    return pack(array, index), codegen


@intrinsic
def store_pack(context: Any, array: Any, index: Any, pack: Any) -> Any:
    """Write a pack (or copies of a number) to a contiguous 1-D array from `index` on."""
    kind = Pack(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(kind)
        at = _pointer(context, builder, arguments[0], signature.args[0], arguments[1], vector)
        builder.store(arguments[2], at, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature(types.void, array, index, kind), codegen


@intrinsic
def spread(context: Any, number: Any) -> Any:
    """A pack of copies of a number."""
    pack = Pack(number)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return splat(builder, arguments[0], pack.lanes)

    return pack(number), codegen


@intrinsic
def cast(context: Any, number: Any, like: Any) -> Any:
    """A number as one of the type of another: a product with float64 would be float64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], signature.args[0], like)

    return like(number, like), codegen


@intrinsic
def lanes(context: Any, number: Any) -> Any:
    """How many numbers of this type a pack holds."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(_INDEX, Pack(number).lanes)

    return types.int64(number), codegen


@intrinsic
def within(context: Any, index: Any, count: Any, number: Any) -> Any:
    """Mask of the lanes `i` of a pack for which `0 <= index + i < count`."""
    lanes = Pack(number).lanes

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        index, count = (splat(builder, value, lanes) for value in arguments[:2])
        places = builder.add(index, ir.Constant(index.type, list(range(lanes))))
        return builder.icmp_unsigned("<", places, count)  # less than nothing is more than all, unsigned

    return signature(Mask(lanes), types.int64, types.int64, number), codegen


def _fold(combine: Callable[..., Any]) -> Any:
    """An intrinsic that folds a pack's halves onto each other until one number is left."""

    @intrinsic
    def fold(context: Any, pack: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, count = arguments[0], pack.lanes
            while count > 1:
                count //= 2
                halves = [
                    builder.shuffle_vector(
                        value,
                        value,
                        ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(at, at + count))),
                    )
                    for at in (0, count)
                ]
                value = combine(builder, *halves)
            return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return pack.dtype(pack), codegen

    return fold


total = _fold(lambda builder, a, b: builder.fadd(a, b))
largest = _fold(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def flush_denormals(context: Any, state: Any) -> Any:
    """Set this thread's control of denormal numbers (x86: bits 15 and 6 of MXCSR); returns what it was.

    -1 switches them off: read and written as zero. Anything else is what an earlier call returned.
    Elsewhere than on x86 nothing happens.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not binding.get_default_triple().startswith(("x86_64", "i386", "i686")):
            return arguments[0]
        word, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte])
        slot = builder.alloca(word)
        at = builder.bitcast(slot, byte)
        builder.call(builder.module.declare_intrinsic("llvm.x86.sse.stmxcsr", fnty=kind), [at])
        old = builder.load(slot)
        wanted = builder.trunc(arguments[0], word)
        off = builder.icmp_signed("==", arguments[0], ir.Constant(arguments[0].type, -1))
        builder.store(builder.select(off, builder.or_(old, ir.Constant(word, 0x8040)), wanted), slot)
        builder.call(builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", fnty=kind), [at])
        return builder.zext(old, _INDEX)

    return types.int64(types.int64), codegen

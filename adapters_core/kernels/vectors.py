"""Several float32 numbers in one value, for compiled loops over as many rows at a time.

numba turns a loop into vector instructions only where it can prove that its arrays do not overlap,
which it cannot for arrays that are passed in. These few operations say it outright. LLVM breaks a
vector into what the processor has. No two roundings are contracted into one, and a lane never sees
another, so a row's bits do not depend on its neighbours, nor on how many lanes a vector has.

simd16.py and simd8.py have the operations of the two sizes in use.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model


class LanesType(types.Type):
    """The type of a vector of `count` numbers."""

    def __init__(self, count: int) -> None:
        super().__init__(name=f"Lanes{count}")
        self.count = count
        self.vector = ir.VectorType(ir.FloatType(), count)


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.vector)  # type: ignore[no-untyped-call]


def address_of(lanes: LanesType, context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Return the address of the vector at `array[at:]`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), lanes.vector.as_pointer())


def picked(lanes: LanesType, order: list[int]) -> Any:
    """Return a shuffle's mask: below `count` a lane of its first vector, beyond of its second."""
    return ir.Constant(ir.VectorType(ir.IntType(32), lanes.count), order)


def exchanged(lanes: LanesType, builder: Any, rows: list[Any]) -> list[Any]:
    """Return vectors as columns: off-diagonal halves of blocks of two, four, eight … swapped."""
    count, size = lanes.count, 1
    indices = range(count)
    while size < count:
        upper = picked(lanes, [i if not i & size else i - size + count for i in indices])
        lower = picked(lanes, [i + size if not i & size else i + count for i in indices])
        for i in (i for i in indices if not i & size):
            a, b = rows[i], rows[i + size]
            rows[i] = builder.shuffle_vector(a, b, upper)
            rows[i + size] = builder.shuffle_vector(a, b, lower)
        size *= 2
    return rows


def _loaded(lanes: LanesType, context: Any, builder: Any, kind: Any, *place: Any) -> Any:
    value = builder.load(address_of(lanes, context, builder, kind, *place))
    value.align = 4
    return value


def _splatted(lanes: LanesType, builder: Any, number: Any) -> Any:
    nothing = ir.Constant(lanes.vector, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, picked(lanes, [0] * lanes.count))


def loading(lanes: LanesType) -> Callable[..., Any]:
    """Return `load(array, index)`: `array[index : index + count]` of a float32 array, unchecked."""

    @intrinsic
    def load(typing_context, array, index):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return _loaded(lanes, context, builder, signature.args[0], *args)

        return lanes(array, types.uintp), generate

    made: Callable[..., Any] = load
    return made


def splatting(lanes: LanesType) -> Callable[..., Any]:
    """Return `splat(number)`: one float32 number in every lane."""

    @intrinsic
    def splat(typing_context, number):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return _splatted(lanes, builder, args[0])

        return lanes(types.float32), generate

    made: Callable[..., Any] = splat
    return made


@intrinsic
def load_like(typing_context, like, array, index):  # type: ignore[no-untyped-def]
    """Return `load(array, index)` with as many lanes as the vector `like`."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _loaded(signature.args[0], context, builder, signature.args[1], *args[1:])

    return like(like, array, types.uintp), generate


@intrinsic
def splat_like(typing_context, like, number):  # type: ignore[no-untyped-def]
    """Return `splat(number)` with as many lanes as the vector `like`."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _splatted(signature.args[0], builder, args[1])

    return like(like, types.float32), generate


@intrinsic
def lanes_of(typing_context, like):  # type: ignore[no-untyped-def]
    """Return how many lanes a vector has."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return context.get_constant(types.uintp, signature.args[0].count)

    return types.uintp(like), generate


@intrinsic
def store(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """Write a vector to `array[index : index + count]`."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind, _, lanes = signature.args
        pointer = address_of(lanes, context, builder, kind, *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.uintp, value), generate


def _binary(operation: str) -> Callable[..., Any]:
    @intrinsic
    def apply(typing_context, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return getattr(builder, operation)(*args)

        return a(a, b), generate

    made: Callable[..., Any] = apply
    return made


add = _binary("fadd")
sub = _binary("fsub")
mul = _binary("fmul")

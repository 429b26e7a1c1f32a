"""Sixteen float32 numbers in one register, for compiled loops over sixteen rows at a time.

numba turns a loop into vector instructions only where it can prove that its arrays do not overlap,
which it cannot for arrays that are passed in. These few operations say it outright. LLVM breaks a
vector of sixteen into what the processor has. No two roundings are contracted into one, and a lane
never sees another, so a row's bits do not depend on its neighbours.
"""

from collections.abc import Callable
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model
from torch import Tensor

LANES = 16
_STREAMED_BYTES = 4 * LANES
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes16")


_LANES_TYPE = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def can_stream(golden: Tensor | None, out: Tensor) -> bool:
    """Return whether loops may read `golden`, if given, and `stream` all of `out`."""
    fits = all(
        one.dtype == torch.float32 and one.device.type == "cpu" and one.is_contiguous()
        for one in (golden, out)
        if one is not None
    )
    return fits and out.numel() % LANES == 0 and out.data_ptr() % _STREAMED_BYTES == 0


@intrinsic
def load(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Return `array[index : index + 16]` of a flat float32 array; nothing is checked."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        value = builder.load(_address(context, builder, signature.args[0], *args))
        value.align = 4
        return value

    return _LANES_TYPE(array, types.uintp), generate


@intrinsic
def store(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """Write sixteen numbers to `array[index : index + 16]`."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.uintp, _LANES_TYPE), generate


@intrinsic
def stream(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """Write sixteen numbers past the caches: the line that is written is not read first.

    64 bytes divide the address (`can_stream`), and other threads see them after `streamed`.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(context, builder, signature.args[0], *args[:2])
        one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        builder.store(args[2], pointer, align=_STREAMED_BYTES).set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return types.void(array, types.uintp, _LANES_TYPE), generate


@intrinsic
def streamed(typing_context):  # type: ignore[no-untyped-def]
    """Wait until what this thread has streamed is in memory."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def splat(typing_context, number):  # type: ignore[no-untyped-def]
    """Return one float32 number in every lane."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(nothing, args[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, nothing, zeros)

    return _LANES_TYPE(types.float32), generate


@intrinsic
def backwards(typing_context, value):  # type: ignore[no-untyped-def]
    """Return the lanes in reverse order."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(range(LANES))[::-1])
        return builder.shuffle_vector(args[0], ir.Constant(_VECTOR, ir.Undefined), order)

    return _LANES_TYPE(_LANES_TYPE), generate


def _pick(order: list[int]) -> Any:
    """Return a shuffle's mask: below 16 a lane of its first vector, from 16 on of its second."""
    return ir.Constant(ir.VectorType(ir.IntType(32), LANES), order)


def _interleaving(first: int) -> Callable[..., Any]:
    order = [lane for i in range(first, first + LANES // 2) for lane in (i, i + LANES)]

    @intrinsic
    def apply(typing_context, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.shuffle_vector(args[0], args[1], _pick(order))

        return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), generate

    made: Callable[..., Any] = apply
    return made


#: a0 b0 a1 b1 … of the lower and of the upper halves of two vectors.
interleave_low, interleave_high = _interleaving(0), _interleaving(LANES // 2)


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Swap the off-diagonal halves of blocks of two, then of four, eight and sixteen."""
    lanes, size = range(LANES), 1
    while size < LANES:
        upper = _pick([lane if not lane & size else lane - size + LANES for lane in lanes])
        lower = _pick([lane + size if not lane & size else lane + LANES for lane in lanes])
        for i in (i for i in lanes if not i & size):
            a, b = rows[i], rows[i + size]
            rows[i] = builder.shuffle_vector(a, b, upper)
            rows[i + size] = builder.shuffle_vector(a, b, lower)
        size *= 2
    return rows


@intrinsic
def transpose(typing_context, source, at, target):  # type: ignore[no-untyped-def]
    """Write the 16 x 16 numbers at `source[at:]` to `target[0:]`, rows and columns exchanged."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def step(start: Any, i: int) -> Any:
            return builder.add(start, ir.Constant(start.type, i * LANES))

        def loaded(i: int) -> Any:
            address = _address(context, builder, signature.args[0], args[0], step(args[1], i))
            value = builder.load(address)
            value.align = 4
            return value

        zero = ir.Constant(args[1].type, 0)
        for i, row in enumerate(_transpose(builder, [loaded(i) for i in range(LANES)])):
            address = _address(context, builder, signature.args[2], args[2], step(zero, i))
            builder.store(row, address, align=4)
        return context.get_dummy_value()

    return types.void(source, types.uintp, target), generate


def _binary(operation: str) -> Callable[..., Any]:
    @intrinsic
    def apply(typing_context, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return getattr(builder, operation)(*args)

        return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), generate

    made: Callable[..., Any] = apply
    return made


add = _binary("fadd")
sub = _binary("fsub")
mul = _binary("fmul")

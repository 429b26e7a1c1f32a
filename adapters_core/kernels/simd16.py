"""Sixteen float32 numbers, for compiled loops over sixteen rows at a time; see vectors.py.

Sixteen are a line of the cache, so that whole ones can be written past it.
"""

from collections.abc import Callable
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from adapters_core.kernels.vectors import (
    LanesType,
    add,
    address_of,
    exchanged,
    loading,
    mul,
    picked,
    splatting,
    store,
    sub,
)

__all__ = [
    "LANES",
    "add",
    "backwards",
    "can_stream",
    "interleave_high",
    "interleave_low",
    "load",
    "mul",
    "splat",
    "store",
    "stream",
    "streamed",
    "sub",
    "transpose",
]

LANES = 16
_STREAMED_BYTES = 4 * LANES
_LANES_TYPE = LanesType(LANES)

load, splat = loading(_LANES_TYPE), splatting(_LANES_TYPE)


def can_stream(golden: Tensor | None, out: Tensor) -> bool:
    """Return whether loops may read `golden`, if given, and `stream` all of `out`."""
    fits = all(
        one.dtype == torch.float32 and one.device.type == "cpu" and one.is_contiguous()
        for one in (golden, out)
        if one is not None
    )
    return fits and out.numel() % LANES == 0 and out.data_ptr() % _STREAMED_BYTES == 0


@intrinsic
def stream(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """Write sixteen numbers past the caches: the line that is written is not read first.

    64 bytes divide the address (`can_stream`), and other threads see them after `streamed`.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = address_of(_LANES_TYPE, context, builder, signature.args[0], *args[:2])
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
def backwards(typing_context, value):  # type: ignore[no-untyped-def]
    """Return the lanes in reverse order."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        order = picked(_LANES_TYPE, list(range(LANES))[::-1])
        nothing = ir.Constant(_LANES_TYPE.vector, ir.Undefined)
        return builder.shuffle_vector(args[0], nothing, order)

    return _LANES_TYPE(_LANES_TYPE), generate


def _interleaving(first: int) -> Callable[..., Any]:
    order = [lane for i in range(first, first + LANES // 2) for lane in (i, i + LANES)]

    @intrinsic
    def apply(typing_context, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.shuffle_vector(args[0], args[1], picked(_LANES_TYPE, order))

        return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), generate

    made: Callable[..., Any] = apply
    return made


#: a0 b0 a1 b1 … of the lower and of the upper halves of two vectors.
interleave_low, interleave_high = _interleaving(0), _interleaving(LANES // 2)


@intrinsic
def transpose(typing_context, source, at, target):  # type: ignore[no-untyped-def]
    """Write the 16 x 16 numbers at `source[at:]` to `target[0:]`, rows and columns exchanged."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def step(start: Any, i: int) -> Any:
            return builder.add(start, ir.Constant(start.type, i * LANES))

        def address(which: int, start: Any, i: int) -> Any:
            kind, array = signature.args[which], args[which]
            return address_of(_LANES_TYPE, context, builder, kind, array, step(start, i))

        values = [builder.load(address(0, args[1], i)) for i in range(LANES)]
        for value in values:
            value.align = 4
        zero = ir.Constant(args[1].type, 0)
        for i, row in enumerate(exchanged(_LANES_TYPE, builder, values)):
            builder.store(row, address(2, zero, i), align=4)
        return context.get_dummy_value()

    return types.void(source, types.uintp, target), generate

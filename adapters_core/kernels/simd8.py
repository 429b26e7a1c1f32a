"""Eight float32 numbers, for a batch's loops over eight rows at a time; see vectors.py.

Eight are what AVX2 has in a register, and few rows waste little of them.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from adapters_core.kernels.vectors import (
    LanesType,
    add,
    address_of,
    exchanged,
    loading,
    mul,
    splatting,
    store,
    sub,
)

__all__ = ["LANES", "add", "lanes_to_rows", "load", "mul", "rows_to_lanes", "splat", "store", "sub"]

LANES = 8
_LANES_TYPE = LanesType(LANES)

load, splat = loading(_LANES_TYPE), splatting(_LANES_TYPE)


def _tile(context: Any, builder: Any, kind: Any, tile: Any) -> list[Any]:
    """Return the addresses of the eight vectors of a tile."""
    steps = (ir.Constant(ir.IntType(64), i * LANES) for i in range(LANES))
    return [address_of(_LANES_TYPE, context, builder, kind, tile, step) for step in steps]


def _rows(context: Any, builder: Any, kinds: Any, array: Any, starts: Any, at: Any) -> list[Any]:
    """Return the addresses of `array[starts[i] + at]` for i = 0..7."""
    firsts = context.make_array(kinds[1])(context, builder, starts).data
    found = []
    for i in range(LANES):
        first = builder.load(builder.gep(firsts, [ir.Constant(at.type, i)]))
        index = builder.add(first, at)
        found.append(address_of(_LANES_TYPE, context, builder, kinds[0], array, index))
    return found


def _turn(builder: Any, sources: list[Any], targets: list[Any]) -> None:
    """Exchange rows and columns on the way, and write the first target last."""
    values = [builder.load(source) for source in sources]
    for value in values:
        value.align = 4
    columns = exchanged(_LANES_TYPE, builder, values)
    for value, target in reversed(list(zip(columns, targets, strict=True))):
        builder.store(value, target, align=4)


@intrinsic
def rows_to_lanes(typing_context, source, starts, at, tile):  # type: ignore[no-untyped-def]
    """Write eight numbers each of eight rows to `tile[0:64]`, number by number.

    tile[8 j + i] = source[starts[i] + at + j]; starts are uint64.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        rows = _rows(context, builder, signature.args[:2], *args[:3])
        _turn(builder, rows, _tile(context, builder, signature.args[3], args[3]))
        return context.get_dummy_value()

    return types.void(source, starts, types.uintp, tile), generate


@intrinsic
def lanes_to_rows(typing_context, tile, target, starts, at):  # type: ignore[no-untyped-def]
    """Write the eight lanes of `tile[0:64]` to eight rows, the first row last.

    target[starts[i] + at + j] = tile[8 j + i]; of rows with the same start the first remains.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        rows = _rows(context, builder, signature.args[1:3], *args[1:])
        _turn(builder, _tile(context, builder, signature.args[0], args[0]), rows)
        return context.get_dummy_value()

    return types.void(tile, target, starts, types.uintp), generate

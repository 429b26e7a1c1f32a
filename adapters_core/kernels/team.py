"""Compiled loops over blocks that do not depend on each other, on torch's own threads.

torch's threads wait for its next operation, and those of another pool would take turns with them.
They enter a loop together through `GOMP_parallel`, which is what a compiler makes of `#pragma omp
parallel`, and each takes the next block until none is left. To begin takes 50 us, so loops over few
blocks are called by one thread as they are; so are all where torch has another OpenMP.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

#: Blocks that are worth a team.
_FEWEST = 7


@intrinsic
def take(typing_context, given, index):  # type: ignore[no-untyped-def]
    """Return `given[index]` and add one to it; no two threads get the same number."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.gep(data, [args[1]])
        return builder.atomic_rmw("add", place, ir.Constant(args[1].type, 1), "monotonic")

    return types.uintp(given, types.uintp), generate


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """Return an address as a pointer."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.uintp), generate


@numba.njit
def _shaped(at, place, shape, dtype):  # type: ignore[no-untyped-def]
    return carray(_pointer(at[place]), shape, dtype)  # type: ignore[call-arg]  # pragma: no cover


@numba.njit
def vector(at, place, dtype):  # type: ignore[no-untyped-def]
    """Return the array `[n]` that stands at `place` in a loop's arguments: two of their numbers."""
    return _shaped(at, place, int(at[place + 1]), dtype)  # pragma: no cover - compiled


@numba.njit
def matrix(at, place, dtype):  # type: ignore[no-untyped-def]
    """Return the array `[n, m]` that stands there: three numbers."""
    shape = (int(at[place + 1]), int(at[place + 2]))  # pragma: no cover - compiled
    return _shaped(at, place, shape, dtype)


@numba.njit
def cube(at, place, dtype):  # type: ignore[no-untyped-def]
    """Return the array `[n, m, k]` that stands there: four numbers."""
    shape = (int(at[place + 1]), int(at[place + 2]), int(at[place + 3]))  # pragma: no cover
    return _shaped(at, place, shape, dtype)


def team_loop(loop: Callable[[Any], None]) -> Any:
    """Return a loop compiled for `run_on_team`.

    It gets uintp numbers: how many threads have come, how many blocks are taken, how many there
    are, and then its own arguments.
    """
    return numba.cfunc("void(CPointer(uintp))", cache=True)(loop)


def team_size(blocks: int) -> int:
    """Return how many threads are worth a loop over so many blocks: 1, or all of torch's."""
    threads = torch.get_num_threads()
    return threads if threads > 1 and blocks >= _FEWEST and _enter() is not None else 1


def run_on_team(loop: Any, blocks: int, values: Sequence[Any]) -> None:
    """Run a `team_loop` on all of torch's threads until all blocks are taken.

    Args:
        loop: takes its thread's number and its blocks with `take`, from places 0 and 1.
        blocks: to take; `team_size` of them is more than 1.
        values: numbers, and contiguous arrays: each is its address and the numbers of its shape.
    """
    numbers = [0, 0, blocks]
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
        else:
            numbers.append(value.__array_interface__["data"][0])
            numbers += value.shape
    given = np.array(numbers, dtype=np.uintp)
    address = given.__array_interface__["data"][0]
    _enter()(loop.address, address, torch.get_num_threads(), 0)


@cache
def _enter() -> Any:
    """Return `GOMP_parallel` of the library that torch itself computes with; None without it."""
    folders = [Path(torch.__file__).parent / "lib", Path(torch.__file__).parents[1] / "torch.libs"]
    for path in (path for folder in folders for path in sorted(folder.glob("libgomp*.so*"))):
        enter = ctypes.CDLL(str(path)).GOMP_parallel
        enter.restype = None
        enter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        return enter
    return None

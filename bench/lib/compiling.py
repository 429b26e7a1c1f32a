"""Kernels of Triton's compiled for a GPU that need not be there: registers, spills, shared memory.

Triton compiles what a launch would: for its arguments' types and its constants. Addresses are taken
as multiples of sixteen, which torch's are, and numbers as if they were none. Results are kept in
Triton's own cache.
"""

import re
import subprocess
import tempfile
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from adapters_core.gpu_kernels.running import Launch

#: Compute capability -> bytes of shared memory that a program may have.
SHARED_LIMITS = {80: 163 << 10, 90: 227 << 10}
#: Registers that a thread may have.
MOST_REGISTERS = 255
_WARP = 32
_ALIGNED = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class Compiled:
    """A kernel as a launch compiles it.

    Args:
        launch: the first such one.
        capability: that it was compiled for.
        registers: of a thread.
        stack: bytes of a thread in local memory; spilled registers are there.
        shared: bytes of a program.
        warps: of a program.
    """

    launch: Launch
    capability: int
    registers: int
    stack: int
    shared: int
    warps: int

    @property
    def name(self) -> str:
        """Return the kernel's name."""
        return str(self.launch.kernel.fn.__name__)

    @property
    def constants(self) -> dict[str, Any]:
        """Return the numbers that the kernel was compiled for."""
        names = self.launch.kernel.arg_names
        return {k: v for k, v in self.launch.args.items() if k in names and k.isupper()}

    @property
    def fits(self) -> bool:
        """Return whether nothing is spilled, and the card has what it needs."""
        has_room = self.shared <= SHARED_LIMITS[self.capability]
        return self.stack == 0 and self.registers <= MOST_REGISTERS and has_room


def distinct(launches: Iterable[Launch]) -> list[Launch]:
    """Return the first of the launches of each kernel that is compiled on its own."""
    return list({_source(launch)[0].hash(): launch for launch in reversed(list(launches))}.values())


def largest(launches: Iterable[Launch]) -> list[Launch]:
    """Return the largest launch of each kernel and each choice of types and flags."""
    found: dict[Hashable, Launch] = {}
    for launch in launches:
        flags = {name: arg for name, arg in launch.args.items() if isinstance(arg, bool)}
        key = (launch.kernel.fn, tuple(_types(launch).values()), tuple(flags.items()))
        if key not in found or launch.num_bytes > found[key].num_bytes:
            found[key] = launch
    return list(found.values())


def compiled(launch: Launch, capability: int) -> Compiled:
    """Compile a launch's kernel for compute capability 80 or 90."""
    import triton
    from triton.backends.compiler import GPUTarget

    source, options = _source(launch)
    made = triton.compile(source, target=GPUTarget("cuda", capability, _WARP), options=options)
    registers, stack = _usage(made.asm["cubin"])
    metadata = made.metadata
    return Compiled(launch, capability, registers, stack, metadata.shared, metadata.num_warps)


def _source(launch: Launch) -> tuple[Any, dict[str, Any]]:
    """Return what Triton compiles, and the compiler's options among the arguments."""
    from triton.compiler import ASTSource

    kernel, args, types = launch.kernel, launch.args, _types(launch)
    constants = {name: args[name] for name, kind in types.items() if kind == "constexpr"}
    aligned = {
        (place,): _ALIGNED for place, kind in enumerate(types.values()) if kind.startswith("*")
    }
    options = {name: value for name, value in args.items() if name not in kernel.arg_names}
    return ASTSource(kernel, types, constants, aligned), options


def _types(launch: Launch) -> dict[str, str]:
    """Return the types of a kernel's arguments as Triton writes them."""
    from triton.runtime.jit import mangle_type

    kernel, args = launch.kernel, launch.args
    return {
        name: "constexpr" if _is_constant(kernel, args, name) else mangle_type(args[name])
        for name in kernel.arg_names
    }


def _is_constant(kernel: Any, args: dict[str, Any], name: str) -> bool:
    """Return whether Triton compiles for an argument's value, as it does for None and one."""
    declared = kernel.params[kernel.arg_names.index(name)].is_constexpr
    value = args[name]
    return declared or value is None or (type(value) is int and value == 1)


def _usage(cubin: bytes) -> tuple[int, int]:
    """Return registers and bytes of the stack that a thread needs."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", told)
    assert found is not None, told
    return int(found[1]), int(found[2])

"""The kernels that `gpu_cost` hears, compiled for a GPU that need not be there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapters_core.contract.method import Method
from adapters_core.gpu_kernels.running import Launch
from adapters_core.layers.basis_cache import BasisCache
from bench.lib.compiling import Compiled, compiled, distinct, largest
from bench.lib.grids import Grid
from bench.programs import gpu_base_kernels
from bench.programs.gpu_counts import MERGED, CountedBase


def heard(chosen: Mapping[str, Method]) -> list[Launch]:
    """Return the launches of steps, merges and loads over one layer of the base."""
    base = CountedBase(1, BasisCache(torch.device("meta"), base_dtype=torch.bfloat16))
    tallies = [base.decode(None), base.prompt(None), base.long_text()]
    for method in chosen.values():
        tallies.append(base.decode(method, "seven"))
        tallies += [base.merge(method, linear) for linear in MERGED]
        tallies.append(base.load(method, "seven"))
    return [launch for tally in tallies for launch in tally.heard]


@dataclass(frozen=True)
class CompiledRow:
    """One kernel for one compute capability, as tables show it."""

    made: Compiled

    @property
    def cells(self) -> dict[str, Any]:
        """Return what is shown of it."""
        made = self.made
        flags = [name.lower() for name, value in made.constants.items() if value is True]
        return {
            "kernel": made.name,
            "sm": made.capability,
            "grid": " x ".join(map(str, made.launch.grid)),
            "size": made.constants.get("SIZE", ""),
            "flags": " ".join(flags),
            "warps": made.warps,
            "registers": made.registers,
            "stack": made.stack,
            "shared": made.shared,
            "fits": "yes" if made.fits else "no",
        }


def compiled_rows(
    chosen: Mapping[str, Method], capabilities: Sequence[int], every: bool
) -> Iterator[CompiledRow]:
    """Yield the kernels of these methods and of the base, compiled.

    Args:
        chosen: methods by name.
        capabilities: compute capabilities, 80 and 90.
        every: whether for every shape; else for the largest.
    """
    found = heard(chosen) + (gpu_base_kernels.launches() if every else [])
    launches = (distinct if every else largest)(found)
    for launch in sorted(launches, key=lambda one: one.kernel.fn.__name__):
        for capability in capabilities:
            yield CompiledRow(compiled(launch, capability))


def compiled_grid(rows: Sequence[CompiledRow]) -> Grid:
    """Return the rows for a person."""
    columns = list(rows[0].cells) if rows else []
    return Grid("kernels", columns, [[str(cell) for cell in row.cells.values()] for row in rows])

"""The few compiled loops, each beside its torch reference, which is also the fallback."""

from adapters_core.kernels.gathered import gathered_rows, gathered_rows_reference
from adapters_core.kernels.located import located_rows, located_rows_reference
from adapters_core.kernels.lowrank import lowrank_rows, lowrank_rows_reference
from adapters_core.kernels.spectral import spectral_rows, spectral_rows_reference

__all__ = [
    "gathered_rows",
    "gathered_rows_reference",
    "located_rows",
    "located_rows_reference",
    "lowrank_rows",
    "lowrank_rows_reference",
    "spectral_rows",
    "spectral_rows_reference",
]

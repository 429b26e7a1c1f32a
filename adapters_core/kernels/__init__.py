"""The few compiled loops, each beside its torch reference, which is also the fallback."""

from adapters_core.kernels.lowrank import lowrank_rows, lowrank_rows_reference
from adapters_core.kernels.spectral import spectral_rows, spectral_rows_reference

__all__ = ["lowrank_rows", "lowrank_rows_reference", "spectral_rows", "spectral_rows_reference"]

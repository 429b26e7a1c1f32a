"""The few compiled loops, each beside its torch reference, which is also the fallback.

Imports contract.
"""

from adapters_core.kernels.cosine import located_spectrum, located_spectrum_reference
from adapters_core.kernels.gathered import gathered_rows, gathered_rows_reference
from adapters_core.kernels.haar import haar_rows, haar_rows_reference
from adapters_core.kernels.located import located_rows, located_rows_reference
from adapters_core.kernels.lowrank import lowrank_rows, lowrank_rows_reference
from adapters_core.kernels.mirrored import mirrored_rows, mirrored_rows_reference
from adapters_core.kernels.spectral import (
    SpectralPlan,
    spectral_plan,
    spectral_rows,
    spectral_rows_reference,
)
from adapters_core.kernels.wavelet import analysed_rows, wavelet_rows, wavelet_rows_reference

__all__ = [
    "SpectralPlan",
    "analysed_rows",
    "gathered_rows",
    "gathered_rows_reference",
    "haar_rows",
    "haar_rows_reference",
    "located_rows",
    "located_rows_reference",
    "located_spectrum",
    "located_spectrum_reference",
    "lowrank_rows",
    "lowrank_rows_reference",
    "mirrored_rows",
    "mirrored_rows_reference",
    "spectral_plan",
    "spectral_rows",
    "spectral_rows_reference",
    "wavelet_rows",
    "wavelet_rows_reference",
]

"""The base as adapters are applied to it: its spec, its injected linears, and shared bases."""

from dataclasses import dataclass
from functools import cached_property

from adapters_core.base.spec import BaseSpec
from adapters_core.format.read import AdapterReader
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection


@dataclass(frozen=True)
class ResidentBase:
    """The base on the device.

    Args:
        spec: its targets and their shapes.
        injection: its linears, which apply a plan's adapters.
        basis_cache: bases of transforms, shared by adapters of one layout.
    """

    spec: BaseSpec
    injection: Injection
    basis_cache: BasisCache

    @cached_property
    def reader(self) -> AdapterReader:
        """Return what reads adapters of this base."""
        return AdapterReader(self.spec)

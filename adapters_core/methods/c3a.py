"""C3A: the update as blocks of circulant matrices, one short kernel each.

    delta[i b + r, j b + c] = kernel[i, j, (c - r) mod b] / in,      kernel [out/b, in/b, b]

Chen et al. 2024, arXiv:2407.19342, sections 3.2 and 3.4, equations 1, 3 and 4: a block's first row
is its kernel and every further row is the one above it, shifted right by one. b divides both
widths; out * in / b numbers are held. Choices on which papers and codes differ: the paper's matrix
has no factor; PEFT divides by the layer's input width, in delta and forward pass alike, and its
file holds the undivided kernel: so do we. PEFT draws fresh kernels; a fresh adapter here is zero,
so that it changes nothing (PEFT: `init_weights=True`).

Fast ways. The dense update is a copy: every row of a block is a window of the kernel written twice.
For a batch, the rows' blocks are transformed together, multiplied by the conjugate spectrum of
their own adapter's kernels, which is what is packed, summed over the input blocks and transformed
back. Only one-dimensional, unscaled transforms are used.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adapters_core.contract.method import (
    Coefficients,
    Method,
    PackedLayer,
    Rows,
    Shape,
    Site,
    TensorSpec,
)
from adapters_core.contract.method_registry import register
from adapters_core.contract.peft_config import Pattern, PeftConfig
from adapters_core.contract.rows import pad_rows
from adapters_core.errors import InvalidAdapter

_KERNEL = "c3a_kernel"


@register
@dataclass(frozen=True)
class C3A(Method):
    """Args: block_size: b, a divisor of both widths of the layer."""

    block_size: int = 256

    name: ClassVar[str] = "c3a"
    peft_type: ClassVar[str] = "C3A"
    pattern_fields: ClassVar[Mapping[str, str]] = {"block_size": "block_size_pattern"}
    peft_fields: ClassVar[frozenset[str]] = frozenset({"block_size", "block_size_pattern"})

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise InvalidAdapter(f"block_size = {self.block_size}: at least 1", "block_size")

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        pattern = Pattern("block_size_pattern", r".*\.{key}$")
        return cls(config.integer("block_size", 256, pattern, target))

    def to_peft(self) -> dict[str, Any]:
        return {"block_size": self.block_size}

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        if shape.out % self.block_size or shape.in_ % self.block_size:
            raise InvalidAdapter(
                f"block_size = {self.block_size} does not divide both widths of a layer of "
                f"{shape.out} x {shape.in_}",
                "block_size",
            )
        return {_KERNEL: TensorSpec((*self._blocks(shape), self.block_size))}

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        return {_KERNEL: torch.zeros(*self._blocks(shape), self.block_size)}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: torch.dtype) -> Tensor:
        return self.delta_many([coefficients], shape, basis)[0]

    def delta_many(
        self, layers: Sequence[Coefficients], shape: Shape, basis: torch.dtype
    ) -> Tensor:
        kernels = torch.stack([layer[_KERNEL] for layer in layers]).float() / shape.in_
        twice = torch.cat([kernels, kernels], dim=-1)
        # The window that starts at b - r is row r of the block: windows b, b - 1, ..., 1.
        blocks = twice.unfold(-1, self.block_size, 1)[..., 1:, :].flip(-2)  # [L, m, n, b, b]
        return blocks.transpose(2, 3).reshape(len(layers), shape.out, shape.in_)

    def training_apply(self, x: Tensor, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        _, inputs = self._blocks(shape)
        scaled = trained[_KERNEL].to(basis) / (shape.in_ * self.block_size)
        spectra = torch.fft.rfft(x.to(basis).reshape(-1, inputs, self.block_size))
        product = torch.einsum("tif,oif->tof", spectra, torch.fft.rfft(scaled).conj())
        update = torch.fft.irfft(product, n=self.block_size, norm="forward")
        return update.reshape(-1, shape.out).to(x.dtype)

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        size = self.block_size
        kernel = coefficients[_KERNEL].double()
        return kernel[rows // size, cols // size, (cols - rows) % size] / shape.in_

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.block_size)

    def packed_length(self, shape: Shape) -> int:
        return 2 * math.prod(self._blocks(shape)) * self._frequencies

    def pack(self, coefficients: Coefficients, shape: Shape, basis: torch.dtype) -> Tensor:
        # Transformed and back, a row is b times too large.
        scaled = coefficients[_KERNEL].to(basis) / (shape.in_ * self.block_size)
        spectrum = torch.fft.rfft(scaled).conj().resolve_conj()
        return torch.view_as_real(spectrum).reshape(-1).float()

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: torch.dtype
    ) -> Tensor:
        outputs, inputs = self._blocks(shape)
        padded = pad_rows(x.to(basis))
        spectra = torch.fft.rfft(padded.view(-1, inputs, self.block_size))
        product = spectra.new_zeros(padded.shape[0], outputs, self._frequencies)
        if x.device.type == "cpu":
            # One row at a time: the sums have one shape, so no row feels how many there are.
            for t, slot in enumerate(rows.slots.tolist()):
                product[t] = (self._kernels(layer, slot, shape) * spectra[t]).sum(dim=1)
        else:
            self._multiply(spectra, layer, rows, shape, product)
        update = torch.fft.irfft(product, n=self.block_size, norm="forward")
        return update.reshape(-1, shape.out)[: x.shape[0]].to(x.dtype)

    def _multiply(
        self, spectra: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, out: Tensor
    ) -> None:
        """Write every row's product of blocks to out `[T, outputs, F]`, without asking the device.

        A prompt's rows share their kernels, which are far larger than a row.
        """
        single = slice(0, rows.num_decode)
        kernels = self._kernels(layer, rows.slots[single], shape)
        out[single] = (kernels * spectra[single, None]).sum(dim=2)
        for segment in rows.segments:
            own = slice(segment.start, segment.stop)
            kernel = self._kernels(layer, segment.slot, shape)
            out[own] = torch.einsum("tif,oif->tof", spectra[own], kernel)

    def _kernels(self, layer: PackedLayer, slots: Tensor | int, shape: Shape) -> Tensor:
        """Return the spectra of the blocks of a slot or of several: `[..., out/b, in/b, F]`."""
        packed = layer.rows()[slots]
        blocks = (*self._blocks(shape), self._frequencies, 2)
        return torch.view_as_complex(packed.reshape(*packed.shape[:-1], *blocks))

    def fitted(self, shape: Shape) -> Self:
        common = math.gcd(shape.out, shape.in_)
        sizes = range(min(self.block_size, common), 0, -1)
        return replace(self, block_size=next(size for size in sizes if common % size == 0))

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> torch.dtype:
        return dtype

    def _blocks(self, shape: Shape) -> tuple[int, int]:
        """Return how many blocks a layer has from top to bottom and from left to right."""
        return shape.out // self.block_size, shape.in_ // self.block_size

    @property
    def _frequencies(self) -> int:
        return self.block_size // 2 + 1

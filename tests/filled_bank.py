"""A bank with kernels and one without, filled alike."""

from collections.abc import Mapping

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.gpu_kernels.running import interpreted
from adapters_core.layers.bank import EMPTY_SLOT, Bank, Layout
from made import toy_bases


class FilledBank:
    """A bank with kernels and one without, with the same two adapters."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        shapes: Mapping[str, Shape],
        base_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.methods, self.shapes = methods, shapes
        layout = Layout.of(methods, shapes)
        self.torch_way = Bank(layout, toy_bases(shapes))
        with interpreted():
            bases = toy_bases(shapes)
            bases.base_dtype = base_dtype
            self.kernels = Bank(layout, bases)
        generator = torch.Generator().manual_seed(1)
        self.adapters = [self._adapter(generator) for _ in range(2)]
        self.slots = [EMPTY_SLOT]
        for adapter in self.adapters:
            row = self.torch_way.pack(self.methods, adapter)
            self.slots.append(self.kernels.add(row))
            assert self.torch_way.add(row) == self.slots[-1]

    def _adapter(self, generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
        made = {}
        for path, shape in self.shapes.items():
            fresh = self.methods[path].init(shape, generator, self.torch_way._bases[path])
            made[path] = {
                name: torch.randn(tensor.shape, generator=generator)
                if tensor.is_floating_point()
                else tensor
                for name, tensor in fresh.items()
            }
        return made

    def update(self, x: Tensor, slots: Tensor, path: str, y: Tensor, adds: bool = True) -> Tensor:
        """Return y with the updates added, or written over."""
        found = self.kernels.kernels_of(path)
        assert found is not None
        (group, number), bank = found, self.kernels.buffer
        group.add(group.begin(x, bank, slots, number), number, y, bank, slots, adds)
        return y

    def exact(self, x: Tensor, slots: Tensor, path: str) -> Tensor:
        """Return the updates by the defining sum in float64."""
        deltas = [torch.zeros(*self.shapes[path], dtype=torch.float64)]
        deltas += [self._delta(adapter, path) for adapter in self.adapters]
        pairs = zip(x.double(), slots.tolist(), strict=True)
        return torch.stack([deltas[self.slots.index(slot)] @ row for row, slot in pairs])

    def _delta(self, adapter: Mapping[str, Mapping[str, Tensor]], path: str) -> Tensor:
        shape, basis = self.shapes[path], self.torch_way._bases[path]
        cells = torch.cartesian_prod(torch.arange(shape.out), torch.arange(shape.in_))
        parts = [
            self.methods[path].cells(adapter[path], shape, *some.T, basis)
            for some in cells.split(1 << 16)
        ]
        return torch.cat(parts).view(*shape)

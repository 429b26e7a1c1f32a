"""An encoder on a tiny base with adapters in memory, and inputs for it."""

from pathlib import Path

import torch
from torch import Tensor

from adapters_core.base.spec import weights_of
from adapters_core.format.read import read_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from live import CONFIG, FILE
from server.adapters.payload import Factored, Merged
from server.base.loading import Base
from server.encoding.encoder import Encoder, Input, group_of
from server.encoding.head_switch import plain_heads, switch_heads
from server.encoding.plan import Payload

CPU = torch.device("cpu")


class Injected:
    """A base with an encoder on it, and adapters in memory."""

    def __init__(self, base: Base) -> None:
        self.spec = base.spec
        self.max_length = base.max_length
        weights = weights_of(base.model, base.spec)
        forms = plain_heads(base.model, base.spec.head) if base.spec.head else {}
        self.injection = inject(base.model, base.spec.targets)
        self.bases = BasisCache(CPU, weights)
        switch = switch_heads(self.injection, forms) if forms else None
        labels = base.spec.head.num_labels if base.spec.head else 0
        pad = getattr(base.model.config, "pad_token_id", None) or 0
        self.encoder = Encoder(self.injection, switch, labels, pad, base.pooling, base.spec.shared)
        self._banks: dict[object, Bank] = {}

    def payload(self, folder: Path, is_merged: bool = False) -> Payload:
        config = (folder / CONFIG).read_bytes()
        adapter = read_adapter(folder / FILE, config, self.spec)
        if is_merged:
            linears = self.injection.linears
            weights = materialise(adapter.methods, adapter.layers, linears, self.bases)
            return Merged(weights, adapter.head)
        layout = Layout.of(adapter.methods, self.spec.targets)
        bank = self._banks.setdefault(layout.key, Bank(layout, self.bases, 2, adapter.layers))
        return Factored(bank, bank.add(bank.pack(adapter.methods, adapter.layers)), adapter.head)

    def run(
        self, inputs: list[Input], payloads: list[Payload], owner: str | None = None
    ) -> list[Tensor]:
        groups = {group_of(given, self.max_length, self.spec.pads, owner) for given in inputs}
        assert len(groups) == 1, "these may not share a batch"
        return self.encoder.run(inputs, groups.pop(), payloads)


def inputs_for(shape: str, count: int, length: int = 21) -> list[Input]:
    generator = torch.Generator().manual_seed(length)
    if shape in ("vit", "swinv2"):
        return [torch.randn(3, 32, 32, generator=generator) for _ in range(count)]
    rows = torch.randint(0, 256, (count, length), generator=generator)
    return [tuple(row[: length - i % 3].tolist()) for i, row in enumerate(rows)]

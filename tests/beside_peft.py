"""One adapter as PEFT computes it and as we do: deltas, merged weights and logits side by side."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn

from adapters_core.base.spec import spec_of, weights_of
from adapters_core.contract.method import Rows, Segment
from adapters_core.format.read import Adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from tiny_bases import TINY, peft_adapter, relative, without_warnings

IDS = torch.randint(131, (3, 8), generator=torch.Generator().manual_seed(3))


def saved_by_peft(
    model: nn.Module, config: PeftConfig, folder: Path, drawn: str, size: float = 1.0
) -> PeftModel:
    """Return PEFT's model over a copy of `model`, saved; noise is added to what `drawn` is in."""
    peft_model = peft_adapter(model, copy.deepcopy(config), folder)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in peft_model.named_parameters():
        if drawn in name:
            parameter.data += size * torch.randn(parameter.shape, generator=generator)
    with without_warnings():
        peft_model.save_pretrained(str(folder))
    return peft_model


class BesidePeft:
    """A tiny base, PEFT's model over a copy of it, and the adapter that was read from its file."""

    def __init__(
        self,
        kind: str,
        config: PeftConfig,
        folder: Path,
        read: Callable[..., Adapter],
        drawn: str,
        size: float = 1.0,
    ) -> None:
        self.model = TINY[kind]()
        self.spec = spec_of(self.model, kind)
        self.peft_model = saved_by_peft(self.model, config, folder, drawn, size)
        self.adapter = read(folder, self.spec)
        self.bases = BasisCache(torch.device("cpu"), weights_of(self.model, self.spec))

    def delta(self, target: str) -> Tensor:
        """Return our delta."""
        method, shape = self.adapter.methods[target], self.spec.targets[target]
        layer = self.adapter.layers[target]
        return method.delta(layer, shape, self.bases.get(method, shape, target, layer))

    def peft_deltas(self) -> dict[str, Tensor]:
        """Return target -> PEFT's merged weight without the base's, `[out, in]`."""
        plain = dict(self.model.named_modules())
        with without_warnings():
            merged = copy.deepcopy(self.peft_model).merge_and_unload()
        deltas = {}
        for target in self.spec.targets:
            delta = merged.get_submodule(target).weight - plain[target].weight
            deltas[target] = (delta.T if "transformer" in target else delta).detach()
        return {target: delta for target, delta in deltas.items() if delta.any()}

    def check(self) -> None:
        """Assert that deltas, and logits in every mode, are PEFT's."""
        theirs = self.peft_deltas()
        assert set(theirs) == set(self.adapter.methods)
        for target, delta in theirs.items():
            assert relative(self.delta(target), delta) <= 1e-6, target
        self._check_logits()

    @torch.inference_mode()
    def _check_logits(self) -> None:
        adapted, plain = self.peft_model(IDS).logits, self.model(IDS).logits
        assert (adapted - plain).abs().max() > 1e-3  # the comparison can fail
        injection = inject(self.model)
        adapter, bases = self.adapter, self.bases
        merged = materialise(adapter.methods, adapter.layers, injection.linears, bases)
        layout = Layout.of(adapter.methods, self.spec.targets)
        bank = Bank(layout, bases, slots=2, layers=adapter.layers)
        bank.add(torch.zeros(bank.layout.width))  # slot 0 is another adapter's
        slot = bank.add(bank.pack(adapter.methods, adapter.layers))
        # One prompt of single tokens, one in two pieces; the third has the base alone.
        rows = Rows(torch.full((16,), slot), 8, (Segment(8, 13, slot), Segment(13, 16, slot)))
        plans = {
            "merged": ServingPlan(torch.arange(16, 24), [MergedGroup(merged, torch.arange(16))]),
            "factored": ServingPlan(factored=[FactoredGroup(bank, rows, torch.arange(16))]),
        }
        for name, plan in plans.items():
            injection.switch.plan = plan
            got = self.model(IDS).logits
            assert (got - torch.cat([adapted[:2], plain[2:]])).abs().max() <= 1e-4, name
        injection.undo()

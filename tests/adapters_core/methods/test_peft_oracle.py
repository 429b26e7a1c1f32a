"""PEFT as the oracle: what it can save is served as it computes it, or refused by name."""

import copy
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from adapters_core.base.causal_probe import with_causal_targets
from adapters_core.base.spec import BaseSpec, spec_of, weights_of
from adapters_core.contract.method import Rows, Segment
from adapters_core.errors import AdapterError
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from peft_configs import ENTRIES, Entry
from tiny_bases import (
    change_config,
    tiny_gemma3,
    tiny_gpt2,
    tiny_gpt_oss,
    tiny_llama,
    tiny_mixtral,
    tiny_opt,
    without_warnings,
)

BASES: dict[str, Callable[[], nn.Module]] = {
    "llama": tiny_llama,
    "tied": lambda: tiny_llama(tie_word_embeddings=True),
    "mixtral": tiny_mixtral,
    "gpt2": tiny_gpt2,
    "opt": tiny_opt,
    "gemma3": tiny_gemma3,
    "gpt_oss": tiny_gpt_oss,
}
IDS = torch.randint(131, (3, 8), generator=torch.Generator().manual_seed(3))
#: Of logits about 1 in size, float32: sums over up to 180 products, four blocks deep.
TOLERANCE = 2e-4
DOCS = Path(__file__).parents[3] / "docs" / "methods.md"


@cache
def base_of(name: str) -> tuple[nn.Module, BaseSpec]:
    model = BASES[name]()
    return model, with_causal_targets(spec_of(model, name), model, 64)


def trained(model: PeftModel) -> None:
    """Move everything that training would, so that nothing is what PEFT would draw again."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            size = 1.0 if "spectrum" in name or "tinylora_v" in name else 0.1
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data += (size * drawn).to(parameter.dtype)


def saved(entry: Entry, folder: Path) -> PeftModel:
    """Return PEFT's model of an entry, and its two files in `folder`."""
    torch.manual_seed(1)
    peft_model = get_peft_model(copy.deepcopy(base_of(entry.base)[0]), entry.config())
    options = dict(entry.save)
    if entry.how == "second":
        peft_model.add_adapter("second", entry.config())
        peft_model.set_adapter("second")
    if entry.how == "converted":
        options["path_initial_model_for_weight_conversion"] = str(folder / "start")
        peft_model.save_pretrained(str(folder / "start"))
    trained(peft_model)
    if entry.how == "bfloat16":
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    peft_model.save_pretrained(str(folder), **options)
    if entry.how == "bfloat16":
        peft_model.float()
    return peft_model.eval()


def answer(entry: Entry, folder: Path) -> tuple[Adapter, Tensor]:
    """Return the adapter as it is read, and PEFT's logits.

    Raises:
        AdapterError: it is refused.
    """
    with without_warnings():
        peft_model = saved(entry, folder)
    at = folder / "second" if entry.how == "second" else folder
    change_config(at, entry.edit)
    config = (at / "adapter_config.json").read_bytes()
    adapter = read_adapter(at / "adapter_model.safetensors", config, base_of(entry.base)[1])
    with torch.inference_mode(), without_warnings():
        if entry.how == "reloaded":
            base = copy.deepcopy(base_of(entry.base)[0])
            peft_model = PeftModel.from_pretrained(base, str(folder)).eval()
        return adapter, peft_model(IDS).logits


@torch.inference_mode()
def served(entry: Entry, adapter: Adapter) -> dict[str, Tensor]:
    """Return mode -> logits of two prompts with the adapter and one of the bare base."""
    model, spec = base_of(entry.base)
    bases = BasisCache(torch.device("cpu"), weights_of(model, spec))
    injection = inject(model, spec.layers, spec.kept_layers)
    try:
        merged = materialise(adapter.methods, adapter.layers, injection.layers, bases)
        whole = {t: weight for t, weight in merged.items() if not adapter.methods[t].is_factored}
        layout = Layout.of(adapter.methods, spec.layers)
        bank = Bank(layout, bases, slots=2, layers=adapter.layers)
        bank.add(torch.zeros(bank.layout.width))  # slot 0 is another adapter's
        slot = bank.add(bank.pack(adapter.methods, adapter.layers))
        rows = Rows(torch.full((16,), slot), 8, (Segment(8, 13, slot), Segment(13, 16, slot)))
        plans = {
            "merged": ServingPlan(torch.arange(16, 24), [MergedGroup(merged, torch.arange(16))]),
            "factored": ServingPlan(
                torch.arange(16, 24),
                [MergedGroup(whole, torch.arange(16))],
                [FactoredGroup(bank, rows, torch.arange(16))],
            ),
        }
        logits = {}
        for name, plan in plans.items():
            injection.switch.plan = plan
            logits[name] = model(IDS).logits
        return logits
    finally:
        injection.undo()


@pytest.mark.parametrize("name", list(ENTRIES))
def test_it_is_served_as_peft_computes_it_or_refused_by_name(name: str, tmp_path: Path) -> None:
    entry = ENTRIES[name]
    if entry.refused is not None:
        with pytest.raises(AdapterError) as caught:
            answer(entry, tmp_path)
        assert entry.refused in (caught.value.param or ""), caught.value.message
        assert entry.refused in caught.value.message
        return
    adapter, theirs = answer(entry, tmp_path)
    with torch.inference_mode():
        plain = base_of(entry.base)[0](IDS).logits
    assert (theirs - plain).abs().max() > 50 * TOLERANCE  # the comparison can fail
    for mode, ours in served(entry, adapter).items():
        wanted = torch.cat([theirs[:2], plain[2:]])
        assert (ours - wanted).abs().max() <= TOLERANCE, mode


def test_the_docs_say_how_many_are_served_and_refused() -> None:
    """Each is proved above: none is wrong, and none ends in anything but an adapter's error."""
    counts = Counter("refused" if entry.refused else "equal" for entry in ENTRIES.values())
    line = f"{counts['equal']} equal, {counts['refused']} refused by name, 0 wrong, 0 tracebacks"
    print(f"PEFT's configs: {len(ENTRIES)} tried, {line}")  # noqa: T201
    assert f"{len(ENTRIES)} configs: {line}" in " ".join(DOCS.read_text().split())

"""PEFT's own saved adapters, read unchanged: PEFT is the reference for deltas, merges, logits."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import FourierFTConfig, IA3Config, LoHaConfig, LoraConfig, PeftConfig

from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.contract.method import Rows, Segment
from adapters_core.errors import AdapterError, InvalidAdapter, UnknownMethod
from adapters_core.format.read import Adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection, inject
from adapters_core.layers.merge import materialise
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from tiny_bases import (
    TINY,
    change_config,
    peft_adapter,
    relative,
    tiny_llama,
    tiny_qwen3,
    without_warnings,
)

LM = {"task_type": "CAUSAL_LM"}
CASES: dict[str, tuple[str, PeftConfig]] = {
    "fourierft-gqa": (
        "llama",
        FourierFTConfig(target_modules=["q_proj", "k_proj", "v_proj"], n_frequency=50, **LM),
    ),
    "fourierft-seed-scale": (
        "llama",
        FourierFTConfig(
            target_modules=["q_proj", "down_proj"],
            n_frequency=70,
            scaling=33.5,
            random_loc_seed=2024,
            **LM,
        ),
    ),
    "fourierft-pattern": (
        "llama",
        FourierFTConfig(
            target_modules=["q_proj", "v_proj", "up_proj"],
            n_frequency=40,
            # What must not match: a path's beginning, an alternative after the first. Then an
            # inner path, a full path (which PEFT finds by equality), a pattern and a name.
            n_frequency_pattern={
                "self_attn": 9,
                "nothing|up_proj": 10,
                "layers.0.self_attn.q_proj": 11,
                "model.layers.1.self_attn.v_proj": 12,
                "self_attn.q_proj": 13,
                "u._proj": 14,
                "proj": 15,
            },
            **LM,
        ),
    ),
    "fourierft-qwen3-regex": (
        "qwen3",
        FourierFTConfig(target_modules=r".*\.(q_proj|gate_proj)", n_frequency=60, **LM),
    ),
    "fourierft-gpt2": (
        "gpt2",
        FourierFTConfig(
            target_modules=["c_attn", "mlp.c_proj"], n_frequency=45, fan_in_fan_out=True, **LM
        ),
    ),
    "fourierft-all-linear": (
        "gpt2",
        FourierFTConfig(target_modules="all-linear", n_frequency=20, fan_in_fan_out=True, **LM),
    ),
    "lora-gqa": ("llama", LoraConfig(target_modules=["q_proj", "v_proj"], r=4, **LM)),
    "lora-patterns": (
        "llama",
        LoraConfig(
            target_modules=["q_proj", "k_proj", "down_proj"],
            r=4,
            lora_alpha=6,
            rank_pattern={"layers.0.self_attn.q_proj": 2, "model.layers.1.mlp.down_proj": 5},
            alpha_pattern={"k_proj": 3, r"layers\.1\..*": 9},
            **LM,
        ),
    ),
    "lora-rslora-layers": (
        "qwen3",
        LoraConfig(
            target_modules=["q_proj", "o_proj"],
            r=4,
            use_rslora=True,
            layers_to_transform=[1],
            **LM,
        ),
    ),
    "lora-layers-pattern": (
        "gpt2",
        LoraConfig(
            target_modules=["c_attn"],
            r=3,
            layers_to_transform=0,
            layers_pattern="h",
            fan_in_fan_out=True,
            **LM,
        ),
    ),
    "lora-exclude": (
        "llama",
        LoraConfig(target_modules=["q_proj", "o_proj"], exclude_modules=r".*\.1\..*", r=4, **LM),
    ),
    "lora-exclude-list": (
        "llama",
        LoraConfig(
            target_modules=["q_proj", "o_proj"],
            exclude_modules=["layers.0.self_attn.o_proj"],
            r=4,
            **LM,
        ),
    ),
    "lora-full-path-despite-layers": (
        "llama",
        LoraConfig(
            target_modules=["model.layers.0.self_attn.q_proj", "v_proj"],
            layers_to_transform=[1],
            r=4,
            **LM,
        ),
    ),
    "lora-gpt2": (
        "gpt2",
        LoraConfig(target_modules=["c_attn", "c_fc"], r=3, fan_in_fan_out=True, **LM),
    ),
    "lora-all-linear": ("llama", LoraConfig(target_modules="all-linear", r=2, **LM)),
    "lora-rank-above-width": ("llama", LoraConfig(target_modules=["k_proj"], r=40, **LM)),
    "lora-default-targets": ("llama", LoraConfig(r=2, **LM)),
}


class Both:
    """One saved adapter as PEFT and as we see it."""

    def __init__(self, case: str, folder: Path, read: Callable[..., Adapter]) -> None:
        kind, config = CASES[case]
        self.model = TINY[kind]()
        self.spec = spec_of(self.model, kind)
        self.peft_model = peft_adapter(self.model, copy.deepcopy(config), folder)
        self.adapter = read(folder, self.spec)
        self.bases = BasisCache(torch.device("cpu"))

    def peft_deltas(self) -> dict[str, torch.Tensor]:
        inner = self.peft_model.base_model.model
        return {
            path: module.get_delta_weight("default").detach()
            for path, module in inner.named_modules()
            if hasattr(module, "get_delta_weight")
        }


@pytest.fixture(params=list(CASES))
def both(request: pytest.FixtureRequest, tmp_path: Path, read: Callable[..., Adapter]) -> Both:
    return Both(request.param, tmp_path, read)


def test_every_delta_merge_and_logit_is_pefts(both: Both) -> None:
    """One test over all three, since making the models is what takes the time."""
    theirs = both.peft_deltas()
    assert set(theirs) == set(both.adapter.methods)
    assert both.adapter.description.target_modules == tuple(
        target for target in both.spec.targets if target in theirs
    )
    for target, delta in theirs.items():
        assert relative(our_delta(both, target), delta_as_map(both, target, delta)) <= 1e-6, target
    logits_agree(both)
    merges_agree(both)


def our_delta(both: Both, target: str) -> torch.Tensor:
    method, shape = both.adapter.methods[target], both.spec.targets[target]
    return method.delta(both.adapter.layers[target], shape, both.bases.get(method, shape))


def delta_as_map(both: Both, target: str, delta: torch.Tensor) -> torch.Tensor:
    """Return PEFT's delta as `[out, in]`; its LoRA gives a Conv1D's transposed."""
    conv1d_lora = both.adapter.description.method == "lora" and "transformer" in target
    return delta.T if conv1d_lora else delta


def merges_agree(both: Both) -> None:
    with inject_for(both) as injection:
        merged = materialise(
            both.adapter.methods, both.adapter.layers, injection.linears, both.bases
        )
    with without_warnings():
        plain = both.peft_model.merge_and_unload()
    for target, weight in merged.items():
        their = plain.get_submodule(target).weight.detach()
        their = their.T if "transformer" in target else their
        assert relative(weight, their) <= 1e-6, target


class inject_for:
    def __init__(self, both: Both) -> None:
        self._both = both

    def __enter__(self) -> Injection:
        self._injection = inject(self._both.model)
        return self._injection

    def __exit__(self, *_: object) -> None:
        self._injection.undo()


@torch.inference_mode()
def logits_agree(both: Both) -> None:
    """Three prompts of 8 tokens; PEFT gives them all the adapter."""
    ids = torch.randint(131, (3, 8), generator=torch.Generator().manual_seed(3))
    adapted = both.peft_model(ids).logits
    plain = both.model(ids).logits
    assert (adapted - plain).abs().max() > 1e-3  # the comparison can fail
    with inject_for(both) as injection:
        for name, (plan, rows) in plans(both, injection).items():
            injection.switch.plan = plan
            got = both.model(ids).logits
            true = torch.where(rows[:, None, None], adapted, plain)
            assert (got - true).abs().max() <= 1e-4, name


def plans(both: Both, injection: Injection) -> dict[str, tuple[ServingPlan, torch.Tensor]]:
    """Return name -> plan, and which of the three prompts are adapted under it.

    Rows of the packed batch are prompt by prompt, 8 each.
    """
    adapter, bases = both.adapter, both.bases
    merged = materialise(adapter.methods, adapter.layers, injection.linears, bases)
    bank = Bank(Layout.of(adapter.methods, both.spec.targets), bases, slots=1)
    bank.add(torch.zeros(bank.layout.width))  # slot 0 is another adapter's
    slot = bank.add(bank.pack(adapter.methods, adapter.layers))
    zero = [i for i in range(2) if i != slot][0]
    first, rest, every = torch.arange(8), torch.arange(8, 24), torch.ones(3, dtype=torch.bool)
    only_first = torch.tensor([True, False, False])

    def rows_in(slots: list[int], num_decode: int) -> Rows:
        segments = tuple(
            Segment(start, min(start + 8, len(slots)), slots[start])
            for start in range(num_decode, len(slots), 8)
        )
        return Rows(torch.tensor(slots), num_decode, segments)

    return {
        "merged, all": (ServingPlan(merged=[MergedGroup(merged, None)]), every),
        "merged, first": (ServingPlan(rest, [MergedGroup(merged, first)]), only_first),
        "factored, all as decode": (
            ServingPlan(factored=[FactoredGroup(bank, rows_in([slot] * 24, 24), None)]),
            every,
        ),
        "factored, all as prompts": (
            ServingPlan(factored=[FactoredGroup(bank, rows_in([slot] * 24, 0), None)]),
            every,
        ),
        "factored, decode and prompts": (
            ServingPlan(factored=[FactoredGroup(bank, rows_in([slot] * 24, 8), None)]),
            every,
        ),
        "factored, first": (
            ServingPlan(factored=[FactoredGroup(bank, rows_in([slot] * 8, 0), first)]),
            only_first,
        ),
        "factored, others have another adapter": (
            ServingPlan(factored=[FactoredGroup(bank, rows_in([slot] * 8 + [zero] * 16, 0), None)]),
            only_first,
        ),
        "first merged, second factored": (
            ServingPlan(
                rest,
                [MergedGroup(merged, first)],
                [FactoredGroup(bank, rows_in([slot] * 8, 8), torch.arange(8, 16))],
            ),
            torch.tensor([True, True, False]),
        ),
        "nothing": (ServingPlan(), torch.zeros(3, dtype=torch.bool)),
    }


def test_two_adapters_of_two_methods_in_one_batch(
    tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    """The strongest serving test: each prompt gets what PEFT gives it alone."""
    one = Both("fourierft-gqa", tmp_path / "one", read)
    two = Both("lora-gqa", tmp_path / "two", read)
    ids = torch.randint(131, (3, 8), generator=torch.Generator().manual_seed(3))
    groups = []
    for i, both in enumerate((one, two)):
        bank = Bank(Layout.of(both.adapter.methods, both.spec.targets), both.bases, slots=1)
        slot = bank.add(bank.pack(both.adapter.methods, both.adapter.layers))
        rows = Rows(torch.full((8,), slot), 3, (Segment(3, 8, slot),))
        groups.append(FactoredGroup(bank, rows, torch.arange(8 * i, 8 * i + 8)))
    with torch.inference_mode(), inject_for(one) as injection:
        plain = one.model(ids[2:]).logits[0]
        injection.switch.plan = ServingPlan(factored=groups)
        got = one.model(ids).logits
    with torch.inference_mode():
        for row, both in enumerate((one, two)):
            true = both.peft_model(ids[row : row + 1]).logits[0]
            assert (got[row] - true).abs().max() <= 1e-4
    assert (got[2] - plain).abs().max() <= 1e-6


def test_half_precision_base_merges_as_float32_rounded_once(
    tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    model = tiny_qwen3().to(torch.bfloat16)
    config = FourierFTConfig(target_modules=["q_proj"], n_frequency=60, **LM)
    peft_adapter(model, config, tmp_path)
    adapter = read(tmp_path, spec_of(model, "half"))
    injection = inject(model)
    bases = BasisCache(torch.device("cpu"))
    merged = materialise(adapter.methods, adapter.layers, injection.linears, bases)
    for target, weight in merged.items():
        method, shape = adapter.methods[target], injection.linears[target].shape
        delta = method.delta(adapter.layers[target], shape, bases.get(method, shape))
        true = (injection.linears[target].golden().float() + delta).to(torch.bfloat16)
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, true)


UNSUPPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "bias": ("bias", {"bias": "all"}),
    "bias-lora-only": ("bias", {"bias": "lora_only"}),
    "modules_to_save": ("modules_to_save", {"modules_to_save": ["lm_head"]}),
    "pissa": ("init_lora_weights", {"init_lora_weights": "pissa"}),
    "pissa-niter": ("init_lora_weights", {"init_lora_weights": "pissa_niter_2"}),
    "olora": ("init_lora_weights", {"init_lora_weights": "olora"}),
    "lora_bias": ("lora_bias", {"lora_bias": True}),
    "trainable_token_indices": ("trainable_token_indices", {"trainable_token_indices": [1, 2]}),
    "layer_replication": ("layer_replication", {"layer_replication": [[0, 2], [1, 2]]}),
    "target_parameters": ("target_parameters", {"target_parameters": ["model.norm.weight"]}),
}


@pytest.mark.parametrize("option", list(UNSUPPORTED))
def test_unsupported_options_are_refused_by_name(
    option: str, lora_folder: Path, read: Callable[..., Adapter]
) -> None:
    field, changes = UNSUPPORTED[option]
    change_config(lora_folder, changes)
    with pytest.raises(InvalidAdapter, match=field) as caught:
        read(lora_folder)
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("bias", {"bias": "all"}),
        ("modules_to_save", {"modules_to_save": ["lm_head"]}),
        ("init_lora_weights", {"init_lora_weights": "pissa"}),
        ("lora_bias", {"lora_bias": True, "bias": "none"}),
        ("trainable_token_indices", {"trainable_token_indices": [1, 2]}),
        ("layer_replication", {"layer_replication": [[0, 2], [1, 2]]}),
    ],
)
def test_what_peft_saves_with_such_an_option_is_refused_by_name(
    field: str, options: dict[str, Any], tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    config = LoraConfig(target_modules=["q_proj"], r=2, **options, **LM)
    peft_adapter(tiny_llama(), config, tmp_path)
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == field


@pytest.mark.parametrize(
    "config",
    [
        IA3Config(target_modules=["k_proj"], feedforward_modules=[], **LM),
        LoHaConfig(target_modules=["q_proj"], r=2, **LM),
    ],
    ids=lambda config: str(config.peft_type.value),
)
def test_other_peft_types_are_refused_with_the_list(
    config: PeftConfig, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    peft_adapter(tiny_llama(), config, tmp_path)
    with pytest.raises(UnknownMethod, match=r"supported: .*FOURIERFT.*LORA") as caught:
        read(tmp_path)
    assert config.peft_type.value in caught.value.message
    assert caught.value.param == "peft_type"


def test_every_field_of_pefts_configs_has_been_looked_at(llama_spec: BaseSpec) -> None:
    """A default config passes; any field set to something unheard of is refused or is neutral."""
    from adapters_core.contract.method_registry import for_config
    from adapters_core.contract.peft_config import PeftConfig
    from adapters_core.contract.peft_config import PeftConfig as OurConfig

    for kind in (LoraConfig, FourierFTConfig):
        raw = json.loads(json.dumps(kind(**LM).to_dict(), default=list))
        read_fields = for_config(PeftConfig(raw)).peft_fields
        OurConfig.parse(json.dumps(raw).encode()).refuse_unread(read_fields)


def test_unheard_of_fields_are_refused_unless_off(
    lora_folder: Path, read: Callable[..., Adapter]
) -> None:
    change_config(lora_folder, {"use_quantum": False, "quantum": None, "quanta": []})
    read(lora_folder)
    change_config(lora_folder, {"use_quantum": True})
    with pytest.raises(AdapterError, match="use_quantum"):
        read(lora_folder)

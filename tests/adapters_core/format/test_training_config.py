"""What a job's config may say: every field that PEFT has is heeded, without effect, or refused."""

import dataclasses
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.contract.layer import Shape
from adapters_core.contract.method_registry import registered
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import InvalidAdapter
from adapters_core.format.read import read_adapter
from adapters_core.format.training_config import NEUTRAL, class_of, job_config
from adapters_core.format.training_layers import trained_layers
from adapters_core.layers.inject import inject
from adapters_core.layers.training_plan import TrainingPlan
from beside_peft import IDS, BesidePeft
from tiny_bases import TINY, peft_adapter

KINDS = registered()
KNOWN = sorted(
    name for name, kind in KINDS.items() if kind.peft_type in PEFT_TYPE_TO_CONFIG_MAPPING
)
OF_PEFT = [
    (name, field.name)
    for name in KNOWN
    for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[KINDS[name].peft_type])
]


@pytest.mark.parametrize("name", KNOWN)
def test_every_field_of_the_installed_peft_is_heeded_neutral_or_refused(name: str) -> None:
    fields = [field for method, field in OF_PEFT if method == name]
    unknown = [field for field in fields if class_of(KINDS[name], field) is None]
    assert unknown == [], f"say in training_config.py what training makes of {unknown}"


@pytest.mark.parametrize(("name", "field"), OF_PEFT)
def test_a_value_that_training_does_not_heed_is_refused_by_its_name(name: str, field: str) -> None:
    if class_of(KINDS[name], field) != "refused":
        return
    with pytest.raises(InvalidAdapter, match=f"{field} = ") as raised:
        job_config(KINDS[name], {field: "nonsense"}, "CAUSAL_LM")
    assert raised.value.param == field


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_fresh_config_of_pefts_own_is_taken_but_for_what_it_would_start_from(name: str) -> None:
    if name not in KNOWN:
        return
    made = PEFT_TYPE_TO_CONFIG_MAPPING[KINDS[name].peft_type]().to_dict()
    made |= {"init_weights": True} if "init_weights" in made else {}
    made |= {"use_dora": True} if name == "dora" else {}
    job_config(KINDS[name], made | {"task_type": "CAUSAL_LM"}, "CAUSAL_LM")


@pytest.mark.parametrize(
    ("name", "own", "param"),
    [
        ("lora", {"use_dora": True}, "use_dora"),
        ("dora", {"use_dora": False}, "use_dora"),
        ("dora", {"peft_type": "FOURIERFT"}, "peft_type"),
        ("lora", {"init_lora_weights": "nonsense"}, "init_lora_weights"),
        ("lora", {"init_lora_weights": False}, "init_lora_weights"),
        ("lora", {"eva_config": {"rho": 2.0}}, "eva_config"),
        ("lora", {"loftq_config": {"loftq_bits": 4}}, "loftq_config"),
        ("lora", {"lora_dropout": 1.0}, "lora_dropout"),
        ("lora", {"lora_dropout": "0.1"}, "lora_dropout"),
        ("lora", {"lora_alpha": 0}, "lora_alpha"),
        ("lora", {"alpha_pattern": {"q_proj": 0}}, "alpha_pattern"),
        ("lora", {"bias": "all"}, "bias"),
        ("lora", {"task_type": "SEQ_CLS"}, "task_type"),
        ("fourierft", {"scaling": 0.0}, "scaling"),
        ("fourierft", {"init_weights": False}, "init_weights"),
        ("fourierft", {"lora_dropout": 0.1}, "lora_dropout"),
        ("shira", {"random_seed": 3}, "random_seed"),
        ("frod", {"regularization_alpha": 0.1}, "regularization_alpha"),
        ("waveletft", {"proportional_parameters": True}, "proportional_parameters"),
        ("vera", {"d_initial": 0.0}, "d_initial"),
    ],
)
def test_what_would_be_taken_and_not_done_is_refused(
    name: str, own: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidAdapter, match=f"{param} = ") as raised:
        job_config(KINDS[name], own, "CAUSAL_LM")
    assert raised.value.param == param


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_method_may_be_spelled_by_its_name_its_type_or_both(name: str) -> None:
    kind = KINDS[name]
    for own in ({}, {"peft_type": kind.peft_type}, {"peft_type": kind.peft_type.lower()}):
        assert kind.reads(job_config(kind, own, None))
    nothing = dict.fromkeys([*kind.peft_fields, "peft_type", "target_modules"])
    assert kind.reads(job_config(kind, nothing, None))


def test_a_config_of_another_method_says_which() -> None:
    with pytest.raises(InvalidAdapter, match="use_dora = True is method 'dora'.*is 'lora'"):
        job_config(KINDS["lora"], {"use_dora": True}, None)


def test_neutral_fields_have_reasons_and_are_no_methods_own() -> None:
    assert all(NEUTRAL.values())
    own = {field for kind in KINDS.values() for field in kind.peft_fields}
    assert NEUTRAL.keys() & own <= {"init_v_bound", "runtime_offload_base_weight"}


# Layers.

LLAMA = spec_of(TINY["llama"](), "llama")
CHOICES: list[dict[str, Any]] = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": "all-linear"},
    {"target_modules": "all-linear", "layers_to_transform": [1]},
    {"target_modules": "all-linear", "layers_to_transform": 0, "layers_pattern": "layers"},
    {"target_modules": "all-linear", "exclude_modules": ["k_proj", "layers.0.self_attn.q_proj"]},
    {"target_modules": "all-linear", "exclude_modules": r".*mlp.*"},
    {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ["layers"]},
    {"target_modules": r".*\.1\.self_attn\.(k|o)_proj"},
    {"target_modules": r".*_proj", "exclude_modules": r".*\.0\..*"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_job_trains_the_layers_that_peft_would(choice: dict[str, Any], tmp_path: Path) -> None:
    said = dict(choice)
    if "layers_to_transform" in choice and choice["target_modules"] == "all-linear":
        # PEFT takes the blocks with names alone, so it gets all names there are.
        said["target_modules"] = sorted({path.rpartition(".")[2] for path in LLAMA.targets})
    theirs = peft_adapter(TINY["llama"](), peft.LoraConfig(**said), tmp_path)
    found = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for name, _ in theirs.named_modules()
        if name.endswith(".lora_A.default")
    }
    assert set(trained_layers(PeftConfig(choice), LLAMA)) == found


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ({"layers_to_transform": [99]}, "layers_to_transform"),
        ({"layers_to_transform": [0, 99]}, "layers_to_transform"),
        ({"layers_to_transform": [99], "target_modules": "all-linear"}, "layers_to_transform"),
        ({"layers_to_transform": [0], "target_modules": ".*q_proj"}, "layers_to_transform"),
        ({"layers_to_transform": [True]}, "layers_to_transform"),
        ({"layers_to_transform": "0"}, "layers_to_transform"),
        ({"layers_to_transform": [0], "layers_pattern": "blocks"}, "layers_to_transform"),
        ({"layers_pattern": "layers"}, "layers_pattern"),
        ({"exclude_modules": ["nothing"]}, "exclude_modules"),
        ({"exclude_modules": ["q_proj", "v_proj"]}, "exclude_modules"),
        ({"exclude_modules": ".*", "target_modules": "all-linear"}, "exclude_modules"),
        ({"exclude_modules": 3}, "exclude_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ""}, "target_modules"),
        ({"target_modules": 7}, "target_modules"),
        ({"target_modules": ["nothing"]}, "target_modules"),
    ],
    ids=str,
)
def test_a_choice_that_chooses_nothing_is_refused(choice: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidAdapter, match=param) as raised:
        trained_layers(PeftConfig(choice), LLAMA)
    assert raised.value.param == param


def test_the_blocks_of_the_usual_layers_can_be_chosen() -> None:
    found = trained_layers(PeftConfig({"layers_to_transform": [1]}), LLAMA)
    assert found == ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]


def test_a_base_without_blocks_has_no_block_to_choose() -> None:
    base = BaseSpec("made", "sha256:0", {"first": Shape(8, 8), "second": Shape(8, 8)})
    assert trained_layers(PeftConfig({}), base) == ["first", "second"]
    with pytest.raises(InvalidAdapter, match="block 0"):
        trained_layers(PeftConfig({"layers_to_transform": [0]}), base)


# Dropout.

Q = "model.layers.0.self_attn.q_proj"
DROPPING = {
    "lora": peft.LoraConfig(target_modules=[Q], lora_dropout=0.5),
    "dora": peft.LoraConfig(target_modules=[Q], lora_dropout=0.5, use_dora=True),
    "vera": peft.VeraConfig(target_modules=[Q], r=8, vera_dropout=0.5),
}


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_before_the_update_is_pefts(name: str, tmp_path: Path) -> None:
    def read(folder: Path, spec: BaseSpec) -> Any:
        config = (folder / "adapter_config.json").read_bytes()
        return read_adapter(folder / "adapter_model.safetensors", config, spec)

    drawn = {"lora": "lora_B", "dora": "lora_B", "vera": "lambda_b"}[name]
    both = BesidePeft("llama", DROPPING[name], tmp_path, read, drawn)
    method, shape = both.adapter.methods[Q], both.spec.targets[Q]
    plan = TrainingPlan(method, {Q: shape}, both.bases, torch.Generator(), dropout=0.5)
    for key, tensor in plan.layers[Q].items():
        tensor.data.copy_(both.adapter.layers[Q][key])
    injection = inject(both.model, [Q])
    injection.switch.plan = plan
    answers = {}
    for who, model in (("ours", both.model), ("peft", both.peft_model)):
        for mode in (True, False):
            torch.manual_seed(5)
            answers[who, mode] = model.train(mode)(IDS).logits.detach()
    size = float(answers["peft", False].norm())
    tolerance = 1e3 * torch.finfo(torch.float32).eps  # a few layers' rounding
    for mode in (True, False):
        assert float((answers["ours", mode] - answers["peft", mode]).norm()) < tolerance * size
    assert float((answers["ours", True] - answers["ours", False]).norm()) > 1e2 * tolerance * size


def test_a_gaussian_start_of_lora_is_pefts_and_is_said() -> None:
    config = job_config(KINDS["lora"], {"init_lora_weights": "gaussian", "r": 4}, None)
    method = KINDS["lora"].from_peft(config, Q, {})
    down = method.init(Shape(64, 4096), torch.Generator().manual_seed(0))["lora_A.weight"]
    assert float(down.std()) == pytest.approx(1 / 4, rel=0.02)  # 16384 draws: 0.6 % each
    assert method.to_peft()["init_lora_weights"] == "gaussian"
    usual = KINDS["lora"].from_peft(job_config(KINDS["lora"], {"r": 4}, None), Q, {})
    assert "init_lora_weights" not in usual.to_peft()

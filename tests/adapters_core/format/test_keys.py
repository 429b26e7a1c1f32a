"""Keys of coefficient files: spellings that mean one thing are read, others refused in words."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from adapters_core.base.causal_probe import with_causal_targets
from adapters_core.base.renames import renamed, renames_of
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.errors import BaseMismatch, InvalidAdapter, UnusedTensors
from reading_parts import Q0, Read, refused
from tiny_bases import (
    change_config,
    change_tensors,
    peft_adapter,
    tiny_gpt2,
    tiny_mixtral,
    without_warnings,
)

P = "base_model.model."


def spell(folder: Path, how: Callable[[str], str]) -> None:
    change_tensors(folder, lambda t: [t.update({how(key): t.pop(key)}) for key in list(t)])


SPELLINGS: dict[str, Callable[[str], str]] = {
    "adapter's name": lambda key: key.replace("lora_A.", "lora_A.default.").replace(
        "lora_B.", "lora_B.default."
    ),
    "compiled outside": lambda key: "_orig_mod." + key,
    "compiled inside": lambda key: key.replace(P, P + "_orig_mod."),
    "compiled by layer": lambda key: key.replace("layers.0.", "layers.0._orig_mod."),
    "data-parallel": lambda key: "module." + key,
    "data-parallel and compiled": lambda key: "module._orig_mod." + key,
    "compiled and data-parallel": lambda key: "_orig_mod.module." + key,
    "fsdp": lambda key: key.replace("layers.1.", "layers.1._fsdp_wrapped_module."),
    "checkpointed": lambda key: key.replace("layers.0.", "layers.0._checkpoint_wrapped_module."),
    "tower of transformers 4": lambda key: key.replace(P + "model.", P + "language_model.model."),
    "tower of transformers 5": lambda key: key.replace(P + "model.", P + "model.language_model."),
}


@pytest.mark.parametrize("spelling", list(SPELLINGS))
def test_another_spelling_is_the_same_adapter(spelling: str, lora_folder: Path, read: Read) -> None:
    plain = read(lora_folder)
    spell(lora_folder, SPELLINGS[spelling])
    other = read(lora_folder)
    assert list(other.layers) == list(plain.layers)
    for target, layer in plain.layers.items():
        for name, tensor in layer.items():
            assert torch.equal(other.layers[target][name], tensor)


def test_a_magnitude_as_peft_holds_it_in_memory_is_read(
    llama: LlamaForCausalLM, tmp_path: Path, read: Read
) -> None:
    config = LoraConfig(target_modules=["q_proj"], r=2, use_dora=True, task_type="CAUSAL_LM")
    peft_adapter(llama, config, tmp_path)
    plain = read(tmp_path).layers[Q0]
    spell(tmp_path, lambda key: key + ".default.weight" if key.endswith("vector") else key)
    other = read(tmp_path).layers[Q0]
    assert all(torch.equal(other[name], tensor) for name, tensor in plain.items())


def test_an_output_layer_that_is_to_be_tied_is_refused(tmp_path: Path, read: Read) -> None:
    """PEFT would tie the embedding's update to it; a file without that says it in the config."""
    model = tiny_gpt2()
    spec = with_causal_targets(spec_of(model, "gpt2"), model, 64)
    config = LoraConfig(target_modules=["lm_head"], r=2, task_type="CAUSAL_LM")
    peft_adapter(model, config, tmp_path)
    assert list(read(tmp_path, spec).layers) == ["lm_head"]
    change_config(tmp_path, {"ensure_weight_tying": True})
    error = refused(read, tmp_path, InvalidAdapter, spec=spec)
    assert error.param == "ensure_weight_tying"


@pytest.mark.parametrize("other", ["scaled", "longer"])
def test_another_bases_embedding_in_the_file_is_refused(
    other: str, tmp_path: Path, read: Read
) -> None:
    model = tiny_gpt2()
    spec = with_causal_targets(spec_of(model, "gpt2"), model, 64)
    config = LoraConfig(target_modules=["lm_head"], r=2, task_type="CAUSAL_LM")
    peft_adapter(model, config, tmp_path)
    key = f"{P}lm_head.base_layer.weight"

    def change(tensors: dict[str, Tensor]) -> None:
        weight = tensors[key]
        longer = torch.cat([weight, weight[:1]])
        tensors[key] = 1.02 * weight if other == "scaled" else longer

    change_tensors(tmp_path, change)
    error = refused(read, tmp_path, BaseMismatch, spec=spec)
    assert error.param == key
    assert "is not the weight that base 'gpt2' has" in error.message


def test_what_torch_saves_of_a_whole_peft_model_is_named(lora_folder: Path, read: Read) -> None:
    """Its weights of the base are no part of an adapter."""
    extra = {P + "model.layers.0.self_attn.q_proj.base_layer.weight": torch.ones(96, 96)}
    change_tensors(lora_folder, lambda t: t.update(extra))
    error = refused(read, lora_folder, UnusedTensors)
    assert "base_layer.weight" in (error.param or "")
    assert "lora_A.weight, lora_B.weight" in error.message


def test_two_spellings_of_one_tensor_are_refused(lora_folder: Path, read: Read) -> None:
    key = f"{P}{Q0}.lora_A.weight"
    other = f"{P}{Q0}.lora_A.default.weight"
    change_tensors(lora_folder, lambda t: t.update({other: 2 * t[key]}))
    error = refused(read, lora_folder, InvalidAdapter)
    assert key in error.message
    assert other in error.message
    assert "two spellings of one tensor" in error.message


def test_an_unknown_adapters_name_is_refused(lora_folder: Path, read: Read) -> None:
    spell(lora_folder, lambda key: key.replace("lora_A.", "lora_A.other."))
    error = refused(read, lora_folder, InvalidAdapter)
    assert "lora_A.weight" in error.message


def test_shared_tensors_with_the_adapters_name_are_read(
    llama: LlamaForCausalLM, tmp_path: Path, read: Read
) -> None:
    config = VeraConfig(target_modules=["q_proj"], r=4, task_type="CAUSAL_LM")
    with without_warnings():
        model = get_peft_model(copy.deepcopy(llama), config)
        for name, parameter in model.named_parameters():
            if "vera_lambda" in name:
                parameter.data += 1
        model.save_pretrained(str(tmp_path))
    plain = read(tmp_path)
    spell(tmp_path, lambda key: key + ".default")
    assert all(
        torch.equal(read(tmp_path).layers[Q0][name], t) for name, t in plain.layers[Q0].items()
    )


def test_a_config_speaks_of_layers_by_the_files_paths(
    lora_folder: Path, read: Read, llama_spec: BaseSpec
) -> None:
    """An alpha for a path of the file would be overlooked, without a word, by the base's path."""
    spell(lora_folder, SPELLINGS["tower of transformers 4"])
    old = "language_model.model.layers.0.self_attn.q_proj"
    change_config(
        lora_folder,
        {
            "target_modules": r"language_model\.model\..*(q|v)_proj",
            "alpha_pattern": {rf"^{old}": 33},
        },
    )
    adapter = read(lora_folder)
    assert adapter.methods[Q0].config()["alpha"] == 33
    assert adapter.methods["model.layers.1.self_attn.q_proj"].config()["alpha"] == 8


def test_names_of_transformers_4_are_read(tmp_path: Path, read: Read) -> None:
    """Mixtral's mixture was `block_sparse_moe`; the library's own table says so."""
    model = tiny_mixtral()
    renames = renames_of(model)
    old = "model.layers.0.block_sparse_moe.shared.up_proj"
    assert renamed(old, renames) == "model.layers.0.mlp.shared.up_proj"
    shape = spec_of(model, "tiny").targets[Q0]
    spec = replace(spec_of(model, "tiny"), targets={"model.layers.0.mlp.shared.up_proj": shape})
    saved(tmp_path, old)
    assert list(read(tmp_path, spec).layers) == ["model.layers.0.mlp.shared.up_proj"]


def saved(folder: Path, path: str) -> None:
    drawn = torch.Generator().manual_seed(0)
    factors = {"A": torch.randn(2, 96, generator=drawn), "B": torch.randn(96, 2, generator=drawn)}
    tensors = {f"{P}{path}.lora_{one}.weight": tensor for one, tensor in factors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 2, "target_modules": [path.rpartition(".")[2]]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_a_name_that_transformers_did_not_change_stays(llama: LlamaForCausalLM) -> None:
    assert renames_of(llama) == ()
    assert renames_of(nn.Linear(2, 2)) == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.embed_tokens.lora_embedding_A", "of a LoRA of an embedding"),
        (
            "model.embed_tokens.token_adapter.trainable_tokens_delta",
            "of trained rows that trainable_token_indices",
        ),
        ("model.norm.weight", "a whole parameter of the base"),
        ("model.layers.0.self_attn.q_norm.bias", "a whole parameter of the base"),
        ("model.layers.0.mlp.experts.lora_A.weight", "of a mixture's experts"),
        ("model.layers.0.mlp.experts.base_layer.lora_B.weight", "of a mixture's experts"),
        ("lm_head.lora_A.weight", "of an output layer that no adapter may change"),
        ("model.layers.0.self_attn.q_norm.base_layer.weight", "a weight of the base itself"),
    ],
)
def test_what_an_unknown_key_is_stands_in_the_message(
    name: str, words: str, lora_folder: Path, read: Read
) -> None:
    change_tensors(lora_folder, lambda t: t.update({P + name: torch.ones(2, 3)}))
    error = refused(read, lora_folder, UnusedTensors)
    assert error.param == P + name
    assert f"{P}{name} is {words}" in error.message
    assert "merge_and_unload" in error.message or "save_pretrained" in error.message


def test_an_empty_tensor_is_told_from_a_wrong_one(lora_folder: Path, read: Read) -> None:
    """As DeepSpeed ZeRO-3 leaves it where nothing was gathered."""
    key = f"{P}{Q0}.lora_A.weight"
    change_tensors(lora_folder, lambda t: t.update({key: torch.empty(0)}))
    error = refused(read, lora_folder, InvalidAdapter)
    assert error.param == key
    assert f"{key}: shape [0] has no number" in error.message
    assert "gather its parameters" in error.message or "gather them" in error.message


@pytest.mark.parametrize("kept", [3, 200, 1000, -1])
def test_a_file_that_is_cut_off_says_so(kept: int, lora_folder: Path, read: Read) -> None:
    file = lora_folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    error = refused(read, lora_folder, InvalidAdapter)
    assert error.param == "file"
    assert "cut off" in error.message or kept == 3


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"PK\x03\x04", "a zip, such as torch.save writes"),
        (b"\x80\x02", "a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        (b"\x00\xff\xff\xff\xff\xff\xff\xff", "cut off, or no safetensors file"),
    ],
)
def test_another_kind_of_file_is_named(
    start: bytes, words: str, lora_folder: Path, read: Read
) -> None:
    (lora_folder / "adapter_model.safetensors").write_bytes(start.ljust(64, b"\xff"))
    assert words in refused(read, lora_folder, InvalidAdapter).message


def test_conv1d_layers_are_found_in_a_compiled_model(tmp_path: Path, read: Read) -> None:
    model = tiny_gpt2()
    config = LoraConfig(target_modules=["c_attn"], r=2, fan_in_fan_out=True, task_type="CAUSAL_LM")
    peft_adapter(model, config, tmp_path)
    spell(tmp_path, lambda key: key.replace(P, P + "_orig_mod."))
    tensors: dict[str, Tensor] = load_file(tmp_path / "adapter_model.safetensors")
    assert len(read(tmp_path, spec_of(model, "gpt2")).layers) == len(tensors) // 2

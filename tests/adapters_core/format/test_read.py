"""Adapters against a base: what does not fit is refused, and says what was expected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method_registry import registered
from adapters_core.errors import (
    InvalidAdapter,
    NoEffect,
    NonFinite,
    TooLarge,
    UnknownMethod,
    UnusedTensors,
)
from adapters_core.format.write import write_adapter
from adapters_core.methods import FourierFT, LoCA, WaveletFT
from reading_parts import KEY, Q0, V1, Read, refused
from tiny_bases import change_config, change_tensors


def test_a_peft_adapter_is_described(fourierft_folder: Path, read: Read) -> None:
    told = read(fourierft_folder).description
    assert told.method == "fourierft"
    assert told.method_config == {"n": 30, "scale": 150.0, "seed": 777}
    assert told.base_name == "tiny-llama"
    assert told.base_fingerprint.startswith("sha256:")
    assert not told.base_verified  # PEFT's file does not say which base it was made for
    assert len(told.target_modules) == 4
    assert told.num_coefficients == 120
    file = fourierft_folder / "adapter_model.safetensors"
    assert told.size_bytes == file.stat().st_size


def test_hyper_parameters_that_differ_by_layer_become_a_list(
    fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, {"n_frequency_pattern": {"v_proj": 20}})
    change_tensors(
        fourierft_folder,
        lambda t: t.update({k: v[:20].clone() for k, v in t.items() if "v_proj" in k}),
    )
    assert read(fourierft_folder).description.method_config["n"] == [20, 30]


def test_a_missing_tensor_is_named(lora_folder: Path, read: Read) -> None:
    key = f"base_model.model.{Q0}.lora_B.weight"
    change_tensors(lora_folder, lambda t: t.pop(key))
    error = refused(read, lora_folder, InvalidAdapter)
    assert error.param == key
    assert "missing; expected shape [96, 3]" in error.message


@pytest.mark.parametrize(
    ("tensor", "got"),
    [(torch.ones(29), "[29]"), (torch.ones(1, 30), "[1, 30]"), (torch.tensor(1.0), "[]")],
)
def test_a_wrong_shape_is_named(
    tensor: torch.Tensor, got: str, fourierft_folder: Path, read: Read
) -> None:
    change_tensors(fourierft_folder, lambda t: t.update({KEY: tensor}))
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == KEY
    assert f"has shape {got}, expected [30]" in error.message


def test_integers_are_no_coefficients(fourierft_folder: Path, read: Read) -> None:
    whole = torch.ones(30, dtype=torch.int64)
    change_tensors(fourierft_folder, lambda t: t.update({KEY: whole}))
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == KEY
    assert "int64" in error.message


def test_half_precision_files_are_read_as_float32(fourierft_folder: Path, read: Read) -> None:
    change_tensors(
        fourierft_folder, lambda t: t.update({k: v.to(torch.bfloat16) for k, v in t.items()})
    )
    layer = read(fourierft_folder).layers[Q0]
    assert layer["fourierft_spectrum"].dtype == torch.float32


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if old in key]:
            tensors[key.replace(old, new)] = tensors.pop(key)

    return change


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model.model.", ""),
        ("base_model.model.", "model."),
        ("base_model.model.model.", "base_model.model.model.vision_model."),
        ("layers.1", "layers.2"),
        ("v_proj", "w_proj"),
        ("model.layers.1.self_attn.v_proj", "lm_head"),
        ("model.layers.1.self_attn.v_proj", "model.embed_tokens"),
        ("model.layers.1.self_attn.v_proj", "model.norm"),
    ],
)
def test_tensors_that_match_nothing_are_refused(
    old: str, new: str, fourierft_folder: Path, read: Read
) -> None:
    change_tensors(fourierft_folder, rename(old, new))
    error = refused(read, fourierft_folder, UnusedTensors)
    assert error.param is not None
    assert new in error.param
    assert error.param in error.message
    assert f"base_model.model.{Q0}.<tensor>" in error.message
    assert error.code == "unused_tensors"


def test_a_tensor_the_method_does_not_know_is_refused(lora_folder: Path, read: Read) -> None:
    key = f"base_model.model.{Q0}.lora_magnitude_vector"
    change_tensors(lora_folder, lambda t: t.update({key: torch.ones(96)}))
    error = refused(read, lora_folder, UnusedTensors)
    assert error.param == key
    assert "lora_A.weight, lora_B.weight" in error.message


def test_another_methods_tensors_are_refused(
    fourierft_folder: Path, lora_folder: Path, read: Read
) -> None:
    config = (fourierft_folder / "adapter_config.json").read_bytes()
    (lora_folder / "adapter_config.json").write_bytes(config)
    error = refused(read, lora_folder, InvalidAdapter)
    assert "fourierft_spectrum is missing" in error.message


def test_a_layer_the_config_adapts_and_the_file_lacks(fourierft_folder: Path, read: Read) -> None:
    change_tensors(fourierft_folder, lambda t: t.pop(f"base_model.model.{V1}.fourierft_spectrum"))
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == V1
    assert "the file has no tensor for it" in error.message


def test_a_layer_the_file_holds_and_the_config_does_not_adapt(
    fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, {"target_modules": ["q_proj"]})
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == "model.layers.0.self_attn.v_proj"
    assert "which the config does not adapt" in error.message


@pytest.mark.parametrize("rule", ["all-linear", "ALL-LINEAR"])
def test_all_linear_takes_the_layers_of_the_file(
    rule: str, fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, {"target_modules": rule})
    assert len(read(fourierft_folder).layers) == 4


def test_all_linear_does_not_take_what_it_excludes(fourierft_folder: Path, read: Read) -> None:
    change_config(fourierft_folder, {"target_modules": "all-linear", "exclude_modules": ["v_proj"]})
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == "model.layers.0.self_attn.v_proj"
    assert "which the config does not adapt" in error.message


@pytest.mark.parametrize("rule", [None, [], ""])
def test_without_target_modules_the_config_is_refused_with_the_names_to_write(
    rule: Any, fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, {"target_modules": rule})
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == "target_modules"
    assert error.message.startswith(f"target_modules = {json.dumps(rule)} names no layer")
    assert '["q_proj", "v_proj"]: write these' in error.message


@pytest.mark.parametrize("rule", ["lora", "q_proj", "layers"])
def test_a_pattern_that_peft_finds_nowhere_is_refused(
    rule: str, fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, {"target_modules": rule})
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert "which the config does not adapt" in error.message


@pytest.mark.parametrize("layers", [[0, 1], 0, []])
def test_layers_beside_a_pattern_are_refused_as_peft_does(
    layers: Any, fourierft_folder: Path, read: Read
) -> None:
    rule = {"target_modules": r".*\.(q_proj|v_proj)", "layers_to_transform": layers}
    change_config(fourierft_folder, rule)
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == "layers_to_transform"


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM"])
def test_an_adapter_of_a_task_that_the_base_has_no_head_for_is_refused(
    task: str, fourierft_folder: Path, read: Read
) -> None:
    changes = {"task_type": task, "modules_to_save": ["classifier", "score"]}
    change_config(fourierft_folder, changes)
    error = refused(read, fourierft_folder, InvalidAdapter)
    assert error.param == "task_type"
    assert f"task_type = '{task}': the adapter was trained on a model with" in error.message
    assert ("--task classify" in error.message) == (task == "SEQ_CLS")


@pytest.mark.parametrize("task", ["causal", 3, ["CAUSAL_LM"]])
def test_a_task_that_peft_does_not_know_is_refused(
    task: Any, fourierft_folder: Path, read: Read
) -> None:
    change_config(fourierft_folder, {"task_type": task})
    assert refused(read, fourierft_folder, InvalidAdapter).param == "task_type"


def test_an_adapter_of_zeros_is_refused(fourierft_folder: Path, read: Read) -> None:
    change_tensors(
        fourierft_folder, lambda t: t.update({k: torch.zeros_like(v) for k, v in t.items()})
    )
    assert refused(read, fourierft_folder, NoEffect).code == "no_effect"


def test_a_lora_with_b_zero_is_refused(lora_folder: Path, read: Read) -> None:
    def clear(tensors: dict[str, torch.Tensor]) -> None:
        for key in tensors:
            if "lora_B" in key:
                tensors[key] = torch.zeros_like(tensors[key])

    change_tensors(lora_folder, clear)
    refused(read, lora_folder, NoEffect)


def test_factors_that_cancel_each_other_are_refused(lora_folder: Path, read: Read) -> None:
    """As PEFT's orthogonal initialisation leaves them before any training."""
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    change_config(lora_folder, {"r": 4})

    def cancel(tensors: dict[str, torch.Tensor]) -> None:
        for key, tensor in tensors.items():
            if "lora_A" in key:
                tensors[key] = (torch.randn(tensor.shape[1], 2) @ rotation[::2]).T.contiguous()
            else:
                tensors[key] = torch.randn(tensor.shape[0], 2) @ rotation[1::2]

    change_tensors(lora_folder, cancel)
    refused(read, lora_folder, NoEffect)


SCALED = sorted(
    kind.name for kind in registered().values() if {"scaling", "lora_alpha"} & set(kind().to_peft())
)


@pytest.mark.parametrize("name", SCALED)
def test_a_scale_of_zero_has_no_effect(
    name: str, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    method = {"fourierft": FourierFT(30), "loca": LoCA(30), "waveletft": WaveletFT(30)}.get(
        name, registered()[name]()
    )
    shape = llama_spec.targets[Q0]
    layer = {n: torch.ones(s.shape) for n, s in method.tensors(shape).items()}
    if name == "loca":
        layer["loca_locations"] = torch.zeros(2, 30, dtype=torch.uint16)
    write_adapter(tmp_path, method, {Q0: layer}, llama_spec)
    assert list(read(tmp_path).layers) == [Q0]
    change_config(tmp_path, {n: 0 for n in ("scaling", "lora_alpha") if n in method.to_peft()})
    refused(read, tmp_path, NoEffect)


def test_one_layer_that_acts_is_enough(fourierft_folder: Path, read: Read) -> None:
    change_tensors(
        fourierft_folder,
        lambda t: t.update({k: torch.zeros_like(v) for k, v in t.items() if k != KEY}),
    )
    read(fourierft_folder)


def test_nan_in_one_layer_is_named(fourierft_folder: Path, read: Read) -> None:
    change_tensors(fourierft_folder, lambda t: t[KEY].__setitem__(3, torch.nan))
    assert refused(read, fourierft_folder, NonFinite).param == KEY


def test_a_file_over_the_cap_is_too_large(fourierft_folder: Path, read: Read) -> None:
    assert "at most 500" in refused(read, fourierft_folder, TooLarge, max_bytes=500).message


def test_a_config_over_the_cap_is_too_large(fourierft_folder: Path, read: Read) -> None:
    change_config(fourierft_folder, {"revision": "x" * 2**20})
    assert refused(read, fourierft_folder, TooLarge).param == "config"


def test_unknown_methods_list_the_known(fourierft_folder: Path, read: Read) -> None:
    change_config(fourierft_folder, {"peft_type": "BONE"})
    error = refused(read, fourierft_folder, UnknownMethod)
    assert (
        "'BONE' is not supported; supported: C3A, CLORA, FOURIERFT, FROD, LOCA, LORA, SHIRA, "
        "TINYLORA, VERA, WAVEFT" in error.message
    )


def test_long_names_do_not_make_long_messages(fourierft_folder: Path, read: Read) -> None:
    config = fourierft_folder / "adapter_config.json"
    before = config.read_bytes()
    for changes in (
        {"x" * 900_000: True},
        {"bias": "x" * 900_000},
        {"peft_type": "x" * 900_000},
    ):
        config.write_bytes(before)
        change_config(fourierft_folder, changes)
        with pytest.raises(InvalidAdapter) as caught:
            read(fourierft_folder)
        assert len(caught.value.message) <= 4000
        assert len(caught.value.param or "") <= 4000

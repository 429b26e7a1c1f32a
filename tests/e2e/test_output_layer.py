"""PEFT's adapters of the output layer, uploaded as saved, answer over REST as PEFT does."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load, save

import tiny
from live import CONFIG, FILE, Files, Live
from peft_made import Made, quiet

PROMPTS = ([79, 110, 99], list(range(40, 81)))
BELOW = {"llama": "down_proj", "gpt2": "c_fc"}


@pytest.fixture(scope="module", params=list(BELOW))
def shape(request: pytest.FixtureRequest) -> str:
    """A base with an output layer of its own, and one whose embedding is tied to it."""
    return str(request.param)


@pytest.fixture(scope="module", params=["factored", "merged"])
def server(request: pytest.FixtureRequest, shape: str, serve_all: Callable[..., Live]) -> Live:
    return serve_all(shape, mode=request.param)


def made(folder: Path, shape: str, seed: int, **options: Any) -> Made:
    with quiet():
        targets = {"target_modules": ["lm_head", BELOW[shape]]}
        config = LoraConfig(r=3, task_type="CAUSAL_LM", **targets | options)
        model = get_peft_model(copy.deepcopy(tiny.model(shape)), config)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.3, generator=generator)
        model.save_pretrained(str(folder))
    files: Files = {name: (folder / name).read_bytes() for name in (FILE, CONFIG)}
    return Made(f"head-{seed}", files, model.eval())


def test_they_answer_as_peft_does(server: Live, shape: str, tmp_path: Path) -> None:
    adapters = [made(tmp_path / str(seed), shape, seed, use_dora=seed == 3) for seed in (1, 2, 3)]
    for adapter in adapters:
        answer = server.upload(adapter.label, adapter.files)
        assert answer.status_code == 201, answer.text
        assert "lm_head" in answer.json()["target_modules"]
    for adapter in adapters:
        for prompt in PROMPTS:
            got = server.tokens(adapter.label, prompt, max_tokens=6)
            assert got == adapter.greedy(prompt, 6)


def test_a_copy_of_the_bases_weight_is_left_aside_and_another_is_refused(
    server: Live, shape: str, tmp_path: Path
) -> None:
    files = made(tmp_path / "a", shape, 5).files
    tensors = load(files[FILE])
    copies = [key for key in tensors if key.endswith("base_layer.weight")]
    assert copies  # PEFT saves it unasked
    tensors[copies[0]] = 1.01 * tensors[copies[0]]
    answer = server.upload("changed", files | {FILE: save(tensors, {"format": "pt"})})
    assert answer.status_code == 409
    error = answer.json()["error"]
    assert error["code"] == "base_mismatch"
    assert error["param"] == copies[0]
    assert "merge_and_unload" in error["message"]


def test_all_linear_does_not_mean_the_output_layer(
    server: Live, shape: str, tmp_path: Path
) -> None:
    """In PEFT neither: a file that holds it is not what its config says."""
    files = made(tmp_path / "b", shape, 6).files
    config = json.loads(files[CONFIG]) | {"target_modules": "all-linear"}
    answer = server.upload("all", files | {CONFIG: json.dumps(config).encode()})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "lm_head"

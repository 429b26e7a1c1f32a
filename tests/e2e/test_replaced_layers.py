"""PEFT's adapters of embeddings and whole layers, uploaded as saved, answer over REST as PEFT."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import tiny
from live import CONFIG, FILE, Files, Live
from peft_made import Made, quiet

PROMPTS = ([79, 110, 99], list(range(40, 81)))
#: What an adapter changes beside a linear; the tokens stand in both prompts or in answers.
CHANGES: dict[str, dict[str, Any]] = {
    "embedding": {"target_modules": ["embed_tokens", "down_proj"]},
    "tokens": {"target_modules": ["down_proj"], "trainable_token_indices": [79, 110, 41, 44]},
    "saved": {"target_modules": ["down_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}


@pytest.fixture(scope="module", params=["factored", "merged", "auto"])
def server(request: pytest.FixtureRequest, serve_all: Callable[..., Live]) -> Live:
    return serve_all("llama", mode=request.param)


def made(folder: Path, change: str) -> Made:
    with quiet():
        config = LoraConfig(r=3, task_type="CAUSAL_LM", **CHANGES[change])
        torch.manual_seed(1)
        model = get_peft_model(copy.deepcopy(tiny.model("llama")), config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape)
        model.save_pretrained(str(folder))
    files: Files = {name: (folder / name).read_bytes() for name in (FILE, CONFIG)}
    return Made(change, files, model.eval())


def test_they_answer_as_peft_does(server: Live, tmp_path: Path) -> None:
    adapters = [made(tmp_path / change, change) for change in CHANGES]
    for adapter in adapters:
        answer = server.upload(adapter.label, adapter.files)
        assert answer.status_code == 201, answer.text
    for adapter in adapters:
        for prompt in PROMPTS:
            got = server.tokens(adapter.label, prompt, max_tokens=6)
            assert got == adapter.greedy(prompt, 6), adapter.label


def test_the_answer_names_every_layer_that_is_changed(server: Live, tmp_path: Path) -> None:
    answer = server.upload("named", made(tmp_path / "a", "saved").files).json()
    assert answer["method"] == "lora"
    assert {"model.embed_tokens", "lm_head"} <= set(answer["target_modules"])


@pytest.mark.parametrize(
    ("change", "fields", "param"),
    [
        ("saved", {"modules_to_save": ["embed_tokens", "norm"]}, "modules_to_save"),
        ("saved", {"modules_to_save": ["lm_head"]}, "base_model.model.model.embed_tokens.weight"),
        ("saved", {"modules_to_save": "lm_head"}, "modules_to_save"),
        ("tokens", {"trainable_token_indices": [79, 79, 41, 44]}, "trainable_token_indices"),
        ("tokens", {"trainable_token_indices": [79, 110, 41, 999999]}, "trainable_token_indices"),
        ("tokens", {"trainable_token_indices": [79, True, 41, 44]}, "trainable_token_indices"),
        ("tokens", {"trainable_token_indices": {"lm_heap": [1]}}, "trainable_token_indices"),
        (
            "tokens",
            {"trainable_token_indices": [79]},
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
        ),
        ("tokens", {"target_parameters": ["mlp.experts.down_proj"]}, "target_parameters"),
        ("saved", {"target_modules": ["down_proj", "lm_head"]}, "modules_to_save"),
        (
            "tokens",
            {"target_modules": ["down_proj", "embed_tokens"]},
            "trainable_token_indices",
        ),
        ("embedding", {"use_dora": True}, "model.embed_tokens"),
        ("embedding", {"target_modules": ["down_proj"]}, "model.embed_tokens"),
    ],
)
def test_a_config_that_is_not_the_files_is_refused_by_name(
    server: Live, tmp_path: Path, change: str, fields: dict[str, Any], param: str
) -> None:
    files = made(tmp_path / "b", change).files
    config = json.dumps(json.loads(files[CONFIG]) | fields).encode()
    answer = server.upload("wrong", files | {CONFIG: config})
    assert answer.status_code in (409, 422), answer.text
    assert answer.json()["error"]["param"] == param, answer.text
    assert server.tokens("saved", PROMPTS[0], max_tokens=2)  # neighbours are unharmed

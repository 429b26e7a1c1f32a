"""Layers that no adapter may change are listed with their reason, and refused by name."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import tiny
from live import CONFIG, FILE, Files, Live
from peft_made import quiet

ROUTERS = ["model.layers.0.feed_forward.router", "model.layers.1.feed_forward.router"]
PROMPTS = ([79, 110, 99], list(range(40, 81)))


@pytest.fixture(scope="module", params=["factored", "merged"])
def server(request: pytest.FixtureRequest, serve_all: Callable[..., Live]) -> Live:
    return serve_all("llama4", mode=request.param)


def made(folder: Path, seed: int, targets: Any) -> tuple[Any, Files]:
    with quiet():
        config = LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM")
        model = get_peft_model(copy.deepcopy(tiny.model("llama4")), config)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.2, generator=generator)
        model.save_pretrained(str(folder))
    return model.eval(), {name: (folder / name).read_bytes() for name in (FILE, CONFIG)}


def test_the_base_says_which_layers_are_left_out_and_why(server: Live) -> None:
    left_out = server.http.get("/v1/models/tiny").json()["overtone"]["left_out"]
    assert [entry["module"] for entry in left_out] == ROUTERS
    assert all("forward pass of its own" in entry["reason"] for entry in left_out)


def test_an_upload_that_changes_such_a_layer_is_refused_by_name(
    server: Live, tmp_path: Path
) -> None:
    _, files = made(tmp_path, 1, "all-linear")
    answer = server.upload("routers", files)
    error = answer.json()["error"]
    assert answer.status_code == 422
    assert error["param"] == ROUTERS[0]
    assert f"no adapter may change {ROUTERS[0]} (and 1 more layers)" in error["message"]
    assert "Llama4Router" in error["message"]


def test_the_other_layers_are_served_as_peft_has_them(server: Live, tmp_path: Path) -> None:
    others = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model, files = made(tmp_path, 2, others)
    assert server.upload("others", files).status_code == 201
    for prompt in PROMPTS:
        options = {"max_tokens": 1, "logprobs": 1}
        choice = server.complete("others", prompt, **options).json()["choices"][0]
        with torch.no_grad(), quiet():
            logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
        expected = logits.log_softmax(-1).max()
        assert choice["token_ids"] == [int(logits.argmax())]
        assert choice["logprobs"]["token_logprobs"][0] == pytest.approx(float(expected), abs=1e-3)

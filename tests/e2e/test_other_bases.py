"""Bases with unusual attention, loaded from their files, answer as PEFT does, several at once."""

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from peft import FourierFTConfig, LoraConfig, get_peft_model

import tiny
from live import CONFIG, FILE, Live
from peft_made import quiet

#: Beyond every window, chunk and border of the tiny shapes, and well within them.
PROMPTS = ([79, 110, 99], list(range(100)), [7] * 30 + list(range(60, 90)))
NUM_TOKENS = 6
TOLERANCE = 1e-3
SHAPES = (*tiny.MASKED_SHAPES, "phi3", *tiny.OWN_SHAPES)


class Case:
    """A base, three adapters of PEFT's, and what PEFT answers to a prompt each."""

    def __init__(self, shape: str, folder: Path) -> None:
        self.shape = shape
        self.files = {}
        self.expected = {}
        self.logprobs = {}
        base = tiny.model(shape)
        targets = [path for path, module in base.named_modules() if _is_target(path, module)]
        fourierft = FourierFTConfig(n_frequency=40, scaling=30.0, target_modules=targets)
        lora = LoraConfig(r=3, target_modules=targets)
        configs = {"fourierft": fourierft, "lora": lora, "lora2": lora}
        for (name, config), prompt in zip(configs.items(), PROMPTS, strict=True):
            config.task_type = "CAUSAL_LM"
            with quiet():
                model = get_peft_model(copy.deepcopy(base), config)
                _draw(model, len(self.files))
                model.save_pretrained(str(folder / name))
                out = model.eval().generate(
                    input_ids=torch.tensor([prompt]),
                    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    max_new_tokens=NUM_TOKENS,
                    do_sample=False,
                    eos_token_id=None,
                    output_logits=True,
                    return_dict_in_generate=True,
                )
            self.files[name] = {f: (folder / name / f).read_bytes() for f in (FILE, CONFIG)}
            self.expected[name] = out.sequences[0, len(prompt) :].tolist()
            self.logprobs[name] = torch.cat(out.logits).log_softmax(-1).amax(-1).tolist()


def _is_target(path: str, module: torch.nn.Module) -> bool:
    return (
        isinstance(module, torch.nn.Linear)
        and not path.endswith(("lm_head", "router"))
        and module.out_features > 1
    )


def _draw(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "fourierft_" in name:
            parameter.data.normal_(0, 0.3, generator=generator)


@pytest.fixture(scope="module", params=SHAPES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_adapters_on_every_layer_answer_together_as_peft_does(
    case: Case, mode: str, serve: Callable[..., Live]
) -> None:
    server = serve(case.shape, mode=mode)
    for name, files in case.files.items():
        answer = server.upload(name, files)
        assert answer.status_code == 201, answer.text
    answers = asyncio.run(_ask_at_once(server, list(case.files)))
    choices = [answer.json()["choices"][0] for answer in answers]
    told = [choice["token_ids"] for choice in choices]
    assert told == list(case.expected.values())
    for choice, true in zip(choices, case.logprobs.values(), strict=True):
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(true, abs=TOLERANCE)


async def _ask_at_once(server: Live, names: list[str]) -> list[httpx2.Response]:
    fixed = {"max_tokens": NUM_TOKENS, "temperature": 0, "return_token_ids": True}
    async with httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as http:
        asked = [
            {"model": name, "prompt": prompt, "ignore_eos": True, "logprobs": 1, **fixed}
            for name, prompt in zip(names, PROMPTS, strict=True)
        ]
        return await asyncio.gather(*(http.post("/v1/completions", json=one) for one in asked))

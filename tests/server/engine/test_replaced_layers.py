"""Adapters of embeddings, tokens, whole weights and experts: each row gets its own, in any crowd.

PEFT makes and saves the adapters; its own forward pass, one text at a time, is what is right.
"""

import copy
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import FourierFTConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor

import tiny
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME
from server.adapters.modes import Mode
from server.scheduling.sequence import TokenSequence
from server_parts import Given, Served, greedy, prompt_of

LENGTHS = (3, 45, 20, 7, 12)
#: Of logits about 5 in size, float32: sums over up to 160 products, three blocks deep.
TOLERANCE = 5e-4
#: To bfloat16, one after the other: about a dozen in each of three blocks, and the logits' own.
NUM_ROUNDINGS = 40


def _lora(*names: str, **fields: Any) -> LoraConfig:
    return LoraConfig(r=3, target_modules=list(names), task_type="CAUSAL_LM", **fields)


#: Base -> what its adapters change; the last sequence of each crowd is the bare base's.
CONFIGS: dict[str, list[PeftConfig]] = {
    "llama": [
        _lora("embed_tokens", "q_proj"),
        _lora("q_proj", trainable_token_indices=[5, 9, 200]),
        _lora("v_proj", modules_to_save=["lm_head", "embed_tokens"]),
        FourierFTConfig(
            n_frequency=40, target_modules=["o_proj"], modules_to_save=["lm_head"], scaling=40
        ),
    ],
    "tied": [
        _lora("embed_tokens", "q_proj"),
        _lora("q_proj", trainable_token_indices=[5, 9, 200]),
        _lora("q_proj", trainable_token_indices=[7, 9, 11]),
        _lora("q_proj", "embed_tokens", ensure_weight_tying=True),
    ],
    "gpt_oss": [
        _lora("q_proj", target_parameters=["experts.gate_up_proj", "experts.down_proj"]),
        _lora("q_proj", target_parameters=["experts.down_proj"]),
        _lora("embed_tokens", target_parameters=["experts.gate_up_proj"]),
        _lora("q_proj"),
    ],
}


@dataclass(frozen=True)
class Made:
    peft: PeftModel
    given: Given


@dataclass(frozen=True)
class Crowd:
    served: Served
    adapters: list[Made | None]


def _made(served: Served, config: PeftConfig, folder: Path, seed: int) -> Made:
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of tied weights and of its own files
        peft_model = get_peft_model(copy.deepcopy(served.plain), config).eval()
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn(parameter.shape) * parameter.std().clamp(0.2)
        peft_model.save_pretrained(str(folder))
    file, fields = folder / WEIGHTS_NAME, (folder / CONFIG_NAME).read_bytes()
    adapter = read_adapter(file, fields, served.spec)
    return Made(peft_model, Given(adapter.methods, adapter.layers))


@pytest.fixture(scope="module", params=list(CONFIGS))
def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    shape, changes = request.param, {}
    if shape == "tied":
        shape, changes = "llama", {"tie_word_embeddings": True}
    served = Served(tiny.model(shape, **changes))
    folder = tmp_path_factory.mktemp("adapters")
    made = [
        _made(served, config, folder / str(number), number)
        for number, config in enumerate(CONFIGS[request.param])
    ]
    return Crowd(served, [*made, None])


def _run(crowd: Crowd, modes: str, max_rows: int = 512) -> list[tuple[TokenSequence, Tensor]]:
    names: dict[str, Mode] = {"f": "factored", "m": "merged"}
    sequences = []
    for made, mode, length in zip(crowd.adapters, modes, LENGTHS[: len(modes)], strict=True):
        entry = crowd.served.entry(made.given, names[mode]) if made else None
        sequences.append(TokenSequence(prompt_of(length, length), greedy(4), entry))
    rows = crowd.served.run(sequences, max_rows=max_rows)
    return [(sequence, rows[sequence]) for sequence in sequences]


def _expected(crowd: Crowd, made: Made | None, tokens: list[int]) -> Tensor:
    model = made.peft if made else crowd.served.plain
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.tensor([tokens])).logits[0]
    return logits


@pytest.mark.parametrize("max_rows", [512, 24])
@pytest.mark.parametrize("modes", ["ffff-", "mmmm-", "fmfm-", "mfmf-"])
def test_every_sequence_gets_its_own_layers(crowd: Crowd, modes: str, max_rows: int) -> None:
    results = _run(crowd, modes, max_rows)
    for (sequence, got), made in zip(results, crowd.adapters, strict=True):
        whole = _expected(crowd, made, list(sequence.tokens))
        start = len(sequence.tokens) - len(got) - 1
        wanted = whole[start : start + len(got)]
        torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def test_every_adapter_makes_a_difference(crowd: Crowd) -> None:
    tokens = [5, 9, 200, 7, 11, *prompt_of(12, 1)]
    plain = _expected(crowd, None, tokens)
    for made in crowd.adapters[:-1]:
        assert (_expected(crowd, made, tokens) - plain).norm() > 100 * TOLERANCE * plain.norm()


@pytest.mark.parametrize("crowd", ["llama", "tied"], indirect=True)
def test_bits_do_not_depend_on_neighbours(crowd: Crowd) -> None:
    """Not of experts: how many rows go through one of them depends on all rows of a step."""
    together = _run(crowd, "ffff-")
    for (_, rows), made, length in zip(together, crowd.adapters, LENGTHS, strict=True):
        entry = crowd.served.entry(made.given, "factored") if made else None
        alone = TokenSequence(prompt_of(length, length), greedy(4), entry)
        assert torch.equal(crowd.served.run([alone])[alone], rows)


def _half_crowd(name: str, folder: Path) -> Crowd:
    """Return a crowd on a bfloat16 base, without PEFT's tying: in half precision it ties nothing.

    Adapters are cast to float32 there, one layer after the other, which makes two of one.
    """
    changes: dict[str, Any] = {"tie_word_embeddings": True} if name == "tied" else {}
    served = Served(tiny.model("llama", **changes).bfloat16())
    made = [
        _made(served, config, folder / str(number), number)
        for number, config in enumerate(CONFIGS[name])
        if not getattr(config, "ensure_weight_tying", False)
    ]
    return Crowd(served, [*made, None])


@pytest.mark.parametrize("name", ["llama", "tied"])
def test_on_a_half_precision_base_answers_are_as_near_as_pefts(name: str, tmp_path: Path) -> None:
    """Held against PEFT in float32 on the same weights, as PEFT's own half precision is."""
    crowd = _half_crowd(name, tmp_path)
    bound = math.sqrt(NUM_ROUNDINGS) * torch.finfo(torch.bfloat16).eps / 2
    for modes in ("fffff", "mmmmm"):
        for (sequence, got), made in zip(
            _run(crowd, modes[: len(crowd.adapters)]), crowd.adapters, strict=True
        ):
            tokens = list(sequence.tokens)
            half = _expected(crowd, made, tokens)
            full = copy.deepcopy(made.peft if made else crowd.served.plain).float()
            with torch.inference_mode():
                true = full(input_ids=torch.tensor([tokens])).logits[0]
            start = len(tokens) - len(got) - 1
            rows = slice(start, start + len(got))
            for answer in (got, half[rows]):
                assert (answer - true[rows]).norm() < bound * true[rows].norm()

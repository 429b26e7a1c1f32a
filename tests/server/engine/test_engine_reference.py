"""A mixed batch gives each row what `model.generate` gives with a dense delta merged in."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2LMHeadModel,
    LlamaConfig,
)

import tiny
from adapters_core.layers.inject import inject
from server.adapters.modes import Mode
from server.engine.engine import Engine
from server.engine.mask_patterns import UnsupportedAttention
from server.scheduling.sequence import TokenSequence
from server_parts import (
    FOURIERFT,
    LORA,
    QUERY_VALUE,
    Given,
    Served,
    given,
    greedy,
    prompt_of,
    scattered_pool,
    torch_threads,
)

NEW_TOKENS = 8
LENGTHS = [1, 5, 12, 31, 32, 33, 47, 70, 96, 20]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


class Answers:
    """A served base, ten prompts with their adapters, and the true tokens and logits of each."""

    def __init__(self, shape: str) -> None:
        self.served = Served(tiny.model(shape))
        kinds = [(m, ends) for m in (FOURIERFT, LORA) for ends in (QUERY_VALUE, ("",))]
        self.adapters: list[Given | None] = [None, None]
        for seed in (1, 2):
            self.adapters += [given(self.served.spec, m, seed, ends) for m, ends in kinds]
        # The base's own rows stand between the others.
        self.adapters = self.adapters[1:6] + self.adapters[:1] + self.adapters[6:]
        self.prompts = [prompt_of(length, length) for length in LENGTHS]
        pairs = zip(self.adapters, self.prompts, strict=True)
        self.true = [self._generate(adapter, prompt) for adapter, prompt in pairs]

    def _generate(self, adapter: Given | None, prompt: tuple[int, ...]) -> tuple[list[int], Tensor]:
        ids = torch.tensor([prompt])
        model: Any = self.served.merged_copy(adapter)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return out.sequences[0].tolist(), torch.cat(out.logits)

    def sequences(self, mode: Mode) -> list[TokenSequence]:
        leases = [adapter and self.served.entry(adapter, mode) for adapter in self.adapters]
        sampling = greedy(NEW_TOKENS, frozenset({tiny.EOS}))
        return [
            TokenSequence(p, sampling, lease) for p, lease in zip(self.prompts, leases, strict=True)
        ]

    def check(self, sequences: list[TokenSequence], logits: dict[TokenSequence, Tensor]) -> None:
        for sequence, (tokens, true) in zip(sequences, self.true, strict=True):
            assert sequence.tokens == tokens
            assert (logits[sequence] - true).abs().max() < 1e-3


@pytest.fixture(scope="module", params=tiny.SHAPES + tiny.MASKED_SHAPES)
def answers(request: pytest.FixtureRequest) -> Answers:
    return Answers(request.param)


def test_the_adapters_answer_differently(answers: Answers) -> None:
    """Else the tests below would prove nothing."""
    logits = [answers.served.merged_copy(a)(torch.tensor([[1, 2, 3]])) for a in answers.adapters]
    rows = torch.stack([out.logits[0, -1] for out in logits])
    distances = torch.cdist(rows, rows)
    base = [i for i, adapter in enumerate(answers.adapters) if adapter is None]
    assert distances[base[0], base[1]] == 0
    distances[base[0], base[1]] = distances[base[1], base[0]] = 1
    assert (distances + torch.eye(len(rows)) > 0.1).all()


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_a_mixed_batch_answers_as_generate_does(answers: Answers, mode: Mode) -> None:
    sequences = answers.sequences(mode)
    answers.check(sequences, answers.served.run(sequences))


def test_both_modes_side_by_side_in_pieces_on_scattered_pages(answers: Answers) -> None:
    factored, merged = answers.sequences("factored"), answers.sequences("merged")
    sequences = [pair[i % 2] for i, pair in enumerate(zip(factored, merged, strict=True))]
    pool = scattered_pool(answers.served.num_pages // 2)
    answers.check(sequences, answers.served.run(sequences, max_rows=29, pool=pool))


def engine_of(model: nn.Module) -> Engine:
    return Engine(inject(model), num_pages=8)


def from_config(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


SMALL: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}


class Counting(GPT2LMHeadModel):
    """Numbers its rows itself, as if a step's were one text."""

    def forward(self, *args: Any, position_ids: Any = None, **options: Any) -> Any:
        return super().forward(*args, **options)


def test_a_base_that_ignores_positions_is_refused() -> None:
    with pytest.raises(UnsupportedAttention, match="differ by"):
        engine_of(Counting(tiny.model("gpt2").config).eval())


def test_a_fixed_stretch_of_positions_is_served() -> None:
    config = LlamaConfig(
        **SMALL,
        intermediate_size=48,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    )
    engine_of(from_config(config))

"""Bases with attention code of their own answer as transformers does, in any company."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

import tiny
from adapters_core.layers.inject import inject
from server.adapters.modes import Mode
from server.engine.engine import Engine
from server.engine.mask_patterns import UnsupportedAttention
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import TokenSequence
from server_parts import (
    FOURIERFT,
    LORA,
    PAGE_SIZE,
    QUERY_VALUE,
    Given,
    Served,
    given,
    greedy,
    prompt_of,
    scattered_pool,
    torch_threads,
)

LENGTHS = (1, 5, 31, 32, 33, 47, 70, 96)
NEW_TOKENS = 5
TOLERANCE = 1e-3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


class Crowd:
    """A served base and prompts, each with another adapter or none."""

    def __init__(self, shape: str) -> None:
        self.served = Served(tiny.model(shape))
        self.adapters: list[Given | None] = [None, None]
        for seed in (1, 2, 3):
            ends = ("",) if seed > 1 else QUERY_VALUE
            self.adapters += [given(self.served.spec, m, seed, ends) for m in (FOURIERFT, LORA)]
        self.prompts = [prompt_of(n, n) for n in LENGTHS]

    def sequences(self, mode: Mode) -> list[TokenSequence]:
        pairs = zip(self.prompts, self.adapters, strict=True)
        return [
            TokenSequence(prompt, greedy(NEW_TOKENS), adapter and self.served.entry(adapter, mode))
            for prompt, adapter in pairs
        ]

    def true(self, number: int) -> tuple[list[int], Tensor]:
        """Return what transformers generates with a dense delta merged in."""
        model: Any = self.served.merged_copy(self.adapters[number])
        ids = torch.tensor([self.prompts[number]])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return out.sequences[0].tolist(), torch.cat(out.logits)


@pytest.fixture(scope="module", params=tiny.OWN_SHAPES)
def crowd(request: pytest.FixtureRequest) -> Crowd:
    made = Crowd(request.param)
    assert made.served.engine.has_own_attention
    return made


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_sequences_in_pieces_on_scattered_pages_answer_as_generate_does(
    crowd: Crowd, mode: Mode
) -> None:
    sequences = crowd.sequences(mode)
    pool = scattered_pool(crowd.served.num_pages // 2)
    logits = crowd.served.run(sequences, max_rows=29, pool=pool)
    for number, sequence in enumerate(sequences):
        tokens, true = crowd.true(number)
        assert sequence.tokens == tokens
        assert (logits[sequence] - true).abs().max() < TOLERANCE


def test_the_answer_depends_on_adapter_and_on_early_tokens(crowd: Crowd) -> None:
    """Else the test above would prove nothing."""
    ids = torch.tensor([prompt_of(70, 1)])
    logits = [crowd.served.merged_copy(a)(ids).logits[0, -1] for a in crowd.adapters[1:]]
    logits.append(crowd.served.plain(ids.index_fill(1, torch.tensor([3, 50]), 7)).logits[0, -1])
    distances = torch.pdist(torch.stack(logits))
    assert (distances > 0.01).all()


def test_a_row_has_the_same_bits_alone_in_a_crowd_and_in_pieces(crowd: Crowd) -> None:
    alone = [crowd.served.run([one])[one] for one in crowd.sequences("factored")]
    for max_rows in (8, 37, 500):
        sequences = crowd.sequences("factored")
        logits = crowd.served.run(sequences, max_rows=max_rows)
        for one, own in zip(sequences, alone, strict=True):
            assert torch.equal(logits[one], own)


def test_a_sequence_that_lost_its_pages_answers_the_same(crowd: Crowd) -> None:
    asked = [TokenSequence(prompt_of(40, seed), greedy(60)) for seed in range(4)]
    alone = [crowd.served.run([TokenSequence(one.prompt, greedy(60))]) for one in asked]
    logits = crowd.served.run(asked, pool=PagePool(9, PAGE_SIZE))
    assert any(one.num_preempted for one in asked)
    for one, own in zip(asked, alone, strict=True):
        assert torch.equal(logits[one], next(iter(own.values())))


@pytest.mark.parametrize("shape", ["mpt", "gptj"])
@pytest.mark.parametrize("length", [62, 64, 66])
def test_a_text_may_be_as_long_as_the_base_takes(shape: str, length: int) -> None:
    """Beyond it there is no position to compute: rows that nothing reads stand before the text."""
    field = {"mpt": "max_seq_len", "gptj": "n_positions"}[shape]
    served = Served(tiny.model(shape, **{field: length}))
    one = TokenSequence(prompt_of(length - 9, 3), greedy(9))
    logits = served.run([one], max_rows=11)[one]
    with torch.inference_mode():
        true = served.plain(torch.tensor([one.tokens[:-1]])).logits[0, -9:]
    assert (logits - true).abs().max() < TOLERANCE


class NoCache(LlamaForCausalLM):
    """Attends in a way of its own and keeps no keys."""

    _can_set_attn_implementation_cached_value = False

    def forward(self, *args: Any, past_key_values: Any = None, **options: Any) -> Any:
        options["use_cache"] = False
        return super().forward(*args, **options)


def test_a_base_that_keeps_no_keys_is_refused() -> None:
    model: nn.Module = NoCache(tiny.model().config).eval()
    with pytest.raises(UnsupportedAttention, match="NoCache"):
        Engine(inject(model), num_pages=8)


def test_scales_by_a_row_s_number_are_computed_by_the_base_itself() -> None:
    """Llama 4 counts rows of the step where texts are long enough for that to matter."""
    served = Served(tiny.model("llama4", floor_scale=16))
    assert served.engine.has_own_attention
    asked = [TokenSequence(prompt_of(n, n), greedy(4)) for n in (90, 20, 50)]
    logits = served.run(asked, max_rows=37)
    for one in asked:
        with torch.inference_mode():
            true = served.plain(torch.tensor([one.tokens[:-1]])).logits[0, -4:]
        assert (logits[one] - true).abs().max() < TOLERANCE

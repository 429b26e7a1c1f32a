"""What each layer sees, as transformers' own masks say, whatever its window's length."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers import masking_utils as masks

import tiny
from server.engine.mask_patterns import Sight, UnsupportedAttention, learn_sights, sight_of

ZERO = torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize("size", [2, 7, 40, 4096, 8192])
def test_windows_and_chunks_are_told_apart_at_any_size(size: int) -> None:
    sliding = masks.sliding_window_causal_mask_function(size)
    chunked = masks.chunked_causal_mask_function(size, ZERO)
    assert sight_of(sliding, size) == Sight(window=size)
    assert sight_of(chunked, size) == Sight(chunk=size)
    assert sight_of(masks.causal_mask_function, size) == Sight()
    assert sight_of(masks.causal_mask_function, None) == Sight()


@pytest.mark.parametrize(
    "function",
    [
        masks.bidirectional_mask_function,
        masks.sliding_window_bidirectional_mask_function(40),
        masks.or_masks(masks.causal_mask_function, masks.blockwise_overlay(torch.zeros(1, 4))),
        masks.chunked_causal_mask_function(40, ZERO + 3),
        masks.sliding_window_causal_mask_function(39),
    ],
)
def test_other_patterns_are_none_of_ours(function: Any) -> None:
    assert sight_of(function, 40) is None


@pytest.mark.parametrize("sight", [Sight(), Sight(window=5), Sight(chunk=5), Sight(5, 7)])
def test_a_row_sees_every_token_from_its_first_one_on(sight: Sight) -> None:
    own, other = torch.arange(40)[:, None], torch.arange(40)[None]
    seen = sight.mask(own, other)
    for position in range(40):
        places = seen[position].nonzero()[:, 0].tolist()
        assert places == list(range(sight.first(position), position + 1))


@pytest.mark.parametrize(
    ("shape", "sights"),
    [
        ("llama", [Sight(), Sight()]),
        ("gpt2", [Sight(), Sight()]),
        ("mistral", [Sight(window=40), Sight(window=40)]),
        ("gemma2", [Sight(window=40), Sight()]),
        ("gpt_oss", [Sight(window=40), Sight()]),
        ("llama4", [Sight(chunk=40), Sight()]),
        ("qwen2_moe", [Sight(window=40), Sight()]),
    ],
)
def test_the_sight_of_every_layer_is_learned_from_four_tokens(
    shape: str, sights: list[Sight]
) -> None:
    assert learn_sights(tiny.model(shape)) == dict(enumerate(sights))


class OwnMask(LlamaForCausalLM):
    """Adds to its scores by a mask of its own."""

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        count = input_ids.shape[1]
        mask = torch.full((count, count), -1.0).triu(1)[None, None]
        return super().forward(input_ids, attention_mask=mask, **options)


def of_class(kind: Any) -> nn.Module:
    made: nn.Module = kind(tiny.model().config)
    return made.eval()


def test_a_mask_of_its_own_is_refused() -> None:
    with pytest.raises(UnsupportedAttention, match="none of: causal"):
        learn_sights(of_class(OwnMask))


def test_a_base_that_sees_later_tokens_is_refused() -> None:
    config: Any = tiny.model().config
    config.is_causal = False
    with pytest.raises(UnsupportedAttention, match="none of: causal"):
        learn_sights(AutoModelForCausalLM.from_config(config))


class Twice(LlamaForCausalLM):
    """Runs its layers twice, so that a layer's keys would be written over."""

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        super().forward(input_ids, **options)
        return super().forward(input_ids, **options)


def test_a_layer_that_attends_twice_is_refused() -> None:
    with pytest.raises(UnsupportedAttention, match="twice in layer 0"):
        learn_sights(of_class(Twice))


@pytest.mark.parametrize("shape", tiny.OWN_SHAPES)
def test_attention_code_of_their_own_is_refused_by_name(shape: str) -> None:
    with pytest.raises(UnsupportedAttention, match="ForCausalLM has attention code of its own"):
        learn_sights(tiny.model(shape))

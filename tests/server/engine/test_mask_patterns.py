"""What each layer sees, as transformers' own masks say, whatever its window's length."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers import masking_utils as masks

import tiny
from server.engine.mask_patterns import (
    MaskPattern,
    UnsupportedAttention,
    mask_patterns_of,
    pattern_of,
)

ZERO = torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize("size", [2, 7, 40, 4096, 8192])
def test_windows_and_chunks_are_told_apart_at_any_size(size: int) -> None:
    sliding = masks.sliding_window_causal_mask_function(size)
    chunked = masks.chunked_causal_mask_function(size, ZERO)
    assert pattern_of(sliding, size) == MaskPattern(window=size)
    assert pattern_of(chunked, size) == MaskPattern(chunk=size)
    assert pattern_of(masks.causal_mask_function, size) == MaskPattern()
    assert pattern_of(masks.causal_mask_function, None) == MaskPattern()


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
    assert pattern_of(function, 40) is None


@pytest.mark.parametrize(
    "pattern", [MaskPattern(), MaskPattern(window=5), MaskPattern(chunk=5), MaskPattern(5, 7)]
)
def test_a_row_sees_every_token_from_its_first_one_on(pattern: MaskPattern) -> None:
    own, other = torch.arange(40)[:, None], torch.arange(40)[None]
    seen = pattern.mask(own, other)
    for position in range(40):
        places = seen[position].nonzero()[:, 0].tolist()
        assert places == list(range(pattern.first(position), position + 1))


@pytest.mark.parametrize(
    ("shape", "patterns"),
    [
        ("llama", [MaskPattern(), MaskPattern()]),
        ("gpt2", [MaskPattern(), MaskPattern()]),
        ("mistral", [MaskPattern(window=40), MaskPattern(window=40)]),
        ("gemma2", [MaskPattern(window=40), MaskPattern()]),
        ("gpt_oss", [MaskPattern(window=40), MaskPattern()]),
        ("llama4", [MaskPattern(chunk=40), MaskPattern()]),
        ("qwen2_moe", [MaskPattern(window=40), MaskPattern()]),
    ],
)
def test_the_sight_of_every_layer_is_learned_from_four_tokens(
    shape: str, patterns: list[MaskPattern]
) -> None:
    assert mask_patterns_of(tiny.model(shape)) == dict(enumerate(patterns))


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
        mask_patterns_of(of_class(OwnMask))


def test_a_base_that_sees_later_tokens_is_refused() -> None:
    config: Any = tiny.model().config
    config.is_causal = False
    with pytest.raises(UnsupportedAttention, match="none of: causal"):
        mask_patterns_of(AutoModelForCausalLM.from_config(config))


class Twice(LlamaForCausalLM):
    """Runs its layers twice, so that a layer's keys would be written over."""

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        super().forward(input_ids, **options)
        return super().forward(input_ids, **options)


def test_a_layer_that_attends_twice_is_refused() -> None:
    with pytest.raises(UnsupportedAttention, match="twice in layer 0"):
        mask_patterns_of(of_class(Twice))


@pytest.mark.parametrize("shape", tiny.OWN_SHAPES)
def test_attention_code_of_their_own_is_refused_by_name(shape: str) -> None:
    with pytest.raises(UnsupportedAttention, match="ForCausalLM has attention code of its own"):
        mask_patterns_of(tiny.model(shape))

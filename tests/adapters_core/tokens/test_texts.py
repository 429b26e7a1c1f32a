"""Texts are cut as transformers cuts them, for serving and for training."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_encoders
import tokenizer_kinds as kinds
from adapters_core.tokens.texts import cut, text_ids
from registry.jobs.spec import Hyperparameters
from server.encoding.texts import Texts
from trainer.base import make
from trainer.interfaces import Reporter
from trainer.tasks.choice import task_of

FRAMED = ("byte-level, bos", "byte-level, bos and eos", "unigram, always", "wordpiece, bos and eos")
words = st.lists(st.sampled_from(kinds.WORDS), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(FRAMED),
    text=words,
    length=st.integers(3, 12),
    side=st.sampled_from(["left", "right"]),
)
def test_a_long_text_keeps_what_transformers_keeps(
    name: str, text: str, length: int, side: str
) -> None:
    tokenizer: Any = kinds.tokenizer(name)
    before, tokenizer.truncation_side = tokenizer.truncation_side, side
    try:
        wanted = tokenizer(text, truncation=True, max_length=length)["input_ids"]
        assert cut(tokenizer, text_ids(tokenizer, text), length) == wanted
    finally:
        tokenizer.truncation_side = before


def test_what_is_hardly_more_than_special_tokens_is_cut_at_its_end() -> None:
    tokenizer = kinds.tokenizer("byte-level, bos and eos")
    ids = text_ids(tokenizer, "v")
    assert cut(tokenizer, ids, 1) == ids[:1]
    assert cut(tokenizer, ids, 3) == ids


@pytest.mark.parametrize("side", ["left", "right"])
def test_training_and_serving_read_the_same_of_a_long_text(side: str) -> None:
    tokenizer = tiny_encoders.tokenizer()
    tokenizer.truncation_side = side
    text = "".join(chr(97 + i % 26) for i in range(60))
    served = Texts(tokenizer, tiny_encoders.VOCABULARY, 20).tokens(text, truncate=True)
    base = make(tiny_encoders.model("bert"), tokenizer, "tiny", "sequence_classification")
    task = task_of("sequence_classification", base, Hyperparameters(max_length=20), Reporter())
    example = task.example({"text": text, "label": "a"})
    assert tuple(example.ids) == served
    assert (len(served), example.num_cut) == (20, 42)

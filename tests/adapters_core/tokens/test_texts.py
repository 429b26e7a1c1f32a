"""Texts are cut as transformers cuts them, for serving and for training."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

import tiny_encoders
import tokenizer_kinds as kinds
from adapters_core.tokens.texts import cut, most_chars, text_ids
from registry.jobs.spec import Hyperparameters
from server.encoding.texts import Texts
from server.errors import PromptTooLong
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


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([name for name in kinds.KINDS if name.startswith("byte-level")]),
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
)
def test_no_byte_level_token_stands_for_more_characters_than_the_longest_has(
    name: str, text: str
) -> None:
    tokenizer: Any = kinds.tokenizer(name)
    longest = max(map(len, tokenizer.get_vocab()))
    assert most_chars(tokenizer) == longest
    assert len(text) <= longest * len(text_ids(tokenizer, text))


def test_where_one_token_may_stand_for_any_text_the_bound_is_large() -> None:
    tokenizer: Any = kinds.tokenizer("wordpiece")
    assert len(text_ids(tokenizer, "x" * 10_000)) == 1  # a word that it does not know
    for name in ("wordpiece", "unigram, stripping", "byte fallback, old"):
        assert most_chars(kinds.tokenizer(name)) == 512
    taking: Any = kinds.KINDS["byte-level"]()
    taking.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    assert most_chars(PreTrainedTokenizerFast(tokenizer_object=taking)) == 512


class Counted:
    """A tokenizer that knows how many characters it read."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.num_read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: Any) -> Any:
        self.num_read += len(text)
        return self._tokenizer(text, **options)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FRAMED)
def test_of_a_text_that_is_much_too_long_no_more_is_read_than_is_kept(name: str, side: str) -> None:
    tokenizer: Any = kinds.tokenizer(name)
    counted = Counted(tokenizer)
    texts = Texts(counted, len(tokenizer), 20)
    said = " ".join(kinds.WORDS * 1000)
    most = (20 + 64) * most_chars(tokenizer)
    before, tokenizer.truncation_side = tokenizer.truncation_side, side
    try:
        whole = cut(tokenizer, text_ids(tokenizer, said), 20)
        assert texts.tokens(said, truncate=True) == tuple(whole)
        assert counted.num_read <= most < len(said)
        counted.num_read = 0
        with pytest.raises(PromptTooLong, match=r"maximum context length is 20 tokens\. How") as no:
            texts.tokens(said, truncate=False)
        assert (counted.num_read, no.value.param) == (0, "input")
    finally:
        tokenizer.truncation_side = before


def test_a_long_text_of_few_tokens_is_read_whole() -> None:
    tokenizer: Any = kinds.tokenizer("wordpiece, bos and eos")
    said = "key " + "x" * 50_000 + " value"
    assert len(said) > 20 * most_chars(tokenizer)
    found = Texts(tokenizer, len(tokenizer), 20).tokens(said, truncate=True)
    assert found == tuple(text_ids(tokenizer, said))
    assert len(found) == 5

"""A base's tokens as bytes: what its tokenizer writes, and what llguidance itself makes of it."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer, grammar_from
from llguidance.hf import from_tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

import tokenizer_kinds
from server.constraints.vocabulary import NotReadable, vocabulary_of

#: Kinds that llguidance can read by itself.
NATIVE = ("byte-level", "byte-level, bos and eos", "byte fallback, old", "byte fallback", "gemma")


def allowed(matcher: LLMatcher, size: int) -> set[int]:
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
    return {int(i) for i in np.nonzero(bits[:size])[0]}


@pytest.mark.parametrize("kind", NATIVE)
def test_masks_are_those_of_llguidances_own_reader(kind: str) -> None:
    tokenizer = tokenizer_kinds.tokenizer(kind)
    size, random = len(tokenizer), Random(1)
    grammar = grammar_from("json_schema", '{"type": "array", "items": {"type": "string"}}')
    ours = LLMatcher(vocabulary_of(tokenizer, size).trie(), grammar)
    theirs = LLMatcher(from_tokenizer(tokenizer), grammar)
    for _ in range(80):
        tokens = allowed(ours, size)
        assert tokens == allowed(theirs, size) - {tokenizer.eos_token_id}
        if not tokens:
            break
        token = random.choice(sorted(tokens))
        assert ours.consume_token(token)
        assert theirs.consume_token(token)


@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_tokens_are_the_bytes_that_the_tokenizer_writes_behind_others(kind: str) -> None:
    tokenizer = tokenizer_kinds.tokenizer(kind)
    vocabulary = vocabulary_of(tokenizer, len(tokenizer))
    decode = tokenizer.backend_tokenizer.decode
    text = tokenizer("hello world key7=v7, two", add_special_tokens=False)["input_ids"]
    for before, after in pairwise(range(1, len(text))):
        pieces = [vocabulary.written[i] for i in text[before:after]]
        said = decode(text[:after]).removeprefix(decode(text[:before]))
        assert b"".join(pieces).decode() == said


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback", "gemma"])
def test_every_byte_has_a_token(kind: str) -> None:
    tokenizer = tokenizer_kinds.tokenizer(kind)
    written = set(vocabulary_of(tokenizer, len(tokenizer)).written)
    assert {bytes([i]) for i in range(256)} <= written


@pytest.mark.parametrize("more", [-40, 0, 1, 31, 64])
def test_masks_are_as_wide_as_the_logits_and_numbers_without_a_token_never_allowed(
    more: int,
) -> None:
    tokenizer = tokenizer_kinds.tokenizer("byte-level")
    size = len(tokenizer) + more
    vocabulary = vocabulary_of(tokenizer, size)
    matcher = LLMatcher(vocabulary.trie(), grammar_from("regex", "(?s:.*)"))
    tokens = allowed(matcher, size)
    assert vocabulary.end == size
    assert len(matcher.compute_bitmask()) == -(-(size + 2) // 32) * 4
    special = set(tokenizer.all_special_ids)
    some = {i for i in range(min(size, len(tokenizer))) if i not in special}
    assert tokens <= some
    assert len(tokens) > 100


def test_special_tokens_are_no_text() -> None:
    tokenizer = tokenizer_kinds.tokenizer("byte fallback")
    trie = vocabulary_of(tokenizer, len(tokenizer)).trie()
    matcher = LLMatcher(trie, grammar_from("regex", "[<>a-z]+"))
    assert isinstance(trie, LLTokenizer)
    assert not allowed(matcher, len(tokenizer)) & set(tokenizer.all_special_ids)


def test_a_tokenizer_whose_texts_are_not_its_tokens_put_together_is_refused() -> None:
    """Its decoder drops what stands twice: no token has a text of its own."""
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "ab": 2, "<unk>": 3}, unk_token="<unk>"))
    made.decoder = decoders.CTC(pad_token="b")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    with pytest.raises(NotReadable, match="one by one"):
        vocabulary_of(tokenizer, 4)

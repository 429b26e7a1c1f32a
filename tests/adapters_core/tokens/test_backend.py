"""Tokenizers are served as requests need them, or refused in words."""

import json
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

import tiny
import tokenizer_kinds as kinds
from adapters_core.tokens.backend import check_generates


def with_decoder(kind: str, *steps: dict[str, Any]) -> PreTrainedTokenizerFast:
    form = json.loads(kinds.KINDS[kind]().to_str())
    form["decoder"] = {"type": "Sequence", "decoders": list(steps)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(form)))


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_every_family_is_taken(kind: str) -> None:
    check_generates(kinds.tokenizer(kind))
    check_generates(tiny.tokenizer())


def test_a_tokenizer_in_python_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"ByT5Tokenizer.*Add a tokenizer\.json"):
        check_generates(ByT5Tokenizer())


def test_a_decoder_that_is_not_read_token_by_token_is_refused() -> None:
    byte_level = json.loads(kinds.KINDS["byte-level"]().to_str())["decoder"]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    with pytest.raises(ValueError, match="one by one"):
        check_generates(with_decoder("byte-level", byte_level, strip))


def test_a_tokenizer_that_raises_is_refused_with_its_words() -> None:
    class Broken:
        backend_tokenizer = tiny.tokenizer().backend_tokenizer

        def __call__(self, text: str, **options: Any) -> None:
            raise KeyError("no such token")

    with pytest.raises(ValueError, match="Broken, cannot read or write a text: 'no such token'"):
        check_generates(Broken())

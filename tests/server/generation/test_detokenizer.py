"""Prompts and conversations as tokens."""

from typing import Any

import pytest

import tiny
import tokenizer_kinds as kinds
from adapters_core.tokens.chats import Chat
from server.errors import InvalidRequest
from server.generation.detokenizer import Text

TOKENIZER: Any = tiny.tokenizer()
TEXT = Text(TOKENIZER, tiny.VOCABULARY)


def tokens_of(text: str) -> list[int]:
    return list(TOKENIZER(text)["input_ids"])


def test_a_prompt_is_text_or_tokens() -> None:
    assert TEXT.prompt("hé") == tuple(tokens_of("hé"))
    assert TEXT.prompt([0, 256]) == (0, 256)


@pytest.mark.parametrize("prompt", ["", [], [257], [-1], [1, 2, 10**9]])
def test_prompts_that_no_base_could_read_are_refused(prompt: str | list[int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        TEXT.prompt(prompt)
    assert caught.value.param == "prompt"


def test_a_conversation_goes_through_the_bases_template() -> None:
    tokens = TEXT.chat_prompt(Chat([{"role": "user", "content": "hi"}]))
    assert TOKENIZER.decode(tokens) == "user: hi\nassistant:"


def test_without_a_template_there_is_no_chat() -> None:
    bare = tiny.tokenizer()
    bare.chat_template = None
    with pytest.raises(InvalidRequest, match="no chat template"):
        Text(bare, tiny.VOCABULARY).chat_prompt(Chat([{"role": "user", "content": "hi"}]))


def test_what_the_template_refuses_is_the_requests_fault() -> None:
    strict = tiny.tokenizer()
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        Text(strict, tiny.VOCABULARY).chat_prompt(Chat([{"role": "user", "content": "hi"}]))


def test_what_a_template_raises_of_any_kind_is_the_requests_fault() -> None:
    broken = tiny.tokenizer()
    broken.chat_template = "{{ messages[0].content + 1 }}"
    with pytest.raises(InvalidRequest, match="can only concatenate"):
        Text(broken, tiny.VOCABULARY).chat_prompt(Chat([{"role": "user", "content": "hi"}]))


@pytest.mark.parametrize(
    ("shape", "end"),
    [
        ("turn end is no eos", kinds.TURN),
        ("turn end is eos", kinds.EOS),
        ("only answers end", kinds.EOS),
        ("turns end in text", None),
        ("the last turn is not ended", None),
    ],
)
def test_a_chat_ends_where_the_template_ends_an_answer(shape: str, end: str | None) -> None:
    tokenizer = kinds.tokenizer("gemma", kinds.TEMPLATES[shape])
    ends = Text(tokenizer, len(tokenizer)).chat_ends
    assert [tokenizer.convert_ids_to_tokens(one) for one in ends] == ([end] if end else [])

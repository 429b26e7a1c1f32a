"""How long prompts may be, and what is said of one that is too long."""

from collections.abc import Sequence
from typing import Any

import pytest

import tiny
import tokenizer_kinds as kinds
from adapters_core.tokens.chats import Chat
from adapters_core.tokens.texts import most_chars
from server.base.lengths import Lengths
from server.errors import PromptTooLong
from server.generation.detokenizer import Text

LENGTHS = Lengths(max_length=100, token_chars=8)


def test_no_max_tokens_is_the_usual_number_or_what_fits() -> None:
    assert [LENGTHS.room(count, None, 16, "prompt") for count in (10, 84, 85, 99)] == [
        16,
        16,
        15,
        1,
    ]
    assert LENGTHS.room(10, None, None, "messages") == 90


@pytest.mark.parametrize(
    ("num_tokens", "wanted", "field", "says"),
    [
        (100, None, "prompt", "the prompt resulted in 100 tokens, and an answer has one at least"),
        (101, None, "messages", "the messages resulted in 101 tokens"),
        (60, 41, "prompt", r"you requested 101 tokens \(60 in the prompt, 41 in the completion\)"),
        (101, 0, "prompt", r"you requested 101 tokens \(101 in the prompt, 0 in the completion\)"),
    ],
)
def test_what_does_not_fit_is_told_as_openai_tells_it(
    num_tokens: int, wanted: int | None, field: str, says: str
) -> None:
    start = r"This model's maximum context length is 100 tokens\. However, "
    with pytest.raises(PromptTooLong, match=start + says) as caught:
        LENGTHS.room(num_tokens, wanted, 16, field)
    assert caught.value.param == field


def test_a_prompt_may_fill_the_base_where_nothing_is_to_be_generated() -> None:
    assert LENGTHS.room(100, 0, 16, "prompt") == 0
    assert LENGTHS.room(60, 40, 16, "prompt") == 40


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


def refused(text: Text, given: str | Sequence[int]) -> str:
    with pytest.raises(PromptTooLong) as caught:
        text.prompt(given)
    return caught.value.message


def test_more_characters_than_tokens_can_have_are_refused_unread() -> None:
    counted = Counted(kinds.tokenizer("byte-level"))
    text = Text(counted, 500, max_length=64)
    longest = most_chars(counted)
    assert f"{64 * longest + 1} characters" in refused(text, "a" * (64 * longest + 1))
    assert counted.num_read == 0


def test_of_a_very_long_text_no_more_is_read_than_shows_that_it_does_not_fit() -> None:
    counted = Counted(tiny.tokenizer())
    text = Text(counted, tiny.VOCABULARY, max_length=100_000)
    text.lengths = Lengths(100_000, token_chars=128)
    counted.num_read = 0
    assert "more than 1" in refused(text, "a" * 8_000_000)
    assert counted.num_read <= 2 * 65_536


def test_a_very_long_text_that_fits_is_taken() -> None:
    tokenizer: Any = kinds.tokenizer("byte-level")
    said = "answer " * 30_000
    ids = tokenizer(said)["input_ids"]
    text = Text(tokenizer, 500, max_length=len(ids))
    assert len(said) > 4 * len(ids) or len(said) > 65_536
    assert text.prompt(said) == tuple(ids)
    assert "resulted in" in refused(text, said + " answer")


def test_token_ids_are_counted_before_they_are_looked_at() -> None:
    text = Text(tiny.tokenizer(), tiny.VOCABULARY, max_length=10)
    assert "11 tokens" in refused(text, [10**9] * 11)


def test_a_conversation_that_is_too_long_is_the_messages_fault() -> None:
    text = Text(tiny.tokenizer(), tiny.VOCABULARY, max_length=10)
    with pytest.raises(PromptTooLong, match="the messages") as caught:
        text.chat_prompt(Chat([{"role": "user", "content": "Once upon a time"}]))
    assert caught.value.param == "messages"

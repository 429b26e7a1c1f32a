"""Text in, tokens out, and back piece by piece."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
import tokenizer_kinds as kinds
from server.errors import InvalidRequest
from server.generation.detokenizer import Text

TOKENIZER: Any = tiny.tokenizer()
TEXT = Text(TOKENIZER, tiny.VOCABULARY)
#: Anything but surrogates; the tiny tokenizer has no whole characters, so each is split.
unicode = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30
)


def tokens_of(text: str) -> list[int]:
    return list(TOKENIZER(text)["input_ids"])


def streamed(
    tokens: list[int], prompt: list[int], stops: tuple[str, ...] = ()
) -> tuple[str, bool, int]:
    """Return the whole text, whether it was stopped, and how many tokens were taken."""
    stream, text = TEXT.stream(tuple(prompt), stops), ""
    for count, token in enumerate(tokens, 1):
        piece = stream.push(token)
        text += piece.text
        if piece.is_stopped:
            return text, True, count
    return text + stream.flush(), False, len(tokens)


@settings(max_examples=200, deadline=None)
@given(text=unicode, prompt=unicode)
def test_pieces_add_up_to_the_whole_text(text: str, prompt: str) -> None:
    assert streamed(tokens_of(text), tokens_of(prompt)) == (text, False, len(tokens_of(text)))


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(st.integers(0, 255), max_size=20), prompt=unicode)
def test_bytes_that_are_no_text_are_neither_lost_nor_fatal(tokens: list[int], prompt: str) -> None:
    assert streamed(tokens, tokens_of(prompt))[0] == TOKENIZER.decode(tokens)


@settings(max_examples=200, deadline=None)
@given(text=unicode, data=st.data())
def test_a_prompt_that_ends_inside_a_character_is_not_told_again(
    text: str, data: st.DataObject
) -> None:
    tokens = tokens_of("prompt " + text)
    cut = data.draw(st.integers(1, len(tokens)))
    whole_characters = TOKENIZER.decode(tokens[:cut]).rstrip("\ufffd")
    wanted = ("prompt " + text)[len(whole_characters) :] if cut < len(tokens) else ""
    assert streamed(tokens[cut:], tokens[:cut])[0] == wanted


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(st.integers(0, 256), min_size=1, max_size=20), data=st.data())
def test_any_prompt_may_precede_any_tokens(tokens: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(tokens)))
    got = streamed(tokens[cut:], tokens[:cut])[0]
    assert TOKENIZER.decode(tokens, skip_special_tokens=True).endswith(got)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(st.sampled_from("abé🌌"), max_size=20),
    stops=st.lists(st.text(st.sampled_from("abé🌌"), min_size=1, max_size=5), max_size=3),
)
def test_a_stop_string_cuts_at_its_first_place_across_token_borders(
    text: str, stops: list[str]
) -> None:
    got, is_stopped, taken = streamed(tokens_of(text), [], tuple(stops))
    # The stream sees character after character: the one that ends first counts.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    assert is_stopped == bool(ends)
    if not ends:
        assert got == text
        return
    end = min(ends)[0]
    start = min(start for stop, start in ends if stop == end)
    assert got == text[:start]
    assert taken == len(text[:end].encode())


def test_what_may_become_a_stop_string_is_held_back_and_flushed() -> None:
    stream = TEXT.stream((), ("END",))
    told = [stream.push(token).text for token in tokens_of("aEbEN")]
    assert told == ["a", "", "Eb", "", ""]
    assert stream.flush() == "EN"
    assert stream.flush() == ""


def test_half_a_character_at_the_end_is_flushed_as_the_tokenizer_writes_it() -> None:
    first = tokens_of("🌌")[:2]
    assert streamed(first, []) == (TOKENIZER.decode(first), False, 2)


def test_special_tokens_are_no_text() -> None:
    tokens = [*tokens_of("a"), tiny.EOS, *tokens_of("b")]
    assert streamed(tokens, [tiny.EOS])[0] == "ab"


def test_a_prompt_is_text_or_tokens() -> None:
    assert TEXT.prompt("hé") == tuple(tokens_of("hé"))
    assert TEXT.prompt([0, 256]) == (0, 256)


@pytest.mark.parametrize("prompt", ["", [], [257], [-1], [1, 2, 10**9]])
def test_prompts_that_no_base_could_read_are_refused(prompt: str | list[int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        TEXT.prompt(prompt)
    assert caught.value.param == "prompt"


def test_a_conversation_goes_through_the_bases_template() -> None:
    tokens = TEXT.chat_prompt([{"role": "user", "content": "hi"}])
    assert TOKENIZER.decode(tokens) == "user: hi\nassistant:"


def test_without_a_template_there_is_no_chat() -> None:
    bare = tiny.tokenizer()
    bare.chat_template = None
    with pytest.raises(InvalidRequest, match="no chat template"):
        Text(bare, tiny.VOCABULARY).chat_prompt([{"role": "user", "content": "hi"}])


def test_what_the_template_refuses_is_the_requests_fault() -> None:
    strict = tiny.tokenizer()
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        Text(strict, tiny.VOCABULARY).chat_prompt([{"role": "user", "content": "hi"}])


def test_what_a_template_raises_of_any_kind_is_the_requests_fault() -> None:
    broken = tiny.tokenizer()
    broken.chat_template = "{{ messages[0].content + 1 }}"
    with pytest.raises(InvalidRequest, match="can only concatenate"):
        Text(broken, tiny.VOCABULARY).chat_prompt([{"role": "user", "content": "hi"}])


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


def test_one_tokens_own_text() -> None:
    assert TEXT.token(tokens_of("a")[0]) == "a"

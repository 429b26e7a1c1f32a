"""Tokens in, text out piece by piece, up to a stop string."""

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
import tokenizer_kinds as kinds
from server.generation.detokenizer import Text
from server.generation.text_stream import Piece, Place, TextForm

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
    stream, text = TEXT.stream(prompt, TextForm(stops)), ""
    for count, token in enumerate(tokens, 1):
        piece = stream.push(token)
        text += piece.text
        if piece.is_stopped:
            return text, True, count
    return text + stream.flush().text, False, len(tokens)


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
    stream = TEXT.stream((), TextForm(("END",)))
    told = [stream.push(token).text for token in tokens_of("aEbEN")]
    assert told == ["a", "", "Eb", "", ""]
    assert stream.flush() == Piece("EN")
    assert stream.flush() == Piece("")


def test_half_a_character_at_the_end_is_flushed_as_the_tokenizer_writes_it() -> None:
    first = tokens_of("🌌")[:2]
    assert streamed(first, []) == (TOKENIZER.decode(first), False, 2)


def test_special_tokens_are_no_text() -> None:
    tokens = [*tokens_of("a"), tiny.EOS, *tokens_of("b")]
    assert streamed(tokens, [tiny.EOS])[0] == "ab"


KINDS = ["byte-level", "byte fallback, old", "gemma", "unigram, always", "wordpiece"]


def text_of(kind: str) -> tuple[Any, Text]:
    tokenizer: Any = kinds.tokenizer(kind)
    return tokenizer, Text(tokenizer, len(tokenizer))


def told(text: Text, tokens: list[int], form: TextForm, prompt: tuple[int, ...] = ()) -> Piece:
    """Return an answer as a request sees it whose last token is the last it may have."""
    stream, said = text.stream(prompt, form), ""
    for number, token in enumerate(tokens, 1):
        piece = stream.push(token, is_last=number == len(tokens))
        said += piece.text
        if piece.is_stopped:
            return Piece(said, is_stopped=True)
    return Piece(said)


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback, old", "byte fallback", "gemma"])
@pytest.mark.parametrize("before", ["", "日本語", "key 日"])
def test_characters_of_several_tokens_are_told_and_stopped_at_behind_any_prompt(
    kind: str, before: str
) -> None:
    tokenizer, text = text_of(kind)
    prompt = tuple(tokenizer(before)["input_ids"])
    tokens = tokenizer("日本語 ten 🌌.", add_special_tokens=False)["input_ids"]
    said = told(text, tokens, TextForm(), prompt).text.lstrip(" ")
    assert said == "日本語 ten 🌌."
    for stop in ("日", "語 t", "🌌"):
        piece = told(text, tokens, TextForm((stop,)), prompt)
        assert (piece.text.lstrip(" "), piece.is_stopped) == (said[: said.index(stop)], True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skips", [True, False])
def test_a_special_token_is_a_stop_string_whether_it_is_told_or_not(kind: str, skips: bool) -> None:
    tokenizer, text = text_of(kind)
    end = tokenizer.convert_tokens_to_ids(kinds.TURN)
    tokens = [*tokenizer("key two", add_special_tokens=False)["input_ids"], end]
    more = [*tokens, *tokenizer("ten", add_special_tokens=False)["input_ids"]]
    piece = told(text, more, TextForm((kinds.TURN,), skips_special=skips))
    assert (piece.text.rstrip(" "), piece.is_stopped) == ("key two", True)
    kept = told(text, more, TextForm((kinds.TURN,), keeps_stop=True, skips_special=skips))
    assert (kept.text.replace(" <", "<"), kept.is_stopped) == ("key two" + kinds.TURN, True)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_told_where_they_are_not_skipped(kind: str) -> None:
    tokenizer, text = text_of(kind)
    end = tokenizer.convert_tokens_to_ids(kinds.TURN)
    ids = tokenizer("key two", add_special_tokens=False)["input_ids"]
    tokens = [*ids, end, end, *ids]
    piece = told(text, tokens, TextForm(skips_special=False))
    assert piece.text == tokenizer.decode(tokens, skip_special_tokens=False)
    assert told(text, tokens, TextForm()).text == tokenizer.decode(tokens, skip_special_tokens=True)


def test_a_stop_string_reaches_over_text_and_special_tokens() -> None:
    tokenizer, text = text_of("byte-level")
    end = tokenizer.convert_tokens_to_ids(kinds.TURN)
    ids = tokenizer("key.", add_special_tokens=False)["input_ids"]
    stop = f".{kinds.TURN}k"
    assert told(text, [*ids, end, *ids], TextForm((stop,))) == Piece("key", is_stopped=True)
    other = told(text, [*ids, end, end, *ids], TextForm((stop,)))
    assert other == Piece("key.key.")


def test_the_last_piece_does_not_escape_the_stop_strings() -> None:
    half = tokens_of("🌌")[:2]
    assert told(TEXT, [*tokens_of("a "), *half], TextForm((" ",))) == Piece("a", is_stopped=True)
    stop = ("\ufffd",)
    assert told(TEXT, [*tokens_of("a"), *half], TextForm(stop)) == Piece("a", is_stopped=True)
    stream = TEXT.stream((), TextForm(stop))
    assert [stream.push(token).text for token in [*tokens_of("a"), *half]] == ["a", "", ""]
    assert stream.flush() == Piece("", is_stopped=True)


def test_a_stop_string_may_stay_at_the_end_of_an_answer() -> None:
    form = TextForm(("EN", "ND"), keeps_stop=True)
    assert told(TEXT, tokens_of("aENDb"), form) == Piece("aEN", is_stopped=True)
    stream = TEXT.stream((), form)
    stream.push(tokens_of("a")[0])
    assert stream.end(tiny.EOS).text == ""
    shown = TEXT.stream((), TextForm(keeps_stop=True, skips_special=False))
    assert shown.end(tiny.EOS).text == "<eos>"


@settings(max_examples=100, deadline=None)
@given(tokens=st.lists(st.integers(0, 256), max_size=60), stop=st.text("abé🌌", min_size=1))
def test_no_more_than_a_stop_string_and_half_a_character_is_held(
    tokens: list[int], stop: str
) -> None:
    stream = TEXT.stream((), TextForm((stop,)))
    pieces: list[str] = []
    for number, token in enumerate(tokens, 1):
        piece = stream.push(token)
        pieces.append(piece.text)
        if piece.is_stopped:
            return
        whole = TOKENIZER.decode(tokens[:number], skip_special_tokens=True)
        said = "".join(pieces)
        assert whole.startswith(said)
        # A character of the stop string is missing; half a character is two U+FFFD at most.
        assert len(whole) - len(said) <= len(stop) - 1 + 2


@pytest.mark.parametrize("token", [tiny.EOS, tokens_of("\u00ff")[0]])
@pytest.mark.parametrize("stops", [(), ("END",)])
def test_what_is_no_text_costs_the_same_however_much_there_was(
    token: int, stops: tuple[str, ...]
) -> None:
    """The work of a push is counted: the calls that Python makes in it."""
    stream = TEXT.stream((), TextForm(stops))
    counts = []
    for _ in range(200):
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        stream.push(token)
        sys.setprofile(None)
        counts.append(calls)
    assert counts[5:10] * 39 == counts[5:]


def test_a_token_stands_behind_the_text_before_it() -> None:
    stream = TEXT.stream(tokens_of("p"), TextForm(("END",)))
    tokens = tokens_of("éEa")
    places = [stream.push(token).place for token in tokens]
    before = [*tokens_of("p"), *tokens]
    offsets = [0, 0, 1, 2]
    assert places == [Place(*pair) for pair in zip(offsets, before, strict=False)]
    assert stream.end(tiny.EOS).place == Place(3, tokens[-1])
    assert TEXT.stream(()).push(tokens[0]).place == Place(0, None)


@settings(max_examples=200, deadline=None)
@given(text=unicode)
def test_the_offset_of_a_token_is_the_number_of_whole_characters_before_it(text: str) -> None:
    stream = TEXT.stream(())
    offsets = [stream.push(token).place.offset for token in tokens_of(text)]
    raw = text.encode()
    assert offsets == [len(raw[:number].decode(errors="ignore")) for number in range(len(raw))]


def test_a_token_stands_behind_bytes_before_it_that_are_no_character() -> None:
    stream = TEXT.stream(tokens_of("🌌")[:1])
    half = tokens_of("日")[:2]
    places = [stream.push(token).place.offset for token in [*half, *half, tiny.EOS, *half]]
    assert places == [0, 0, 1, 1, 1, 2, 2]
    assert stream.push(tokens_of("a")[0]) == Piece("\ufffda", place=Place(3, half[-1]))

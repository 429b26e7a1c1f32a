"""Log-probabilities in OpenAI's shapes, for every family of tokenizers."""

import json
from typing import Any

import pytest

import tokenizer_kinds as kinds
from adapters_core.tokens.token_texts import TokenTexts
from server.api.logprobs import chat_logprobs, completion_logprobs
from server.generation.detokenizer import Text
from server.generation.text_stream import Place, TextForm
from server.scheduling.sequence import Sampled

KINDS = [kind for kind in kinds.KINDS if "lower" not in kind]


def placed(kind: str, prompt: str, answer: str) -> tuple[Text, list[Sampled], list[Place], str]:
    """Return an answer's tokens, where they stand, and its text."""
    tokenizer: Any = kinds.tokenizer(kind)
    text = Text(tokenizer, len(tokenizer))
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    stream, places, said = text.stream(ids, TextForm()), [], ""
    tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
    for token in tokens:
        piece = stream.push(token)
        said += piece.text
        places.append(piece.place)
    said += stream.flush().text
    return text, [Sampled(token, -0.5) for token in tokens], places, said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["key", ""])
def test_tokens_add_up_to_the_text_and_begin_where_they_say(kind: str, prompt: str) -> None:
    text, sampled, places, said = placed(kind, prompt, "value key=v1, hello ten.")
    told = completion_logprobs(text.tokens, sampled, places)
    assert "".join(told["tokens"]) == said
    for token, offset in zip(told["tokens"], told["text_offset"], strict=True):
        assert said[offset:].startswith(token)
    chat = chat_logprobs(text.tokens, sampled, places)["content"]
    assert [entry["token"] for entry in chat] == told["tokens"]
    assert b"".join(bytes(entry["bytes"]) for entry in chat).decode() == said


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback", "byte fallback, old", "gemma"])
def test_parts_of_a_character_are_told_by_their_bytes(kind: str) -> None:
    text, sampled, places, said = placed(kind, "key", "key日.")
    assert said.endswith("日.")
    told = completion_logprobs(text.tokens, sampled, places)
    first = told["tokens"].index(r"bytes:\xe6")
    assert told["tokens"][first : first + 3] == [r"bytes:\xe6", r"bytes:\x97", r"bytes:\xa5"]
    assert told["text_offset"][first:] == [len(said) - 2] * 3 + [len(said) - 1]
    chat = chat_logprobs(text.tokens, sampled, places)["content"]
    parts = [(entry["token"], entry["bytes"]) for entry in chat[first : first + 3]]
    assert parts == [(r"\xe6", [0xE6]), (r"\x97", [0x97]), (r"\xa5", [0xA5])]


def ids_of(kind: str, *names: str) -> tuple[TokenTexts, list[int]]:
    tokenizer: Any = kinds.tokenizer(kind)
    found = [tokenizer.convert_tokens_to_ids(name) for name in names]
    assert tokenizer.unk_token_id not in found
    return TokenTexts(tokenizer.backend_tokenizer), found


@pytest.mark.parametrize("kind", ["unigram, always", "unigram, first", "byte fallback", "gemma"])
def test_a_words_beginning_and_its_rest_are_different_alternatives(kind: str) -> None:
    texts, (begun, rest) = (
        ids_of(kind, "▁a", "a") if "gemma" not in kind else ids_of(kind, "▁", "a")
    )
    sampled = Sampled(begun, -0.1, ((begun, -0.1), (rest, -2.0)))
    first, second = (" a", "a") if "gemma" not in kind else (" ", "a")
    told = completion_logprobs(texts, [sampled], [Place(3, rest)])
    assert told["top_logprobs"] == [{first: -0.1, second: -2.0}]
    assert told["tokens"] == [first]


def test_a_token_that_is_none_of_the_likeliest_is_among_the_alternatives() -> None:
    texts, (a, b, c) = ids_of("byte-level", "a", "b", "c")
    sampled = Sampled(a, -4.0, ((b, -0.1), (c, -3.0)))
    told = completion_logprobs(texts, [sampled], [Place()])
    assert told["top_logprobs"] == [{"b": -0.1, "c": -3.0, "a": -4.0}]
    assert list(told["top_logprobs"][0]) == ["b", "c", "a"]
    chat = chat_logprobs(texts, [sampled], [Place()])["content"]
    assert [entry["token"] for entry in chat[0]["top_logprobs"]] == ["b", "c"]  # as many as asked


def test_tokens_with_one_text_stay_apart_and_the_chosen_one_has_it() -> None:
    texts, (plain, byte) = ids_of("byte fallback", "a", "<0x61>")
    place = Place(1, plain)
    likeliest = Sampled(plain, -0.1, ((plain, -0.1), (byte, -2.0)))
    told = completion_logprobs(texts, [likeliest], [place])["top_logprobs"]
    assert told == [{"a": -0.1, f"token_id:{byte}": -2.0}]
    other = Sampled(byte, -2.0, ((plain, -0.1), (byte, -2.0)))
    told = completion_logprobs(texts, [other], [place])["top_logprobs"]
    assert told == [{f"token_id:{plain}": -0.1, "a": -2.0}]


def test_what_cannot_be_chosen_has_a_number_that_json_has() -> None:
    texts, (a, b) = ids_of("byte-level", "a", "b")
    sampled = Sampled(a, -0.1, ((a, -0.1), (b, float("-inf"))))
    for shape in (completion_logprobs, chat_logprobs):
        json.dumps(shape(texts, [sampled], [Place()]), allow_nan=False)

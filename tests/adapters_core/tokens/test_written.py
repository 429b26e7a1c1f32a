"""Text piece by piece is transformers' text of the whole, for every family of tokenizers."""

import json
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from os.path import commonprefix
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import tokenizer_kinds as kinds
from adapters_core.tokens.token_texts import TokenTexts
from adapters_core.tokens.written import Written, written

UNDECODED = "\ufffd"
FALLBACK = ("byte fallback, old", "byte fallback", "gemma")


def with_word_ends() -> Tokenizer:
    """Return OpenAI GPT's: what ends a word says so."""
    made = Tokenizer(models.BPE(unk_token=kinds.UNK, end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=kinds.SPECIALS,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    made.train_from_iterator(kinds.WORDS, trainer)
    return made


def without_decoder() -> Tokenizer:
    """Return one whose tokens are joined by blanks."""
    made = Tokenizer(models.WordLevel(unk_token=kinds.UNK))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=kinds.SPECIALS, show_progress=False)
    made.train_from_iterator(kinds.WORDS, trainer)
    return made


def byte_level_of_steps() -> Tokenizer:
    form = json.loads(kinds.KINDS["byte-level"]().to_str())
    form["decoder"] = {"type": "Sequence", "decoders": [form["decoder"], {"type": "Fuse"}]}
    return Tokenizer.from_str(json.dumps(form))


OTHERS = {
    "word ends": with_word_ends,
    "no decoder": without_decoder,
    "byte-level of steps": byte_level_of_steps,
}


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    if kind not in OTHERS:
        return kinds.tokenizer(kind)
    return PreTrainedTokenizerFast(tokenizer_object=OTHERS[kind](), unk_token=kinds.UNK)


@cache
def texts(kind: str) -> TokenTexts:
    return TokenTexts(tokenizer(kind).backend_tokenizer)


def decoded(kind: str, tokens: Sequence[int], skips: bool = True) -> str:
    """Return transformers' text of tokens."""
    made: Any = tokenizer(kind)
    text: str = made.decode(
        list(tokens), skip_special_tokens=skips, clean_up_tokenization_spaces=False
    )
    return text


def has_broken_run(kind: str, tokens: Sequence[int], skips: bool) -> bool:
    """Return whether byte fallback's bytes, one after another, are whole characters and rubbish.

    There the library drops the characters, which were told before.
    """
    if kind not in FALLBACK:
        return False
    of = texts(kind)
    kept = [token for token in tokens if not (skips and token in of.special)]
    for is_bytes, run in groupby(kept, lambda token: of.raw(token) is not None):
        raw = b"".join(of.raw(token) or b"" for token in run)
        is_broken = is_bytes and UNDECODED in raw.decode(errors="replace")
        if is_broken and raw.decode(errors="ignore"):
            return True
    return False


kind = st.sampled_from([*kinds.KINDS, *OTHERS])
tokens_or_bytes = st.lists(
    st.one_of(st.integers(0, 900), st.binary(min_size=1, max_size=6)), max_size=30
)


def as_tokens(kind: str, drawn: Sequence[int | bytes]) -> list[int]:
    """Return drawn tokens; drawn bytes are those of byte fallback, one token each."""
    backend = tokenizer(kind).backend_tokenizer
    found: list[int] = []
    for one in drawn:
        if isinstance(one, int):
            found.append(one)
        else:
            ids = [backend.token_to_id(f"<0x{byte:02X}>") for byte in one]
            found += [token for token in ids if token is not None]
    return found


@settings(max_examples=1500, deadline=None)
@given(kind=kind, prompt=tokens_or_bytes, drawn=tokens_or_bytes, skips=st.booleans())
def test_pieces_are_what_transformers_decodes_beyond_the_prompt(
    kind: str, prompt: list[int | bytes], drawn: list[int | bytes], skips: bool
) -> None:
    before, tokens = as_tokens(kind, prompt), as_tokens(kind, drawn)
    assume(not has_broken_run(kind, [*before, *tokens], skips))
    stream = Written(texts(kind), before, skips)
    told = "".join([*map(stream.push, tokens), stream.rest()])
    whole, known = decoded(kind, [*before, *tokens], skips), decoded(kind, before, skips)
    assert told == whole[len(commonprefix([whole, known])) :]


_TEXT = st.text(
    st.one_of(
        st.sampled_from("key value ten. '?(!)\n\t  "),
        st.characters(exclude_categories=["Cs"], exclude_characters=UNDECODED),
    ),
    max_size=40,
)


@settings(max_examples=600, deadline=None)
@given(kind=kind, text=_TEXT, data=st.data())
def test_a_text_cut_anywhere_between_two_tokens_goes_on_as_it_is(
    kind: str, text: str, data: st.DataObject
) -> None:
    made: Any = tokenizer(kind)
    tokens = made(text, add_special_tokens=False)["input_ids"]
    cut = data.draw(st.integers(0, len(tokens)))
    assume(not has_broken_run(kind, tokens[:cut], skips=True))
    whole, known = decoded(kind, tokens), decoded(kind, tokens[:cut])
    expected = whole[len(commonprefix([whole, known])) :]
    assert written(texts(kind), tokens[:cut], tokens[cut:]) == expected


@pytest.mark.parametrize("kind", ["byte-level", *FALLBACK])
def test_characters_are_told_as_soon_as_they_are_whole(kind: str) -> None:
    made: Any = tokenizer(kind)
    of = texts(kind)
    stream = Written(of, made("key", add_special_tokens=False)["input_ids"])
    raw = b""
    for token in made("日本語🌌 é", add_special_tokens=False)["input_ids"]:
        raw += of.bytes_of(token, stream.previous)
        whole = raw.decode(errors="ignore")
        assert stream.push(token) == whole
        raw = raw[len(whole.encode()) :]
    assert stream.rest() == ""


@pytest.mark.parametrize("kind", FALLBACK)
def test_characters_of_byte_fallback_stay_beside_an_invalid_byte(kind: str) -> None:
    tokens = as_tokens(kind, ["日".encode() + b"\xff" + "本".encode() + b"\xe6"])
    assert written(texts(kind), (), tokens) == "日\ufffd本\ufffd"


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback"])
@pytest.mark.parametrize("byte", [0xFF, 0x80, 0xC0])
def test_bytes_that_begin_no_character_are_told_at_once(kind: str, byte: int) -> None:
    of = texts(kind)
    token = next(one for one in range(900) if of.raw(one) == bytes([byte]))
    stream = Written(of)
    assert [stream.push(token) for _ in range(50)] == [UNDECODED] * 50


def test_a_character_that_only_ever_crosses_tokens_is_told() -> None:
    """Tokens of three bytes that end one character and begin the next."""
    alphabet = {char: number for number, char in enumerate("æĹ¥")}  # the bytes of 日
    merges = [("¥", "æ"), ("¥æ", "Ĺ")]
    vocabulary = alphabet | {"¥æ": 3, "¥æĹ": 4}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.decoder = decoders.ByteLevel()
    stream = Written(TokenTexts(made), [0, 1])
    assert [stream.push(4) for _ in range(20)] == ["日"] * 20
    assert stream.rest() == UNDECODED


@pytest.mark.parametrize("kind", ["unigram, first", "byte fallback", "gemma", "byte-level"])
def test_special_tokens_right_before_an_answer_do_not_begin_a_text(kind: str) -> None:
    made: Any = tokenizer(kind)
    start = made.convert_tokens_to_ids(kinds.START)
    prompt = [*made("key", add_special_tokens=False)["input_ids"], *[start] * 40]
    answer = made("key value", add_special_tokens=False)["input_ids"]
    assert written(texts(kind), prompt, answer) == decoded(kind, [*prompt, *answer])[len("key") :]

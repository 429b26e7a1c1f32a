"""A base's tokens as the bytes that they write, read from its tokenizer and held against it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from adapters_core.tokens.continuing import continuing
from server.constraints.trie import Vocabulary

#: Names that SentencePiece gives to tokens of one byte.
_BYTE_NAME = re.compile(r"<0x([0-9A-F]{2})>")
#: Tokens of one text that is compared with what the tokenizer itself writes.
_TOGETHER = 24


class NotReadable(Exception):
    """The tokenizer writes texts that are not its tokens' bytes put together."""


def vocabulary_of(tokenizer: Any, size: int) -> Vocabulary:
    """Return the vocabulary of a base; takes a second or two for a large one.

    Args:
        tokenizer: transformers', over one of the `tokenizers` library.
        size: of the base's logits, which may be more or fewer than the tokens.

    Raises:
        NotReadable: texts are not their tokens' bytes put together; the message says of what.
    """
    backend = tokenizer.backend_tokenizer
    added = backend.get_added_tokens_decoder()
    special = {i: str(token) for i, token in added.items() if token.special and i < size}
    names = {i: backend.id_to_token(i) for i in range(size) if i not in special}
    names = {i: name for i, name in names.items() if name is not None}
    byte_names = _byte_names(backend, names, added)
    written = byte_names | _behind_text(backend, [i for i in names if i not in byte_names])
    texts = [written.get(i, b"") for i in range(size)]
    return Vocabulary(texts, special, continuing(tokenizer))


def _byte_names(
    backend: Any, names: Mapping[int, str], added: Mapping[int, Any]
) -> dict[int, bytes]:
    """Return the bytes of tokens that say them by their names; they may be less than a character.

    Args:
        backend: a tokenizer of the `tokenizers` library.
        names: of its tokens that are no special ones.
        added: its added tokens; those are named by their texts.
    """
    kinds = set(_kinds(json.loads(backend.to_str())["decoder"]))
    if "ByteLevel" in kinds:
        bytes_of = _byte_level()
        named = {i: name for i, name in names.items() if i not in added}
        return {i: bytes(bytes_of[char] for char in name) for i, name in named.items()}
    if "ByteFallback" in kinds:
        found = ((i, _BYTE_NAME.fullmatch(name)) for i, name in names.items())
        return {i: bytes([int(byte[1], 16)]) for i, byte in found if byte}
    return {}


def _kinds(decoder: Any) -> Iterator[str]:
    """Yield the types of a decoder and its parts, as tokenizer.json has them."""
    if decoder is not None:
        yield decoder["type"]
        for part in decoder.get("decoders", ()):
            yield from _kinds(part)


def _byte_level() -> Mapping[str, int]:
    """Return the byte for each character in byte-level names, as GPT-2 numbers them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def _behind_text(backend: Any, numbers: Sequence[int]) -> dict[int, bytes]:
    """Return what each token writes behind another one, and hold it against longer texts.

    Raises:
        NotReadable: what a token writes depends on more than its being behind others.
    """
    if not numbers:
        return {}
    before, text = _beginning(backend, numbers)
    pairs = zip(numbers, backend.decode_batch([[before, i] for i in numbers]), strict=True)
    said = dict(pairs)
    written = {i: both.removeprefix(text) for i, both in said.items()}
    shuffled = list(numbers)
    Random(0).shuffle(shuffled)
    parts = [shuffled[i : i + _TOGETHER] for i in range(0, len(shuffled), _TOGETHER)]
    texts = backend.decode_batch([[before, *part] for part in parts])
    for part, whole in zip(parts, texts, strict=True):
        ours = text + "".join(written[i] for i in part)
        if whole != ours:
            raise NotReadable(f"it writes {whole!r} for tokens that are {ours!r} one by one")
    return {i: one.encode() for i, one in written.items()}


def _beginning(backend: Any, numbers: Sequence[int]) -> tuple[int, str]:
    """Return a token that others can stand behind, and what it writes."""
    alone = zip(numbers, backend.decode_batch([[i] for i in numbers]), strict=True)
    for i, text in alone:
        if text.isalnum():
            return i, text
    raise NotReadable("no token writes a letter or a digit")

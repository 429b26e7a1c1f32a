"""What single tokens say: text, or bytes that may be parts of characters."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

#: Characters that stand for the bytes of byte-level tokens (GPT-2's `bytes_to_unicode`): printable
#: ones for themselves, the others, in order, from U+0100 on.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(256) if byte not in _PRINTABLE)
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + number): byte for number, byte in enumerate(_OTHERS)
}
#: Steps of decoders that write a token alike behind every other one.
_ALIKE = {"ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"}
#: Stands before a token where it does not matter which one does.
_ANY = "a"


class TokenTexts:
    """Reads the tokens of a tokenizer one by one. Safe in several threads.

    Tokens are bytes where the decoder is byte-level, or where it has byte fallback and the token is
    one of its bytes (`<0xE6>`). All others are text, written as the tokens before them demand.

    Args:
        backend: of the `tokenizers` library.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        steps = _decoder_steps(backend.decoder)
        self._has_fallback = "ByteFallback" in steps
        self.is_byte_level = [step for step in steps if step != "Fuse"] == ["ByteLevel"]
        added = backend.get_added_tokens_decoder()
        self.special = frozenset(token for token, entry in added.items() if entry.special)
        self._are_alike = set(steps) <= _ALIKE
        self._raw: dict[int, bytes | None] = {}
        self._behind: dict[int, str] = {}

    def name(self, token: int) -> str:
        """Return what the vocabulary calls a token; nothing for one beyond it."""
        return self._backend.id_to_token(token) or ""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones included."""
        text: str = self._backend.decode(tokens, skip_special_tokens=False)
        return text

    def raw(self, token: int) -> bytes | None:
        """Return the bytes of a token that is bytes, or beyond the vocabulary; None for text."""
        if token not in self._raw:
            self._raw[token] = self._read(self.name(token))
        return self._raw[token]

    def text(self, token: int, previous: int | None) -> str:
        """Return what a token that is text says behind `previous`, the last one that says any.

        Args:
            token: not one that is bytes.
            previous: None at a text's beginning; there some decoders drop a blank.
        """
        if previous is None:
            return self.decode([token])
        if not self._are_alike:
            return self._text_behind([previous], token)
        if token not in self._behind:
            self._behind[token] = self._text_behind(self._any, token)
        return self._behind[token]

    def bytes_of(self, token: int, previous: int | None) -> bytes:
        """Return the bytes that a token adds to a text; they may be a part of a character."""
        raw = self.raw(token)
        return self.text(token, previous).encode() if raw is None else raw

    def _text_behind(self, before: list[int], token: int) -> str:
        return self.decode([*before, token])[len(self.decode(before)) :]

    def _read(self, name: str) -> bytes | None:
        if self.is_byte_level:
            found = [_BYTE_OF.get(char) for char in name]
            known = [byte for byte in found if byte is not None]
            return bytes(known) if len(known) == len(name) else name.encode()
        if not name:
            return b""
        return _fallback_byte(name) if self._has_fallback else None

    @cached_property
    def _any(self) -> list[int]:
        ids: list[int] = self._backend.encode(_ANY, add_special_tokens=False).ids
        return ids


def _fallback_byte(name: str) -> bytes | None:
    """Return the byte of byte fallback's token `<0xE6>`; None for any other name."""
    if len(name) != 6 or not (name.startswith("<0x") and name.endswith(">")):
        return None
    try:
        return bytes.fromhex(name[3:5])
    except ValueError:
        return None


def _decoder_steps(decoder: Any) -> list[str]:
    """Return the types of a decoder's steps in their order; none for a tokenizer without one."""
    if decoder is None:
        return []
    form = json.loads(decoder.__getstate__())
    steps = form["decoders"] if form["type"] == "Sequence" else [form]
    return [step["type"] for step in steps]

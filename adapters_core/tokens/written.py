"""What tokens behind a prompt say: the text that a caller is sent, piece by piece."""

from collections.abc import Sequence
from os.path import commonprefix
from typing import Any

#: Tokens of the prompt that decide how the first generated one is written (a leading space).
_CONTEXT_TOKENS = 8
#: What a tokenizer writes for bytes that are no character, or not a whole one yet.
_UNDECODED = "\ufffd"


class Written:
    """Tokens in, text out; holds back what may still become a character.

    Special tokens are no text.

    Args:
        decoder: of the `tokenizers` library.
        prompt: tokens before the first that is pushed.
    """

    def __init__(self, decoder: Any, prompt: Sequence[int]) -> None:
        self._decoder = decoder
        self._ids = list(prompt[-_CONTEXT_TOKENS:])
        self._num_told = len(self._ids)
        self._told = self._decode(self._ids)

    def push(self, *tokens: int) -> str:
        """Take more tokens; return the text that they make certain."""
        self._ids += tokens
        new = self._new(self._decode(self._ids))
        if not new or new.endswith(_UNDECODED):
            return ""
        # The tokens told last stay as context: they decide how the next one is written.
        self._ids = self._ids[self._num_told :]
        self._num_told, self._told = len(self._ids), self._decode(self._ids)
        return new

    def rest(self) -> str:
        """Return what was held back; nothing follows."""
        whole = self._decode(self._ids)
        rest, self._told = self._new(whole), whole
        return rest

    def _decode(self, ids: list[int]) -> str:
        text: str = self._decoder.decode(ids, skip_special_tokens=True)
        return text

    def _new(self, text: str) -> str:
        """Return what `text` says beyond what was told; half a character may have become one."""
        return text[len(commonprefix([self._told, text])) :]


def written(decoder: Any, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """Return the whole text that a caller is sent for tokens behind a prompt, one after another."""
    stream = Written(decoder, prompt)
    return "".join([*map(stream.push, tokens), stream.rest()])

"""What tokens behind a prompt say: the text that a caller is sent, piece by piece.

The pieces of an answer together are what transformers decodes of prompt and answer, beyond what it
decodes of the prompt. One case is told as it comes, since what was sent cannot be taken back: among
the bytes of byte fallback the library drops whole characters beside an invalid byte.
"""

import codecs
from collections.abc import Iterable, Sequence, Set
from itertools import islice

from adapters_core.tokens.token_texts import TokenTexts

#: Tokens at a prompt's end among which are all bytes of a character that is not whole, and among
#: how many of its tokens they are looked for.
_CONTEXT_TOKENS, _LOOKED_AT = 8, 1024
#: Stands for bytes that are no character.
_UNDECODED = "\ufffd"
_ONE_EACH = "overtone-one-each"


def _one_each(error: UnicodeError) -> tuple[str, int]:
    """Write one U+FFFD for every invalid byte, as byte fallback does."""
    assert isinstance(error, UnicodeDecodeError)
    return _UNDECODED * (error.end - error.start), error.end


codecs.register_error(_ONE_EACH, _one_each)


class Written:
    """Tokens in, text out; holds back the bytes of a character that is not whole, three at most.

    Args:
        texts: of the tokenizer.
        prompt: tokens before the first that is pushed.
        skips_special: whether special tokens are no text.
        shown: special tokens that are text all the same.

    Attributes:
        previous: the last token that is text, of the prompt's if none was pushed; None if there is
            none.
        num_lost: with how many U+FFFD the newest piece began, of bytes before its token.
    """

    def __init__(
        self,
        texts: TokenTexts,
        prompt: Sequence[int] = (),
        skips_special: bool = True,
        shown: Set[int] = frozenset(),
    ) -> None:
        self._texts = texts
        self._skipped = texts.special - shown if skips_special else frozenset[int]()
        self._errors = "replace" if texts.is_byte_level else _ONE_EACH
        self._characters = codecs.getincrementaldecoder("utf-8")(self._errors)
        self._owed = 0
        self.previous: int | None = None
        self.num_lost = 0
        for token in self._last(prompt):
            self.push(token)
        self._owed = self._num_undecoded()

    def push(self, token: int) -> str:
        """Take one more token; return the text that it makes certain."""
        self.num_lost = 0
        if self._is_no_text(token):
            return ""
        lost = self._num_undecoded() - self._owed
        text = self._next(token)
        self.num_lost = lost if text.startswith(_UNDECODED * lost) else 0
        self.previous = token
        return text

    def rest(self) -> str:
        """Return what was held back; nothing follows."""
        return self._end_bytes()

    def _next(self, token: int) -> str:
        raw = self._texts.raw(token)
        if raw is None:
            return self._end_bytes() + self._texts.text(token, self.previous)
        text = self._characters.decode(raw)
        if self.previous is None and text:  # decoders may drop a text's first blank
            return self._texts.decode([token])
        return self._beyond_prompt(text)

    def _end_bytes(self) -> str:
        text = self._characters.decode(b"", final=True)
        self._characters.reset()
        return self._beyond_prompt(text)

    def _beyond_prompt(self, text: str) -> str:
        """Return what a text says beyond what the prompt says of its own last bytes."""
        if text and self._owed:
            text = text.removeprefix(_UNDECODED * self._owed)
            self._owed = 0
        return text

    def _num_undecoded(self) -> int:
        """Return how many U+FFFD the bytes that are held back are, if nothing follows."""
        held, _ = self._characters.getstate()
        return len(held.decode(errors=self._errors))

    def _last(self, prompt: Sequence[int]) -> list[int]:
        """Return the last tokens of a prompt that are text."""
        last = reversed(prompt[-_LOOKED_AT:])
        texts = (token for token in last if not self._is_no_text(token))
        return list(islice(texts, _CONTEXT_TOKENS))[::-1]

    def _is_no_text(self, token: int) -> bool:
        return token in self._skipped or self._texts.raw(token) == b""


def written(
    texts: TokenTexts,
    prompt: Sequence[int],
    tokens: Iterable[int],
    shown: Set[int] = frozenset(),
) -> str:
    """Return the whole text that a caller is sent for tokens behind a prompt.

    Args:
        texts: of the tokenizer.
        prompt: tokens.
        tokens: of the text.
        shown: special tokens that are text.
    """
    stream = Written(texts, prompt, shown=shown)
    return "".join([*map(stream.push, tokens), stream.rest()])

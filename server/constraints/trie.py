"""A base's tokens as the bytes that they write: what constraints are held against.

Imports nothing that is slow to import: a process of its own uses it (trial.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from llguidance import LLTokenizer, TokenizerWrapper

#: Of a long text that is the only one that may follow, so much is made into tokens at a time.
_MAX_FORCED_BYTES = 256


def no_usual_tokens(text: str) -> list[int]:
    """Return no tokens, where it is not known how a base usually writes a text."""
    return []


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a base.

    Args:
        written: the bytes that each token writes behind other text; none for special tokens and
            for numbers without a token.
        special: tokens that are no text, by their names.
        continuing: returns the usual tokens of a text that goes on behind another one.
        changed_first: tokens that write something else at a text's beginning: a blank less.
    """

    written: Sequence[bytes]
    special: Mapping[int, str]
    continuing: Callable[[str], list[int]]
    changed_first: frozenset[int] = frozenset()

    @property
    def end(self) -> int:
        """Return the number, beyond all tokens, that stands for every end of an answer."""
        return len(self.written)

    def says_text(self, tokens: Iterable[int]) -> bool:
        """Return whether there is one among these tokens that is text."""
        return any(self.written[token] for token in tokens)

    def trie(self) -> LLTokenizer:
        """Return the tokens as llguidance has them; the bit `end` of its masks: may it end here."""
        return LLTokenizer(TokenizerWrapper(_Tokens(self)))

    def ids_of(self, text: bytes) -> list[int]:
        """Return tokens that write a text or its beginning: the usual ones, else the fewest.

        `end + 1` stands for what no token writes.
        """
        text = _beginning(text)
        usual = self.continuing(text.decode())
        if b"".join(self.written[i] for i in usual if i < self.end) == text:
            return usual
        return self._fewest(text) or [self.end + 1]

    def _fewest(self, text: bytes) -> list[int]:
        """Return the fewest tokens that write a text; none if it cannot be written."""
        found: list[list[int] | None] = [[]]
        for stop in range(1, len(text) + 1):
            starts = range(max(0, stop - self._longest), stop)
            ways = [
                [*before, token]
                for start in starts
                if (before := found[start]) is not None
                and (token := self._token_of.get(text[start:stop])) is not None
            ]
            found.append(min(ways, key=len, default=None))
        return found[-1] or []

    @cached_property
    def _token_of(self) -> Mapping[bytes, int]:
        return {text: i for i, text in enumerate(self.written) if text}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._token_of), default=0)


class _Tokens:
    """What llguidance reads of a tokenizer: two more tokens, the end and what cannot be written."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        special, end = vocabulary.special, vocabulary.end
        texts = enumerate(vocabulary.written)
        named = [special[i].encode() if i in special else text for i, text in texts]
        self.tokens = [*named, b"<end>", b"<none>"]
        self.special_token_ids = [*special, end, end + 1]
        self.eos_token_id = end
        self.bos_token_id = None
        self._ids_of = vocabulary.ids_of

    def __call__(self, text: bytes) -> list[int]:
        """Return the tokens of text that is the only one that may follow."""
        return self._ids_of(text)


def _beginning(text: bytes) -> bytes:
    """Return a text up to `_MAX_FORCED_BYTES`, in whole characters."""
    return text[:_MAX_FORCED_BYTES].decode(errors="ignore").encode()

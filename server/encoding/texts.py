"""Texts to tokens for classifiers and embedders."""

from collections.abc import Sequence
from typing import Any

from adapters_core.tokens.texts import cut, most_chars, text_ids
from server.base.lengths import Lengths
from server.base.preparation import Preparation
from server.errors import InvalidRequest

#: Tokens next to where a text is cut that may be others than in the whole.
_CUT_TOKENS = 64


class Texts:
    """An encoder's tokenizer.

    Args:
        tokenizer: transformers'.
        vocabulary: how many token ids there are.
        max_length: of a text in tokens, those that the tokenizer adds included.
        preparation: of texts; token ids are taken as they are.
    """

    def __init__(
        self,
        tokenizer: Any,
        vocabulary: int,
        max_length: int,
        preparation: Preparation | None = None,
    ) -> None:
        self.preparation = preparation or Preparation()
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._lengths = Lengths(max_length, most_chars(tokenizer))

    def tokens(
        self, given: str | Sequence[int], truncate: bool, prompt: str = ""
    ) -> tuple[int, ...]:
        """Return the tokens of one text with the special ones; token ids are taken as they are.

        Args:
            given: the text, or its token ids.
            truncate: cut a text that is too long instead of refusing it.
            prompt: put before the text.

        Raises:
            InvalidRequest: it is empty, or a token id is not in the vocabulary.
            PromptTooLong: more tokens than the base reads.
        """
        if not given:
            raise InvalidRequest("an input is empty: at least one character or token", "input")
        if isinstance(given, str):
            given = self._ids(self.preparation.prepared(given, prompt), truncate)
        wrong = next((token for token in given if not 0 <= token < self._vocabulary), None)
        if wrong is not None or not given:
            message = f"token id {wrong} is not in the vocabulary of {self._vocabulary}"
            raise InvalidRequest(message if given else "an input has no tokens", "input")
        most = self._lengths.max_length
        if len(given) > most and not truncate:
            found = f"an input resulted in {len(given)} tokens"
            raise self._lengths.too_long(found, "input, or send truncate: true", "input")
        return tuple(cut(self._tokenizer, given, most))

    def _ids(self, text: str, truncate: bool) -> list[int]:
        """Return a text's tokens; of one that is much too long those that are kept, and more."""
        if not truncate:
            self._lengths.check_chars(len(text), "input")
        needed = self._lengths.max_length + _CUT_TOKENS
        most = needed * self._lengths.token_chars
        if len(text) > most:
            is_left = self._tokenizer.truncation_side == "left"
            part = text_ids(self._tokenizer, text[-most:] if is_left else text[:most])
            if len(part) >= needed:
                return part
        return text_ids(self._tokenizer, text)

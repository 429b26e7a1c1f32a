"""Texts to tokens for classifiers and embedders."""

from collections.abc import Sequence
from typing import Any

from adapters_core.tokens.texts import cut, text_ids
from server.base.preparation import Preparation
from server.errors import InvalidRequest, PromptTooLong


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
        self._max_length = max_length

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
        whole = self.preparation.prepared(given, prompt) if isinstance(given, str) else given
        ids = tuple(text_ids(self._tokenizer, whole) if isinstance(whole, str) else whole)
        wrong = next((token for token in ids if not 0 <= token < self._vocabulary), None)
        if wrong is not None or not ids:
            message = f"token id {wrong} is not in the vocabulary of {self._vocabulary}"
            raise InvalidRequest(message if ids else "an input has no tokens", "input")
        if len(ids) <= self._max_length:
            return ids
        if not truncate:
            raise PromptTooLong(
                f"an input has {len(ids)} tokens; at most {self._max_length} are read. "
                "Shorten it, or send truncate: true",
                "input",
            )
        return tuple(cut(self._tokenizer, ids, self._max_length))

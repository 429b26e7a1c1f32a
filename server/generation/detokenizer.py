"""Between text and tokens: prompts in, and text out piece by piece with stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters_core.tokens.ends import turn_end
from adapters_core.tokens.prompts import ChatRefused, Message, chat_of, prompt_of
from adapters_core.tokens.written import Written, written
from server.errors import InvalidRequest


class Text:
    """A base's tokenizer."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        end = turn_end(tokenizer)
        self.chat_ends = frozenset() if end is None else frozenset([end])

    def prompt(self, given: str | Sequence[int]) -> tuple[int, ...]:
        """Return the tokens of one prompt.

        Raises:
            InvalidRequest: it is empty, or a token id is not in the vocabulary.
        """
        ids = tuple(prompt_of(self._tokenizer, given).ids if isinstance(given, str) else given)
        if not ids:
            raise InvalidRequest("the prompt is empty: at least one token is needed", "prompt")
        for token in ids:
            if not 0 <= token < self._vocabulary:
                raise InvalidRequest(
                    f"token id {token} is not in the vocabulary of {self._vocabulary}", "prompt"
                )
        return ids

    def chat_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the tokens of a conversation by the base's own chat template.

        Raises:
            InvalidRequest: the base has no template, or it refuses these messages.
        """
        try:
            return self.prompt(chat_of(self._tokenizer, messages).ids)
        except ChatRefused as error:
            way = "" if self._tokenizer.chat_template else "; use /v1/completions with a prompt"
            raise InvalidRequest(f"{error}{way}", "messages") from error

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return what tokens say from the beginning of a text on."""
        return written(self._tokenizer.backend_tokenizer, (), tokens)

    def token(self, token: int) -> str:
        """Return one token's own text."""
        text: str = self._tokenizer.decode([token])
        return text

    def stream(self, prompt: tuple[int, ...], stops: tuple[str, ...]) -> "TextStream":
        """Return a stream that turns the tokens after `prompt` into text."""
        return TextStream(self._tokenizer.backend_tokenizer, prompt, stops)


@dataclass(frozen=True)
class Piece:
    """Text that is final; `is_stopped` once a stop string was met (it is cut off)."""

    text: str
    is_stopped: bool = False


class TextStream:
    """Tokens in, text out; holds back what may still become a character or a stop string."""

    def __init__(self, tokenizer: Any, prompt: tuple[int, ...], stops: tuple[str, ...]) -> None:
        self._written = Written(tokenizer, prompt)
        self._stops = stops
        self._held = ""

    def push(self, token: int) -> Piece:
        """Take one more token."""
        self._held += self._written.push(token)
        cut = min((i for s in self._stops if (i := self._held.find(s)) >= 0), default=None)
        if cut is not None:
            text, self._held = self._held[:cut], ""
            return Piece(text, is_stopped=True)
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        certain = len(self._held) - keep
        text, self._held = self._held[:certain], self._held[certain:]
        return Piece(text)

    def flush(self) -> str:
        """Return what was held back; the stream is over."""
        text, self._held = self._held + self._written.rest(), ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)

"""Between text and tokens: prompts in, and text out piece by piece with stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from jinja2.exceptions import TemplateError

from server.errors import InvalidRequest

#: Tokens of the prompt that decide how the first generated one is written (a leading space).
_CONTEXT_TOKENS = 8
#: What a tokenizer writes for bytes that are no character, or not a whole one yet.
_UNDECODED = "\ufffd"


class Text:
    """A base's tokenizer."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary

    def prompt(self, given: str | Sequence[int]) -> tuple[int, ...]:
        """Return the tokens of one prompt.

        Raises:
            InvalidRequest: it is empty, or a token id is not in the vocabulary.
        """
        ids = tuple(self._tokenizer(given)["input_ids"] if isinstance(given, str) else given)
        if not ids:
            raise InvalidRequest("the prompt is empty: at least one token is needed", "prompt")
        for token in ids:
            if not 0 <= token < self._vocabulary:
                raise InvalidRequest(
                    f"token id {token} is not in the vocabulary of {self._vocabulary}", "prompt"
                )
        return ids

    def chat_prompt(self, messages: list[dict[str, str]]) -> tuple[int, ...]:
        """Return the tokens of a conversation by the base's own chat template.

        Raises:
            InvalidRequest: the base has no template, or it refuses these messages.
        """
        if not self._tokenizer.chat_template:
            raise InvalidRequest(
                "the base has no chat template; use /v1/completions with a prompt", "messages"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, ValueError) as error:
            raise InvalidRequest(f"the base's chat template: {error}", "messages") from error
        return self.prompt(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def token(self, token: int) -> str:
        """Return one token's own text."""
        text: str = self._tokenizer.decode([token])
        return text

    def stream(self, prompt: tuple[int, ...], stops: tuple[str, ...]) -> "TextStream":
        """Return a stream that turns the tokens after `prompt` into text."""
        return TextStream(self._tokenizer.backend_tokenizer, prompt, stops)


@dataclass(frozen=True)
class Piece:
    """Text that is certain now; `is_stopped` once a stop string was met (it is cut off)."""

    text: str
    is_stopped: bool = False


class TextStream:
    """Tokens in, text out; holds back what may still become a character or a stop string."""

    def __init__(self, tokenizer: Any, prompt: tuple[int, ...], stops: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt[-_CONTEXT_TOKENS:])
        self._num_told = len(self._ids)
        self._told = self._decode(self._ids)
        self._stops = stops
        self._held = ""

    def push(self, token: int) -> Piece:
        """Take one more token."""
        self._ids.append(token)
        new = self._new(self._decode(self._ids))
        if new and not new.endswith(_UNDECODED):
            self._held += new
            # The tokens told last stay as context: they decide how the next one is written.
            self._ids = self._ids[self._num_told :]
            self._num_told, self._told = len(self._ids), self._decode(self._ids)
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
        text, self._held = self._held + self._new(self._decode(self._ids)), ""
        self._told = self._decode(self._ids)
        return text

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _new(self, text: str) -> str:
        """Return what `text` says beyond what was told; half a character may have become one."""
        return text[len(commonprefix([self._told, text])) :]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)

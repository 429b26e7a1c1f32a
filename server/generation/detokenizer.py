"""Between text and tokens: prompts in, and text out piece by piece."""

from collections.abc import Sequence
from typing import Any

from adapters_core.tokens.chats import Chat, ChatTemplate
from adapters_core.tokens.ends import turn_end
from adapters_core.tokens.prompts import ChatRefused, plain_ids, prompt_of
from adapters_core.tokens.texts import most_chars
from adapters_core.tokens.token_texts import TokenTexts
from adapters_core.tokens.written import written
from server.base.lengths import Lengths
from server.errors import InvalidRequest
from server.generation.text_stream import Place, TextForm, TextStream

#: Characters of which tokens are counted at a time, and more tokens that parts of a text may have
#: than they have in the whole.
_PART, _SLACK = 1 << 16, 64
#: Characters a token that most texts have less of.
_USUAL_CHARS = 4


class Text:
    """A base's tokenizer.

    Attributes:
        tokens: what its single tokens say.
        lengths: of prompts.
        chat_ends: tokens that end an answer in a chat, beside those that end every answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, max_length: int | None = None) -> None:
        self._tokenizer = tokenizer
        self.tokens = TokenTexts(tokenizer.backend_tokenizer)
        self.lengths = Lengths()
        if max_length is not None:
            self.lengths = Lengths(max_length, most_chars(tokenizer))
        self._vocabulary = vocabulary
        self.template = ChatTemplate(tokenizer)
        end = turn_end(tokenizer)
        self.chat_ends = frozenset() if end is None else frozenset([end])

    def prompt(self, given: str | Sequence[int], field: str = "prompt") -> tuple[int, ...]:
        """Return the tokens of one prompt.

        Args:
            given: a text, or token ids.
            field: of the request that has it.

        Raises:
            PromptTooLong: it does not fit the base, whatever its answer.
            InvalidRequest: it is empty, or a token id is not in the vocabulary.
        """
        if isinstance(given, str):
            self._check_text(given, field)
            given = prompt_of(self._tokenizer, given).ids
        return self._checked(given, field)

    def chat_prompt(self, chat: Chat) -> tuple[int, ...]:
        """Return the tokens of a conversation by the base's own chat template.

        Raises:
            PromptTooLong: it does not fit the base, whatever its answer.
            InvalidRequest: the base has no template, or it does not take this chat.
        """
        try:
            text = self.template.text(chat)
        except ChatRefused as error:
            way = "" if self._tokenizer.chat_template else "; use /v1/completions with a prompt"
            raise InvalidRequest(f"{error}{way}", error.where or "messages") from error
        self._check_text(text, "messages")
        return self._checked(plain_ids(self._tokenizer, text), "messages")

    def _check_text(self, text: str, field: str) -> None:
        """Refuse a text that is too long; of a very long one only so much is read as shows it."""
        lengths = self.lengths
        lengths.check_chars(len(text), field)
        if len(text) <= max(_PART, _USUAL_CHARS * lengths.max_length):
            return
        count = 0
        for start in range(0, len(text), _PART):
            part = plain_ids(self._tokenizer, text[start : start + _PART])
            count += max(0, len(part) - _SLACK)
            if count > lengths.max_length:
                raise lengths.too_long(f"the {field} resulted in more than {count} tokens", field)

    def _checked(self, ids: Sequence[int], field: str) -> tuple[int, ...]:
        """Return a prompt's tokens if all exist and they fit."""
        if not ids:
            raise InvalidRequest(f"the {field} made no tokens: at least one is needed", field)
        self.lengths.check(len(ids), field)
        self._check_exist(ids, field)
        return tuple(ids)

    def _check_exist(self, ids: Sequence[int], field: str) -> None:
        wrong = next((token for token in ids if not 0 <= token < self._vocabulary), None)
        if wrong is not None:
            message = f"token id {wrong} is not in the vocabulary of {self._vocabulary}"
            raise InvalidRequest(message, field)

    def tokens_of(self, text: str, with_special: bool) -> tuple[int, ...]:
        """Return the tokens of a text, none for an empty one.

        Args:
            text: of any length that a prompt may have.
            with_special: add the special tokens that a prompt gets.

        Raises:
            PromptTooLong: it is longer.
        """
        self._check_text(text, "prompt")
        made = prompt_of(self._tokenizer, text).ids if with_special else None
        return tuple(plain_ids(self._tokenizer, text) if made is None else made)

    def decoded(self, tokens: Sequence[int]) -> str:
        """Return what tokens say, special ones included.

        Raises:
            InvalidRequest: a token does not exist.
        """
        self._check_exist(tokens, "tokens")
        text: str = self._tokenizer.backend_tokenizer.decode(tokens, skip_special_tokens=False)
        return text

    def vocabulary_texts(self, tokens: Sequence[int]) -> list[str]:
        """Return each token as the vocabulary has it."""
        return list(self._tokenizer.convert_ids_to_tokens(list(tokens)))

    @property
    def description(self) -> dict[str, str | None]:
        """Return the tokenizer's class, special tokens and chat template."""
        tokenizer = self._tokenizer
        special = ("bos_token", "eos_token", "pad_token", "unk_token")
        named = {name: getattr(tokenizer, name) for name in (*special, "chat_template")}
        told = {name: None if value is None else str(value) for name, value in named.items()}
        return {"tokenizer_class": type(tokenizer).__name__, **told}

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return what tokens say from the beginning of a text on."""
        return written(self.tokens, (), tokens)

    def places(self, tokens: Sequence[int]) -> list[Place]:
        """Return where each of a text's tokens stands."""
        stream = self.stream(())
        return [stream.push(token).place for token in tokens]

    def stream(
        self, prompt: Sequence[int], form: TextForm | None = None, offset: int = 0
    ) -> TextStream:
        """Return a stream that turns the tokens after `prompt` into text.

        Args:
            prompt: token ids.
            form: of the text.
            offset: of its beginning in the answer that it is a part of, in characters.
        """
        return TextStream(self.tokens, prompt, form or TextForm(), offset)

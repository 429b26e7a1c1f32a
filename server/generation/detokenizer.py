"""Between text and tokens: prompts in, and text out piece by piece."""

from collections.abc import Sequence
from typing import Any

from adapters_core.tokens.chats import Chat, ChatTemplate
from adapters_core.tokens.ends import turn_end
from adapters_core.tokens.prompts import ChatRefused, prompt_of
from adapters_core.tokens.token_texts import TokenTexts
from adapters_core.tokens.written import written
from server.errors import InvalidRequest
from server.generation.text_stream import Place, TextForm, TextStream


class Text:
    """A base's tokenizer.

    Attributes:
        tokens: what its single tokens say.
        chat_ends: tokens that end an answer in a chat, beside those that end every answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self.tokens = TokenTexts(tokenizer.backend_tokenizer)
        self._vocabulary = vocabulary
        self.template = ChatTemplate(tokenizer)
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

    def chat_prompt(self, chat: Chat) -> tuple[int, ...]:
        """Return the tokens of a conversation by the base's own chat template.

        Raises:
            InvalidRequest: the base has no template, or it does not take this chat.
        """
        try:
            return self.prompt(self.template.prompt(chat).ids)
        except ChatRefused as error:
            way = "" if self._tokenizer.chat_template else "; use /v1/completions with a prompt"
            raise InvalidRequest(f"{error}{way}", error.where or "messages") from error

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

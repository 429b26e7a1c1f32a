"""Bodies of POST /tokenize and /detokenize, as vLLM has them."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from server.api.chat_schemas import ChatRequest, Message
from server.api.request_body import RequestBody
from server.api.token_lists import TokenList
from server.api.tool_schemas import Tools
from server.api.validation import checked, wrong

_OF_CHATS = ("add_generation_prompt", "continue_final_message", "chat_template_kwargs", "tools")

ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class TokenizeRequest(RequestBody):
    """A prompt, or the messages of a chat, to be made tokens; exactly one of the two.

    Args:
        model: a base or an adapter, which all have the same tokens; missing: the base.
        prompt: a text.
        add_special_tokens: those that a prompt gets, such as one of its beginning; a chat has what
            its template writes. Missing: true.
        messages: a conversation, as chat completions have it.
        add_generation_prompt: begin an answer of the assistant; missing: unless the last message
            is continued.
        continue_final_message: the last message goes on.
        chat_template_kwargs: variables of the chat template.
        tools: functions that the template is told of.
        return_token_strs: give the text of each token, too.
    """

    example = {"prompt": "Once upon a time"}

    model: ModelName | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = {}
    tools: Tools = []
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise wrong("prompt", "give a prompt or messages, and not both")
        if self.messages is not None and self.add_special_tokens:
            raise wrong("add_special_tokens", "a chat has the tokens that its template writes")
        for name in _OF_CHATS if self.messages is None else ():
            if getattr(self, name):
                raise wrong(name, "a prompt has no chat template; give messages")
        return self

    @property
    def chat(self) -> ChatRequest:
        """Return the messages as chat completions have them.

        Raises:
            InvalidRequest: a chat completion would not have them so.
        """
        named = ("messages", "add_generation_prompt", "continue_final_message", "tools")
        given = {name: getattr(self, name) for name in (*named, "chat_template_kwargs")}
        return checked(ChatRequest, {"model": self.model or "base", **given})

    @property
    def size(self) -> int:
        """Return the characters of its texts."""
        return len(self.prompt) if self.prompt is not None else self.chat.text_sizes[0]


class DetokenizeRequest(RequestBody):
    """Tokens to be made a text.

    Args:
        model: as in a request to make tokens.
        tokens: their ids.
    """

    example = {"tokens": [1, 2, 3]}

    model: ModelName | None = None
    tokens: Annotated[TokenList, Field(max_length=1_000_000)]

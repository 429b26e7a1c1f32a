"""Bodies of chat completions: the messages of a conversation, and how it is answered."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters_core.tokens.prompts import message
from server.api.completion_schemas import MAX_LOGPROBS, GenerationRequest
from server.api.validation import unsupported

#: Fields of a message that chat templates are not given; they are refused, not dropped.
_CALLS = ("tool_calls", "function_call", "tool_call_id", "audio")


class ContentPart(BaseModel):
    """A part of a message; only text is served by a text base."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]

    @model_validator(mode="after")
    def _refuse_calls(self) -> "Message":
        for name in _CALLS:
            if (self.model_extra or {}).get(name):
                message = f"a message with {name!r} is not supported: write it into its content"
                raise unsupported(name, message)
        return self

    def plain(self) -> dict[str, str]:
        """Return role and text as chat templates read them."""
        parts = self.content if isinstance(self.content, list) else []
        texts = [self.content] if isinstance(self.content, str) else [p.text for p in parts]
        return message(self.role, texts)


class ChatRequest(GenerationRequest):
    """A conversation to answer.

    Args:
        messages: the conversation so far.
        max_tokens: of each answer; missing: as many as fit.
        max_completion_tokens: OpenAI's newer name of max_tokens.
        logprobs: log-probabilities of the chosen tokens.
        top_logprobs: alternatives for each token; needs `logprobs`.
    """

    example = {"model": "BASE", "messages": [{"role": "user", "content": "Hello"}]}

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

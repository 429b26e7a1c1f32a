"""Bodies of chat completions: the messages of a conversation, and how it is answered.

Nothing of a message is dropped silently: a field is given to the base's chat template, or it is
refused by name.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters_core.calls.items import NAME
from adapters_core.tokens.messages import is_neutral
from server.api.completion_schemas import MAX_LOGPROBS, GenerationRequest
from server.api.validation import unsupported, wrong

MAX_TOOLS = 128
#: Field of a message -> the only role that has it.
_OF_ROLE = {"tool_calls": "assistant", "refusal": "assistant", "tool_call_id": "tool"}

FunctionName = Annotated[str, Field(max_length=128, pattern=rf"^{NAME}$")]
ShortText = Annotated[str, Field(min_length=1, max_length=256)]


class ContentPart(BaseModel):
    """A part of a content: text, or what the assistant has said instead of it.

    Args:
        text: of a part of the type `text`; only text is served by a text base.
        refusal: of one of the type `refusal`.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _check_text(self) -> Self:
        given = {"text": self.text, "refusal": self.refusal}
        if given.pop(self.type) is None:
            raise wrong(self.type, "Field required")
        for name, value in given.items():
            if value is not None:
                raise unsupported(name, f"a part of the type {self.type!r} has no {name!r}")
        return self


class CalledFunction(BaseModel):
    """A function with the arguments that it was called with, a JSON object as text."""

    model_config = ConfigDict(extra="forbid")

    name: FunctionName
    arguments: str


class MessageCall(BaseModel):
    """A call that the assistant has made.

    Args:
        id: which a result refers to.
        index: of a call in a stream; it changes nothing.
    """

    model_config = ConfigDict(extra="forbid")

    id: ShortText | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(default=None, exclude=True)


class Message(BaseModel):
    """One message of a conversation.

    Args:
        role: from whom it is; `developer` is `system`.
        content: a text, or its parts; may be null in an answer with calls.
        name: from which of several persons it is, where the base's chat template writes names.
        tool_calls: of the assistant.
        tool_call_id: the call whose result the content is.
        refusal: what the assistant has said instead of a content.
    """

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: ShortText | None = None
    tool_calls: Annotated[list[MessageCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: ShortText | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _refuse_others(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if not is_neutral(value):
                raise unsupported(name, f"a message with {name!r} is not supported")
        for name, role in _OF_ROLE.items():
            if self.role != role and not is_neutral(getattr(self, name)):
                raise unsupported(name, f"{name!r} is of messages of the role {role!r} only")
        if self.content is None and not (self.tool_calls or self.refusal):
            raise wrong("content", "Input should be a text or a list of parts")
        parts = self.content if isinstance(self.content, list) else []
        if self.role != "assistant" and any(part.type == "refusal" for part in parts):
            raise unsupported("content", "parts of the type 'refusal' are of the assistant only")
        return self

    @property
    def size(self) -> int:
        """Return the characters of its content, and of the arguments of its calls."""
        parts = self.content if isinstance(self.content, list) else []
        whole = self.content if isinstance(self.content, str) else ""
        texts = [whole, *(part.text or part.refusal or "" for part in parts)]
        calls = [call.function.arguments for call in self.tool_calls or ()]
        return sum(map(len, [*texts, *calls]))

    def given(self) -> dict[str, Any]:
        """Return the message as OpenAI's API has it, without what is null."""
        return self.model_dump(exclude_none=True, include=set(Message.model_fields))


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
    prompt_field = "messages"

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def text_sizes(self) -> list[int]:
        """Return the characters of all messages, which are one text."""
        return [sum(message.size for message in self.messages)]

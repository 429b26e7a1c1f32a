"""Bodies of chat completions: the messages of a conversation, and how it is answered.

Nothing of a message is dropped silently: a field is given to the base's chat template, or it is
refused by name.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters_core.tokens.messages import is_neutral
from server.api.completion_schemas import MAX_LOGPROBS, GenerationRequest
from server.api.tool_schemas import MAX_TOOLS, FunctionName, NamedTool, ToolChoice, Tools
from server.api.validation import unsupported, wrong

#: What chats have of their own is no parameter that only may be neutral.
_NEUTRAL = {
    name: allowed
    for name, allowed in GenerationRequest.neutral.items()
    if name not in ("tools", "tool_choice", "parallel_tool_calls")
} | {"functions": ([],), "function_call": ("none", "auto")}

#: Field of a message -> the only role that has it.
_OF_ROLE = {"tool_calls": "assistant", "refusal": "assistant", "tool_call_id": "tool"}

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
        role: what kind of message it is; `developer` is `system`.
        content: a text, or its parts; may be null in an answer with calls.
        name: of its author among several, where the base's chat template writes names.
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
        """Return the characters of its content or refusal, and of the arguments of its calls."""
        parts = self.content if isinstance(self.content, list) else []
        whole = self.content if isinstance(self.content, str) else ""
        texts = [whole, self.refusal or "", *(part.text or part.refusal or "" for part in parts)]
        calls = [call.function.arguments for call in self.tool_calls or ()]
        return sum(map(len, [*texts, *calls]))

    def given(self) -> dict[str, Any]:
        """Return the message as OpenAI's API has it, without what is null."""
        return self.model_dump(exclude_none=True, include=set(Message.model_fields))


class ChatRequest(GenerationRequest):
    """A conversation to answer.

    Args:
        messages: the conversation so far.
        tools: functions that the base may call.
        tool_choice: whether it may (`auto`), must (`required`, or a function by its name) or must
            not (`none`: it is not told of the tools); missing: `auto`.
        parallel_tool_calls: whether an answer may have several calls.
        add_generation_prompt: begin an answer of the assistant; missing: unless the last message
            is continued.
        continue_final_message: go on within the last message, which is the assistant's.
        chat_template_kwargs: variables of the base's chat template, such as `enable_thinking`.
        max_tokens: of each answer; missing: as many as fit.
        max_completion_tokens: OpenAI's newer name of max_tokens.
        logprobs: log-probabilities of the chosen tokens.
        top_logprobs: alternatives for each token; needs `logprobs`.
    """

    example = {"model": "BASE", "messages": [{"role": "user", "content": "Hello"}]}
    prompt_field = "messages"

    neutral = _NEUTRAL

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    tools: Tools = []
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = {}
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def text_sizes(self) -> list[int]:
        """Return the characters of all messages and tools, which are one text."""
        tools = self.tools if self.tool_choice != "none" else []
        sizes = [message.size for message in self.messages]
        return [sum([*sizes, *(tool.function.size for tool in tools)])]

    @model_validator(mode="after")
    def _check_tool_choice(self) -> Self:
        names = [tool.function.name for tool in self.tools]
        choice = self.tool_choice
        if choice == "required" and not names:
            raise wrong("tool_choice", "'required' needs tools")
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise wrong("tool_choice", f"{choice.function.name!r} is no function in tools")
        return self

    @model_validator(mode="after")
    def _check_ending(self) -> Self:
        if not self.continue_final_message:
            return self
        if self.add_generation_prompt:
            raise wrong("add_generation_prompt", "not together with continue_final_message")
        last = self.messages[-1]
        if last.role != "assistant" or not last.content or last.tool_calls:
            raise wrong("continue_final_message", "the last message is no text of the assistant")
        return self

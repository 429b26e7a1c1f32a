"""Answers of POST /v1/responses, in OpenAI's shapes."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from server.api.bodies.answers import AnsweredBy, CachedTokens

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(TypedDict):
    """The text of a message."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(TypedDict):
    """What the model says."""

    type: Literal["message"]
    id: str
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


class OutputCall(TypedDict):
    """A function that the model calls.

    Args:
        call_id: what the call's result names.
        arguments: JSON as text.
    """

    type: Literal["function_call"]
    id: str
    status: Status
    call_id: str
    name: str
    arguments: str


class InputTokens(CachedTokens):
    """How many of the input's tokens were found computed; none are counted as kept."""

    cache_write_tokens: int


class ReasoningTokens(TypedDict):
    """How many tokens were reasoning; none are counted apart."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class ResponseError(TypedDict):
    """Why a streamed response has failed.

    Args:
        code: OpenAI's.
        message: what is wrong, with which value, and what to do; for people.
        param: the field at fault, if one is.
        type: the error's code in all other answers.
    """

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str
    param: str | None
    type: str


class IncompleteDetails(TypedDict):
    """Why a response ends before its end."""

    reason: Literal["max_output_tokens"]


class Response(TypedDict):
    """The answer to a conversation; nothing of it is stored.

    Args:
        output: messages and calls of functions.
        usage: null before the end.
        overtone: what answered; missing before the end.
    """

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: Literal[False]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, None]
    service_tier: Literal["default"]
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    overtone: NotRequired[AnsweredBy]


class ResponseLifecycle(TypedDict):
    """A response is begun, or over: `response.failed` says why."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: Response


class OutputItemEvent(TypedDict):
    """An item of the output begins or is complete."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputMessage | OutputCall


class ContentPartEvent(TypedDict):
    """A message's text begins or is complete."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: OutputText


class TextDelta(TypedDict):
    """The next piece of a message's text."""

    type: Literal["response.output_text.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[Any]


class TextDone(TypedDict):
    """The whole text of a message."""

    type: Literal["response.output_text.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[Any]


class ArgumentsDelta(TypedDict):
    """The next piece of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(TypedDict):
    """The whole arguments of a call."""

    type: Literal["response.function_call_arguments.done"]
    sequence_number: int
    item_id: str
    output_index: int
    name: str
    arguments: str


ResponseEvent = (
    ResponseLifecycle
    | OutputItemEvent
    | ContentPartEvent
    | TextDelta
    | TextDone
    | ArgumentsDelta
    | ArgumentsDone
)

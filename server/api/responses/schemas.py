"""Bodies of POST /v1/responses, and their checks.

Nothing is stored: what needs an earlier response is refused by name, with what to send instead.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from server.api.chat_schemas import ShortText
from server.api.constraint_schemas import JsonObjectFormat, NamedSchema, TextFormat
from server.api.request_body import OpenAIBody, RequestBody
from server.api.sampling_schemas import SamplingFields
from server.api.tool_schemas import MAX_TOOLS, FunctionName
from server.api.validation import unsupported

#: Parameters of OpenAI's API that are accepted only with these values.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    # There is no reasoning apart from the text, so none is left out.
    "include": ([], ["reasoning.encrypted_content"]),
    "reasoning": ({}, {"effort": "none"}),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    # About the caller; they do not change what is computed.
    "prompt_cache_key": (...,),
    "prompt_cache_retention": (...,),
    "safety_identifier": (...,),
    "user": (...,),
}

#: What items of an earlier response's output say of themselves.
_OF_OUTPUT: dict[str, tuple[Any, ...]] = dict.fromkeys(("id", "status", "created_by"), (...,))
_OF_CALL = _OF_OUTPUT | {"caller": ({"type": "direct"},), "parsed_arguments": (...,)}
_OF_TEXT: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("annotations", "logprobs", "parsed", "prompt_cache_breakpoint"), (...,)
)

_STATEFUL = ("previous_response_id", "conversation", "prompt")

Schema = dict[str, Any]


class InputText(OpenAIBody):
    """A piece of a message, or of what a function returned; only text is served."""

    neutral = _OF_TEXT

    type: Literal["input_text", "output_text"]
    text: str


class InputMessage(OpenAIBody):
    """A message of the conversation so far, also one that an earlier response had as its output."""

    neutral = _OF_OUTPUT | {"phase": (...,)}

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText]


class InputCall(OpenAIBody):
    """A call of a function, as an earlier response had it as its output.

    Args:
        call_id: what its result names.
        arguments: JSON as text.
    """

    neutral = _OF_CALL | {"async": (False,)}

    type: Literal["function_call"]
    call_id: ShortText
    name: FunctionName
    arguments: str


class InputResult(OpenAIBody):
    """What a called function returned.

    Args:
        call_id: of the call.
    """

    neutral = _OF_CALL | {"name": (...,)}

    type: Literal["function_call_output"]
    call_id: ShortText
    output: str | list[InputText]


def _kind_of(given: Any) -> str:
    """Return which class an item is of: an unknown type is no message's, and refused as such."""
    kind = given.get("type") if isinstance(given, dict) else None
    kinds = {"function_call": "InputCall", "function_call_output": "InputResult"}
    return kinds.get(str(kind), "InputMessage")


InputItem = Annotated[
    Annotated[InputMessage, Tag("InputMessage")]
    | Annotated[InputCall, Tag("InputCall")]
    | Annotated[InputResult, Tag("InputResult")],
    Discriminator(_kind_of),
]


class FunctionTool(RequestBody):
    """A function that the model may call.

    Args:
        parameters: JSON Schema of its arguments.
        strict: whether the arguments must be as the schema says.
    """

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class NamedFunction(RequestBody):
    """The function that must be called."""

    type: Literal["function"]
    name: FunctionName


class NamedSchemaFormat(NamedSchema):
    """JSON that a schema accepts; a chat has the same within `json_schema`."""

    type: Literal["json_schema"]


class TextOptions(RequestBody):
    """What the text of an answer is like."""

    format: Annotated[
        TextFormat | JsonObjectFormat | NamedSchemaFormat, Field(discriminator="type")
    ] = TextFormat(type="text")
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(RequestBody):
    """Extras of a streamed response.

    Args:
        include_obfuscation: taken, and of no effect.
    """

    include_obfuscation: bool = False


class ResponsesRequest(SamplingFields):
    """A conversation to answer.

    Args:
        model: the base's name, or an adapter's: `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
        input: what the user says, or the conversation so far.
        instructions: what the model is told before all of it.
        max_output_tokens: of the answer; missing: as many as fit.
        text: what the answer's text is like.
        tools: functions that the model may call.
        tool_choice: whether it may, must not or must call one, or which one it must call.
        parallel_tool_calls: whether it may call several at once.
        metadata: comes back with the response.
        stream: answer in server-sent events.
        stream_options: extras of a streamed answer.
        timeout_s: seconds after which the request fails; missing: the server's setting.
    """

    neutral = _NEUTRAL
    example = {"model": "BASE", "input": "Hello"}

    n: ClassVar[int] = 1  # type: ignore[misc]  # a response is one answer
    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[InputItem], Field(min_length=1, max_length=4096)]
    )
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    text: TextOptions = TextOptions()
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] = []
    tool_choice: Literal["auto", "none", "required"] | NamedFunction = "auto"
    parallel_tool_calls: bool = True
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
        Field(max_length=16),
    ] = {}
    stream: bool = False
    stream_options: ResponseStreamOptions | None = None
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_state(cls, given: Any) -> Any:
        found = given if isinstance(given, dict) else {}
        for name in _STATEFUL:
            if found.get(name) is not None:
                message = f"{name!r} is not supported: nothing is stored, send the whole input"
                raise unsupported(name, message)
        if found.get("store"):
            raise unsupported("store", "responses are not stored: leave it out, or send false")
        return given

"""From a checked body to a chat as the base's template takes it, and how its calls are read."""

from typing import Any

from adapters_core.calls.form import CallForm
from adapters_core.tokens.chats import Chat, ChatTemplate
from adapters_core.tokens.messages import PartRefused, plain_messages, plain_tools
from adapters_core.tokens.prompts import ChatRefused, Ending
from server.api.chat_schemas import ChatRequest
from server.api.tool_schemas import FunctionDefinition, NamedTool
from server.chat.call_grammar import CallGrammar
from server.chat.message_stream import ToolUse
from server.constraints.spec import ConstraintSpec, SchemaPart
from server.errors import InvalidRequest

#: A function's place in a body, and its definition.
_Function = tuple[int, FunctionDefinition]


def chat_of(body: ChatRequest) -> Chat:
    """Return the chat of a body; without its tools if none may be called.

    Raises:
        InvalidRequest: arguments of a call are no JSON object, a result is that of no call, or two
            functions have one name.
    """
    tools = [tool.model_dump() for tool in body.tools]
    try:
        return Chat(
            plain_messages([message.given() for message in body.messages]),
            plain_tools(tools) if _may_call(body) else (),
            _ending(body),
            body.chat_template_kwargs,
        )
    except PartRefused as error:
        raise InvalidRequest(str(error), error.where) from error


def tool_use_of(body: ChatRequest, template: ChatTemplate) -> ToolUse | None:
    """Return how calls in a body's answers are read; None where there are none.

    Raises:
        InvalidRequest: the base writes calls in a form that is not known.
    """
    if not _may_call(body):
        return None
    return ToolUse(
        _form(template),
        names=frozenset(function.name for _, function in _callable(body)),
        max_calls=_max_calls(body),
        is_sure=_must_call(body) or _is_strict(body),
        shown=frozenset(template.call_tokens.values()),
    )


def constraint_of(body: ChatRequest, template: ChatTemplate) -> ConstraintSpec | None:
    """Return what a body's answers must be like; None for anything.

    Where a function must be called they are calls and nothing else. Where it may be, calls are held
    to their functions' schemas if one of these is strict.

    Raises:
        InvalidRequest: another constraint than JSON's is on answers that may call functions.
    """
    own = body.constraint
    if not _may_call(body) or not (own or _must_call(body) or _is_strict(body)):
        return own
    functions = _callable(body)
    names = [function.name for _, function in functions]
    grammar = CallGrammar(_form(template), names, template.call_tokens, _max_calls(body))
    parts = [_arguments(n, each, _must_call(body)) for n, each in enumerate(functions)]
    param = parts[0].param if len(parts) == 1 else "tools"
    if _must_call(body):
        return ConstraintSpec.with_schemas(grammar.required(), parts, param)
    if own is None:
        return ConstraintSpec.with_schemas(grammar.optional(), parts, param)
    return ConstraintSpec.with_schemas(
        _optional_beside(own, grammar),
        [*parts, SchemaPart("content", own.text, own.param, own.is_strict)],
        own.param,
    )


def _optional_beside(own: ConstraintSpec, grammar: CallGrammar) -> str:
    """Return the grammar of answers that are calls, or as another constraint says."""
    try:
        if own.kind != "json_schema":
            raise ValueError("an answer in JSON can be told from calls, no other")
        return grammar.optional("@content")
    except ValueError as error:
        raise InvalidRequest(
            f"{own.param} is supported with tools only if tool_choice is 'none' or 'required': "
            f"{error}",
            own.param,
        ) from error


def _form(template: ChatTemplate) -> CallForm:
    try:
        return template.form
    except ChatRefused as error:
        raise InvalidRequest(str(error), "tools") from error


def _arguments(number: int, of: _Function, is_held: bool) -> SchemaPart:
    """Return what the arguments of a function must be like.

    Args:
        number: of the function among those that may be called.
        of: the function.
        is_held: whether its schema is kept although it is not strict.
    """
    place, function = of
    schema: dict[str, Any] = {"type": "object"}
    if is_held or function.strict:
        nothing = {"properties": {}, "additionalProperties": False}
        schema |= nothing if function.parameters is None else function.parameters
    param = f"tools[{place}].function.parameters"
    return SchemaPart.of(f"arguments_{number}", schema, param, bool(function.strict))


def _callable(body: ChatRequest) -> list[_Function]:
    """Return the functions that may be called."""
    named = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else None
    functions = [(place, tool.function) for place, tool in enumerate(body.tools)]
    return [each for each in functions if named in (None, each[1].name)]


def _max_calls(body: ChatRequest) -> int | None:
    one = isinstance(body.tool_choice, NamedTool) or not body.parallel_tool_calls
    return 1 if one else None


def _may_call(body: ChatRequest) -> bool:
    return bool(body.tools) and body.tool_choice != "none"


def _must_call(body: ChatRequest) -> bool:
    return body.tool_choice == "required" or isinstance(body.tool_choice, NamedTool)


def _is_strict(body: ChatRequest) -> bool:
    """Return whether a function's arguments must be as its schema says."""
    return any(function.strict for _, function in _callable(body))


def _ending(body: ChatRequest) -> Ending:
    if body.continue_final_message:
        return "continues"
    return "ends" if body.add_generation_prompt is False else "asks"

"""From a checked body to a chat as the base's template takes it, and how its calls are read."""

from adapters_core.tokens.chats import Chat, ChatTemplate
from adapters_core.tokens.messages import PartRefused, plain_messages, plain_tools
from adapters_core.tokens.prompts import ChatRefused, Ending
from server.api.chat_schemas import ChatRequest
from server.chat.message_stream import ToolUse
from server.errors import InvalidRequest


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
    try:
        form = template.form
    except ChatRefused as error:
        raise InvalidRequest(str(error), "tools") from error
    return ToolUse(
        form,
        names=frozenset(tool.function.name for tool in body.tools),
        max_calls=None if body.parallel_tool_calls else 1,
        shown=template.call_tokens,
    )


def _may_call(body: ChatRequest) -> bool:
    return bool(body.tools) and body.tool_choice != "none"


def _ending(body: ChatRequest) -> Ending:
    if body.continue_final_message:
        return "continues"
    return "ends" if body.add_generation_prompt is False else "asks"

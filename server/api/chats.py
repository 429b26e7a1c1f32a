"""From a checked body to a chat as the base's template takes it."""

from adapters_core.tokens.chats import Chat
from adapters_core.tokens.messages import PartRefused, plain_messages
from server.api.chat_schemas import ChatRequest
from server.errors import InvalidRequest


def chat_of(body: ChatRequest) -> Chat:
    """Return the chat of a body.

    Raises:
        InvalidRequest: arguments of a call are no JSON object, or a result is that of no call.
    """
    try:
        return Chat(plain_messages([message.given() for message in body.messages]))
    except PartRefused as error:
        raise InvalidRequest(str(error), error.where) from error

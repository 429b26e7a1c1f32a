"""What the size of a chat's message counts: it decides where the chat is tokenized."""

from typing import Any

import pytest

from adapters_core.tokens.messages import plain_messages
from server.api.chat_schemas import Message

TEXT = "Grüße"


@pytest.mark.parametrize(
    "given",
    [
        {"content": TEXT},
        {"content": [{"type": "text", "text": TEXT}, {"type": "text", "text": TEXT}]},
        {"content": [{"type": "refusal", "refusal": TEXT}]},
        {"refusal": TEXT},
        {"content": TEXT, "refusal": TEXT},
    ],
)
def test_a_message_has_the_size_of_what_its_template_is_given(given: dict[str, Any]) -> None:
    message = Message(role="assistant", **given)
    (plain,) = plain_messages([message.given()])
    assert message.size == len(plain["content"]) > 0


def test_arguments_of_calls_count() -> None:
    call = {"function": {"name": "f", "arguments": '{"x": 1}'}}
    assert Message(role="assistant", tool_calls=[call]).size == len('{"x": 1}')

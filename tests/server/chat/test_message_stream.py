"""A message's content and calls come in pieces that add up to the whole."""

import re

import pytest

import tool_templates
from adapters_core.calls.form import Call
from adapters_core.tokens.chats import ChatTemplate
from server.chat.message_stream import CallDelta, MessageDelta, ToolUse, whole_calls

NAMES = frozenset(["weather", "time_of"])
ONE = Call("weather", '{"city": "Rome"}', "aaaaaaaa1")
TWO = Call("time_of", "{}", "aaaaaaaa2")


def use(name: str, max_calls: int | None = None) -> ToolUse:
    template = ChatTemplate(tool_templates.tokenizer(name))
    return ToolUse(template.form, NAMES, max_calls)


def deltas(use: ToolUse, text: str, size: int = 5) -> list[MessageDelta]:
    stream = use.stream()
    found: list[MessageDelta] = []
    for start in range(0, len(text), size):
        found += stream.push(text[start : start + size])
    return [*found, *stream.push("", is_last=True)]


@pytest.mark.parametrize("name", ["hermes", "new mistral", "plain", "none"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_call_begins_with_its_name_and_id(name: str, size: int) -> None:
    how = use(name)
    found = [each.call for each in deltas(how, how.form.write([ONE, TWO]), size) if each.call]
    begun = [call for call in found if call.name is not None]
    assert [(call.index, call.name, call.arguments) for call in begun] == [
        (0, "weather", ""),
        (1, "time_of", ""),
    ]
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", call.id or "") for call in begun)
    assert begun[0].id != begun[1].id
    assert all(call.id is None for call in found if call.name is None)


def test_deltas_add_up_to_the_whole_calls() -> None:
    how = use("hermes")
    found = deltas(how, "Look.\n" + how.form.write([ONE, TWO]))
    ids = [each.call.id for each in found if each.call and each.call.name]
    assert whole_calls(found) == [
        CallDelta(0, ONE.arguments, ids[0], "weather"),
        CallDelta(1, TWO.arguments, ids[1], "time_of"),
    ]
    assert "".join(each.content for each in found) == "Look."


def test_ids_that_the_base_writes_are_kept_unless_they_are_taken() -> None:
    how = use("mistral with ids")
    twice = [ONE, Call("weather", "{}", ONE.id), TWO]
    ids = [call.id for call in whole_calls(deltas(how, how.form.write(twice)))]
    assert (ids[0], ids[2]) == (ONE.id, TWO.id)
    assert ids[1] not in (ONE.id, TWO.id)


def test_a_message_is_over_with_the_last_call_that_it_may_have() -> None:
    how = use("hermes", max_calls=1)
    stream = how.stream()
    text = how.form.write([ONE, TWO])
    assert not stream.is_over
    stream.push(text[: text.index("Rome")])
    assert not stream.is_over
    stream.push(text[text.index("Rome") :])
    assert stream.is_over
    assert stream.has_calls

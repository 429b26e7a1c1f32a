"""Chats with tools as templates of every family write them; what one would drop is refused."""

import json
import re
from typing import Any

import pytest

import tool_templates
from adapters_core.calls.form import Call
from adapters_core.calls.reader import read_whole
from adapters_core.tokens.chats import Chat, ChatTemplate
from adapters_core.tokens.messages import PartRefused, plain_messages, plain_tools
from adapters_core.tokens.plain_calls import PLAIN_FORM
from adapters_core.tokens.prompts import ChatRefused
from adapters_core.tokens.template_facts import calls_of

NATIVE = [name for name in tool_templates.TEMPLATES if name != "none"]
TOOLS = plain_tools(
    [
        {
            "type": "function",
            "function": {
                "strict": True,
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                "description": "Look it up",
                "name": name,
            },
        }
        for name in ("weather", "time_of")
    ]
)


def call(number: int, name: str = "weather", **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call{number:05}", "type": "function", "function": function}


def result(number: int, content: str = "22 degrees") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call{number:05}", "content": content}


USER = {"role": "user", "content": "How warm is it?"}
ASKED = {"role": "assistant", "content": None, "tool_calls": [call(1, city="Rome")]}


def template(name: str) -> ChatTemplate:
    return ChatTemplate(tool_templates.tokenizer(name))


def chat(*messages: dict[str, Any], tools: Any = TOOLS, **more: Any) -> Chat:
    return Chat(plain_messages(messages), tools, **more)


@pytest.mark.parametrize("name", NATIVE)
def test_tools_calls_and_results_are_what_the_template_writes(name: str) -> None:
    given = chat(USER, ASKED, result(1))
    expected = tool_templates.tokenizer(name).apply_chat_template(
        list(given.messages), tools=TOOLS, tokenize=False, add_generation_prompt=True
    )
    text = template(name).text(given)
    assert text == expected
    assert "22 degrees" in text
    assert "Look it up" in text
    assert "strict" not in text


FORMS = {
    "hermes": ("<tool_call>", "</tool_call>", "object"),
    "llama": ("", "", "object"),
    "mistral": ("[TOOL_CALLS]", "", "list"),
    "new mistral": ("[TOOL_CALLS]", "", "named"),
    "mistral with ids": ("[TOOL_CALLS]", "", "named"),
    "plain": ("", "", "object"),
}


@pytest.mark.parametrize("name", NATIVE)
def test_the_form_of_calls_is_found_in_what_the_template_writes(name: str) -> None:
    form = template(name).form
    assert (form.opening, form.closing, form.container) == FORMS[name]
    assert form.also_opens == "<|python_tag|>"
    assert (form.between is None) == (name == "llama")
    expected = {"hermes": "\n", "new mistral": "", "mistral with ids": ""}
    assert form.gap == expected.get(name)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("num_calls", [1, 2, 3])
def test_calls_that_the_template_writes_are_read_and_written_again(
    name: str, num_calls: int
) -> None:
    cities = ["Rome", 'Köln "x"', "a\nb"]
    calls = [call(i, ("weather", "time_of")[i % 2], city=cities[i]) for i in range(num_calls)]
    given = plain_messages([USER, {"role": "assistant", "content": "", "tool_calls": calls}])
    made = template(name)
    if num_calls > 1 and made.form.between is None:
        with pytest.raises(ChatRefused, match="only one call at a time"):
            made.text(Chat(given, TOOLS))
        return
    text = made.text(Chat(given, TOOLS, ending="ends"))
    written = made.form.write(calls_of(given[1]))
    assert text.count(written) == 1
    content, found = read_whole(made.form, ["weather", "time_of"], written)
    assert content == ""
    assert found == [Call(one.name, one.arguments) for one in calls_of(given[1])]


def test_special_tokens_that_write_calls_are_known() -> None:
    def tokens(name: str) -> set[str]:
        tokenizer, found = tool_templates.tokenizer(name), template(name).call_tokens
        assert tokenizer.convert_tokens_to_ids(list(found)) == list(found.values())
        return set(found)

    assert tokens("mistral") == {"[TOOL_CALLS]", "<|python_tag|>"}
    assert tokens("mistral with ids") == {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"}
    assert tokens("hermes") == {"<|python_tag|>"}
    assert tokens("none") == set()


def test_a_template_without_tools_is_told_of_them_in_plain_words() -> None:
    rule = {"role": "system", "content": "Be short."}
    text = template("none").text(chat(rule, USER, ASKED, result(1), result(1, "so")))
    assert template("none").form == PLAIN_FORM
    system, user, assistant, results, _ = text.split("<|im_end|>\n")
    assert system.startswith("<|im_start|>system\nBe short.\n\nYou can call functions.")
    for tool in TOOLS:
        assert json.dumps(tool["function"]) in system
    assert user == "<|im_start|>user\nHow warm is it?"
    name, called = "weather", [Call("weather", '{"city": "Rome"}')]
    assert read_whole(PLAIN_FORM, [name], assistant.partition("\n")[2]) == ("", called)
    responses = ["<tool_response>\n22 degrees\n</tool_response>"]
    responses += ["<tool_response>\nso\n</tool_response>"]
    assert results == "<|im_start|>user\n" + "\n".join(responses)


def test_without_a_system_message_plain_words_stand_where_the_template_takes_them() -> None:
    assert template("none").text(chat(USER)).startswith("<|im_start|>system\nYou can call")
    refusing = tool_templates.NONE.replace(
        "{%- for m in messages %}",
        "{%- for m in messages %}{%- if m.role == 'system' %}{{- raise_exception('no') }}"
        "{%- endif %}",
        1,
    )
    text = template(refusing).text(chat(USER))
    assert text.startswith("<|im_start|>user\nYou can call")
    assert "</tool_response>.\n\nHow warm is it?<|im_end|>" in text


def test_a_template_that_writes_calls_in_its_own_way_takes_none() -> None:
    own = template(tool_templates.OTHER)
    assert own.text(chat(USER, tools=())) == "user:How warm is it?</s>assistant:"
    with pytest.raises(ChatRefused, match="writes calls of functions in no form that is known"):
        own.text(chat(USER))
    with pytest.raises(ChatRefused, match="no form that is known"):
        own.text(chat(USER, ASKED, tools=()))


def test_a_template_without_results_takes_no_tools() -> None:
    source = tool_templates.HERMES.replace("'\\n<tool_response>\\n' + m.content", "'\\n'")
    with pytest.raises(ChatRefused, match="writes results of functions in no form"):
        template(source).text(chat(USER))


@pytest.mark.parametrize("name", tool_templates.TEMPLATES)
def test_content_beside_calls_is_written_or_stands_before_them(name: str) -> None:
    beside = {**ASKED, "content": "Let me look."}
    text = template(name).text(chat(USER, beside, result(1)))
    assert "Let me look." in text
    assert text.index("Let me look.") < text.index("Rome")


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_name_is_written_or_refused(role: str) -> None:
    other = {"user": "assistant", "assistant": "user"}[role]
    messages = [{"role": other, "content": "a"}, {"role": role, "content": "b", "name": "Ada"}]
    assert f"{role} Ada:b" in template("plain").text(chat(*messages, tools=()))
    for name in ("hermes", "llama", "none"):
        with pytest.raises(ChatRefused, match="does not write the `name` of") as caught:
            template(name).text(chat(*messages, tools=()))
        assert caught.value.where == "messages[1].name"


def test_results_stand_in_the_order_of_their_calls_and_have_their_names() -> None:
    calls = {**ASKED, "tool_calls": [call(1, city="Rome"), call(2, "time_of", city="Rome")]}
    made = plain_messages([USER, calls, result(2, "noon"), result(1, "warm"), USER])
    assert [each["content"] for each in made[2:4]] == ["warm", "noon"]
    assert [each["name"] for each in made[2:4]] == ["weather", "time_of"]
    unnamed = [{"role": "tool", "content": "x"}, {"role": "tool", "content": "y"}]
    assert [each["name"] for each in plain_messages([calls, *unnamed])[1:]] == [
        "weather",
        "time_of",
    ]


@pytest.mark.parametrize(
    ("messages", "where", "words"),
    [
        ([result(1)], "messages[0].tool_call_id", "'call00001' is the id of no call"),
        ([USER, result(1)], "messages[1].tool_call_id", "is the id of no call"),
        ([ASKED, result(2)], "messages[1].tool_call_id", "'call00002' is the id of no call"),
        ([ASKED, result(1), USER, result(1)], "messages[3].tool_call_id", "no call"),
        ([USER, {"role": "tool", "content": "x"}], "messages[1].tool_call_id", "missing"),
        ([ASKED, {**result(1), "name": "f"}], "messages[1].name", "'f' is not 'weather'"),
        (
            [{**ASKED, "tool_calls": [call(1), call(1)]}],
            "messages[0].tool_calls[1].id",
            "the id of two calls",
        ),
    ],
)
def test_results_without_calls_are_refused(
    messages: list[dict[str, Any]], where: str, words: str
) -> None:
    with pytest.raises(PartRefused, match=words) as caught:
        plain_messages(messages)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("[1]", "is no JSON object"),
        ("{", "is not JSON"),
        ('{"a": 1} b', "is not JSON"),
        ('{"a": NaN}', "has NaN"),
        ('{"a": 1, "a": 2}', "has the key `a` twice"),
        pytest.param("[" * 100_000, "is nested too deeply", id="lists"),
        pytest.param('{"a":' * 450 + "1" + "}" * 450, "is nested too deeply", id="objects"),
    ],
)
def test_arguments_that_are_no_object_are_refused(arguments: str, words: str) -> None:
    function = {"name": "weather", "arguments": arguments}
    with pytest.raises(PartRefused, match=f"the text {words}") as caught:
        plain_messages([USER, {**ASKED, "tool_calls": [{"function": function}]}])
    assert caught.value.where == "messages[1].tool_calls[0].function.arguments"


def test_arguments_are_objects_and_a_refusal_is_what_was_said() -> None:
    empty = {"function": {"name": "weather", "arguments": ""}}
    made = plain_messages([{**ASKED, "tool_calls": [call(1, city="Rome"), empty]}])
    arguments = [each["function"]["arguments"] for each in made[0]["tool_calls"]]
    assert arguments == [{"city": "Rome"}, {}]
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    refused = {"role": "assistant", "content": parts, "refusal": "c"}
    assert plain_messages([refused]) == [{"role": "assistant", "content": "abc"}]


def test_a_chat_goes_on_where_its_last_message_ends() -> None:
    begun = chat(USER, {"role": "assistant", "content": "It is "}, tools=(), ending="continues")
    assert template("hermes").text(begun).endswith("<|im_start|>assistant\nIt is ")
    trimming = tool_templates.HERMES.replace(
        "m.content + '<|im_end|>", "m.content|trim + '<|im_end|>"
    )
    assert template(trimming).text(begun).endswith("<|im_start|>assistant\nIt is")


def test_variables_reach_the_template_or_are_refused() -> None:
    source = tool_templates.NONE + "{{- '<think>' if enable_thinking }}"
    on = chat(USER, tools=(), variables={"enable_thinking": True})
    assert template(source).text(on).endswith("<think>")
    assert not template(source).text(chat(USER, tools=())).endswith("<think>")
    with pytest.raises(ChatRefused, match="does not read 'enable_thinking'") as caught:
        template("none").text(on)
    assert caught.value.where == "chat_template_kwargs.enable_thinking"
    for name in (
        "messages",
        "tools",
        "chat_template",
        "tokenize",
        "add_generation_prompt",
        "bos_token",
    ):
        with pytest.raises(ChatRefused, match=f"{name!r} cannot be set"):
            template(source + "{{- bos_token }}").text(chat(USER, variables={name: "x"}))


def test_of_several_templates_the_one_for_tools_writes_calls() -> None:
    several = tool_templates.bare_tokenizer()
    several.chat_template = {"default": tool_templates.NONE, "tool_use": tool_templates.HERMES}
    made = ChatTemplate(several)
    assert made.form.opening == "<tool_call>"
    assert "# Tools" in made.text(chat(USER))
    assert "22 degrees" in made.text(chat(USER, ASKED, result(1), tools=()))


@pytest.mark.parametrize("name", ["mistral", "new mistral", "mistral with ids"])
def test_ids_that_a_template_does_not_take_are_told_by_others(name: str) -> None:
    long = {**call(1, city="Rome"), "id": "call_of_another_server"}
    asked = {**ASKED, "tool_calls": [long]}
    answer = {"role": "tool", "tool_call_id": long["id"], "content": "warm"}
    text = template(name).text(chat(USER, asked, answer))
    (short,) = re.findall('"call_id": "([a-z0-9]{9})"', text)
    assert text.count(short) == (1 if name == "new mistral" else 2)
    assert long["id"] not in text
    kept = template(name).text(chat(USER, ASKED, result(1)))
    assert '"call_id": "call00001"' in kept

"""Calls are found in an answer's text however it is cut; what is none is content, all of it."""

import json
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters_core.calls.form import ID, Call, CallForm
from adapters_core.calls.reader import CallReader, Content, Piece

HERMES = CallForm(
    before='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    after="}\n</tool_call>",
    between='}\n</tool_call>\n<tool_call>\n{"name": "',
    gap="\n",
)
LLAMA = CallForm('{"name": "', '", "parameters": ', "}", also_opens="<|python_tag|>")
MISTRAL = CallForm(
    before='[TOOL_CALLS] [{"name": "',
    middle='", "arguments": ',
    after=f', "id": "{ID}"}}]',
    between=f', "id": "{ID}"}}, {{"name": "',
)
NEW_MISTRAL = CallForm("[TOOL_CALLS]", "[ARGS]", "", "[TOOL_CALLS]", gap="")
WITH_IDS = CallForm("[TOOL_CALLS]", f"[CALL_ID]{ID}[ARGS]", "", "[TOOL_CALLS]", gap="")
PLAIN = CallForm('{"name": "', '", "arguments": ', "}", '}\n{"name": "')
COHERE = CallForm(
    '<|START_ACTION|>[{"tool_name": "',
    '", "parameters": ',
    "}]<|END_ACTION|>",
    '}, {"tool_name": "',
)
FORMS = {
    "hermes": HERMES,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "new mistral": NEW_MISTRAL,
    "mistral with ids": WITH_IDS,
    "plain": PLAIN,
    "cohere": COHERE,
}
NAMES = ("get_weather", "add", "mcp.files:read")
ONE = Call("get_weather", '{"city": "Rome", "unit": null}', "id0000001")
TWO = Call("add", '{"a": [1, {"b": "}\\"{"}], "c": -1.5e3}', "id0000002")


def summed(pieces: Iterable[Piece]) -> tuple[str, list[Call]]:
    """Return the content and the calls that pieces add up to."""
    content, calls = "", list[Call]()
    for piece in pieces:
        if isinstance(piece, Content):
            content += piece.text
        elif piece.name is not None:
            assert piece.index == len(calls)
            calls.append(Call(piece.name, piece.arguments, piece.id))
        else:
            assert piece.index == len(calls) - 1
            last = calls[-1]
            calls[-1] = Call(last.name, last.arguments + piece.arguments, last.id)
    return content, calls


def read(form: CallForm, *texts: str, sure: bool = False) -> tuple[str, list[Call]]:
    reader = CallReader(form, NAMES, is_sure=sure)
    pieces = [piece for text in texts for piece in reader.push(text)]
    return summed([*pieces, *reader.finish()])


def without_ids(calls: Iterable[Call]) -> list[Call]:
    return [Call(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("sure", [False, True])
def test_what_a_form_writes_is_read_back(name: str, sure: bool) -> None:
    form = FORMS[name]
    assert form.is_readable
    for calls in ([ONE], [TWO], [ONE, TWO], [TWO, ONE, ONE]):
        if len(calls) == 1 or form.between is not None:
            content, found = read(form, form.write(calls), sure=sure)
            assert content == ""
            assert without_ids(found) == without_ids(calls)


@pytest.mark.parametrize("form", [MISTRAL, WITH_IDS])
def test_ids_that_the_base_writes_are_read(form: CallForm) -> None:
    assert read(form, form.write([ONE, TWO]))[1] == [ONE, TWO]


def test_a_form_knows_its_parts_by_what_it_writes() -> None:
    assert (HERMES.opening, HERMES.closing) == ("<tool_call>", "</tool_call>")
    assert (MISTRAL.opening, MISTRAL.closing, MISTRAL.container) == ("[TOOL_CALLS]", "", "list")
    assert (LLAMA.opening, LLAMA.container, LLAMA.arguments_key) == ("", "object", "parameters")
    assert (NEW_MISTRAL.opening, NEW_MISTRAL.container) == ("[TOOL_CALLS]", "named")
    assert (COHERE.closing, COHERE.name_key) == ("<|END_ACTION|>", "tool_name")


def test_several_calls_need_a_form_that_has_them() -> None:
    with pytest.raises(ValueError, match="one call an answer"):
        LLAMA.write([ONE, TWO])


ARGUMENTS = '{"city": "Rome", "unit": null}'
CALLED = '"name": "get_weather", "arguments": ' + ARGUMENTS


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (HERMES, '<tool_call>{"name":"get_weather","arguments":' + ARGUMENTS + "}</tool_call>"),
        (HERMES, '<tool_call>{"arguments": ' + ARGUMENTS + ', "name": "get_weather"}'),
        (HERMES, '<tool_call>\n{"name": "get_weather", "parameters": ' + ARGUMENTS + "}\n"),
        (HERMES, "\n <tool_call>[{" + CALLED + "}]"),
        (
            HERMES,
            '<tool_call>{"type": "function", "name": "get_weather", "arguments": '
            + json.dumps(ARGUMENTS)
            + "}</tool_call>\n",
        ),
        (LLAMA, '<|python_tag|>{"name": "get_weather", "parameters": ' + ARGUMENTS + "}"),
        (LLAMA, "\n{" + CALLED + "}"),
        (LLAMA, '{"type": "function", "name": "get_weather", "parameters": ' + ARGUMENTS + "}"),
        (MISTRAL, "[TOOL_CALLS][{" + CALLED + "}]"),
        (MISTRAL, "[TOOL_CALLS]\n{" + CALLED + "}"),
        (MISTRAL, "[TOOL_CALLS] [ {" + CALLED + "}"),
        (NEW_MISTRAL, "[TOOL_CALLS][{" + CALLED + "}]"),
        (NEW_MISTRAL, "[TOOL_CALLS] get_weather " + ARGUMENTS),
        (NEW_MISTRAL, "[TOOL_CALLS]get_weather[ARGS] " + ARGUMENTS),
        (PLAIN, "[{" + CALLED + "}]"),
    ],
)
@pytest.mark.parametrize("sure", [False, True])
def test_what_bases_write_otherwise_is_read_as_well(form: CallForm, text: str, sure: bool) -> None:
    content, (call,) = read(form, text, sure=sure)
    assert (content, call.name) == ("", "get_weather")
    assert json.loads(call.arguments) == json.loads(ARGUMENTS)


@pytest.mark.parametrize("separator", ["; ", "\n", ";", ", ", ""])
def test_calls_that_nothing_opens_may_follow_one_another(separator: str) -> None:
    one, two = LLAMA.write([ONE]), LLAMA.write([TWO])
    assert read(LLAMA, one + separator + two) == ("", without_ids([ONE, TWO]))


@pytest.mark.parametrize("given", ["", ', "arguments": null'])
def test_a_call_without_arguments_has_an_empty_object(given: str) -> None:
    text = '<tool_call>{"name": "add"' + given + "}</tool_call>"
    assert read(HERMES, text) == ("", [Call("add", "{}")])


def test_text_around_calls_is_content_and_blanks_beside_them_are_none() -> None:
    calls = HERMES.write([ONE])
    assert read(HERMES, f"Let me look. \n\n{calls}\n\n") == ("Let me look.", without_ids([ONE]))
    assert read(HERMES, f"{calls}\nThere. ")[0] == "\nThere. "
    assert read(HERMES, f"a {calls} b {HERMES.write([TWO])} ") == ("a b", without_ids([ONE, TWO]))
    assert read(LLAMA, "a <|python_tag|>" + LLAMA.write([ONE])) == ("a", without_ids([ONE]))


NO_CALLS = [
    "",
    "  \n",
    "Hello, world. \n",
    "<tool_call",
    "<tool_call>",
    "<tool_call></tool_call>",
    "<tool_call>\nadd(1, 2)\n</tool_call>",
    '<tool_call>{"name": "add"',
    '<tool_call>{"name": "add", "arguments": {"a": 1</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a" 1}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a": 1,}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a": "\n"}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "add", "arguments": "a"}</tool_call>',
    '<tool_call>{"name": "drop_table", "arguments": {}}</tool_call>',
    '<tool_call>{"name": ["add"], "arguments": {}}</tool_call>',
    '<tool_call>{"arguments": {}}</tool_call>',
    "<tool_call>[1, 2]</tool_call>",
    "<tool_call><tool_call><tool_call>",
    '[TOOL_CALLS] [{"name": "add", "arguments": {}',
    "[TOOL_CALLS]add[ARGS]{",
    "[TOOL_CALLS]add[ARGS][1]",
    "[TOOL_CALLS]drop_table[ARGS]{}",
    "[TOOL_CALLS]" + "add" * 400,
    '{"answer": 42}',
    '{"name": "Ada", "parameters": {"born": 1815}}',
    '[1, 2, {"name": "add"}]',
    '{"name": "add", "arguments": {}',
    'So: {"name": "add", "arguments": {}}',
    "<|python_tag|>print(1)",
]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("text", NO_CALLS)
def test_what_is_no_call_is_content_to_the_last_character(name: str, text: str) -> None:
    assert read(FORMS[name], text) == (text, [])
    assert read(FORMS[name], *text) == (text, [])


def test_a_good_call_behind_a_malformed_one_is_found() -> None:
    bad = '<tool_call>{"name": "add", "arguments": {"a": "\n"}}</tool_call>\n'
    assert read(HERMES, bad + HERMES.write([ONE])) == (bad.rstrip(), without_ids([ONE]))
    bad = '[TOOL_CALLS] [{"name": "add", "arguments": {}}, 7]'
    assert read(MISTRAL, bad) == (", 7]", [Call("add", "{}")])


LONG = Call("add", json.dumps({"text": "line\n" * 400, "last": {"a": [1]}}))


@pytest.mark.parametrize("name", FORMS)
def test_a_long_call_is_told_while_it_arrives(name: str) -> None:
    text = FORMS[name].write([LONG])
    reader = CallReader(FORMS[name], NAMES)
    half = reader.push(text[: len(text) // 2])
    assert len(summed(half)[1][0].arguments) > len(text) // 2 - 200
    rest = [*reader.push(text[len(text) // 2 :]), *reader.finish()]
    assert summed([*half, *rest]) == ("", [LONG])


@pytest.mark.parametrize("name", FORMS)
def test_a_sure_call_is_told_from_its_name_on(name: str) -> None:
    text = FORMS[name].write([ONE])
    reader = CallReader(FORMS[name], NAMES, is_sure=True)
    (begin, *_) = reader.push(text[: text.index("Rome")])
    assert not isinstance(begin, Content)
    assert begin.name == "get_weather"


def test_a_long_call_that_turns_out_malformed_keeps_what_was_told() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"a": "' + "x" * 1000 + '", ?} and more'
    content, (call,) = read(HERMES, text)
    assert call.arguments + content == text[text.index('{"a"') :]


def test_control_characters_in_a_long_call_stay_in_its_arguments() -> None:
    arguments = '{"code": "' + "a" * 600 + "\nb = 1\n" * 20 + '"}'
    text = '<tool_call>{"name": "add", "arguments": ' + arguments + "}\n</tool_call>"
    assert read(HERMES, text) == ("", [Call("add", arguments)])


@pytest.mark.parametrize("form", [HERMES, MISTRAL, NEW_MISTRAL, PLAIN])
def test_nothing_is_read_beyond_the_last_call_that_there_may_be(form: CallForm) -> None:
    reader = CallReader(form, NAMES, max_calls=1)
    pieces, text = list[Piece](), form.write([ONE, TWO])
    while not reader.is_over:
        pieces += reader.push(text[0])
        text = text[1:]
    content, calls = summed([*pieces, *reader.push("more"), *reader.finish()])
    assert (content, without_ids(calls)) == ("", without_ids([ONE]))


def test_many_blanks_are_not_held() -> None:
    reader = CallReader(HERMES, NAMES)
    assert summed(reader.push("a" + "\n" * 100))[0] == "a" + "\n" * 100


_TEXTS = st.one_of(
    st.sampled_from(
        [
            *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "[", "]"),
            *("{", "}", '"', "\\", ",", ";", " ", "\n", "add", "Hello", "é"),
            *(form.write([ONE]) for form in FORMS.values()),
            *(form.write([TWO]) for form in FORMS.values()),
            HERMES.write([LONG]),
            '<tool_call>{"name": "add", "arguments": {"a": "' + "y" * 600,
        ]
    ),
    st.text(max_size=3),
)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(list(FORMS)),
    parts=st.lists(_TEXTS, max_size=6),
    sure=st.booleans(),
    chance=st.randoms(use_true_random=False),
)
def test_what_is_found_does_not_depend_on_how_the_text_is_cut(
    name: str, parts: list[str], sure: bool, chance: Random
) -> None:
    text = "".join(parts)
    whole = read(FORMS[name], text, sure=sure)
    cuts = sorted(chance.sample(range(len(text) + 1), min(len(text), 12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(FORMS[name], *pieces, sure=sure) == whole
    assert read(FORMS[name], *text, sure=sure) == whole
    if not whole[1]:
        assert whole[0] == text

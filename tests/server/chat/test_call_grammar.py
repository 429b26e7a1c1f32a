"""Grammars of calls allow what the template writes of them, and nothing that is no call."""

import json
from functools import cache
from typing import Any

import pytest
from llguidance import LLMatcher

import tool_templates
from adapters_core.calls.form import Call
from adapters_core.tokens.chats import ChatTemplate
from server.chat.call_grammar import CallGrammar
from server.constraints.grammar import grammar_of
from server.constraints.vocabulary import vocabulary_of

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Köln"]}, "n": {"type": "integer"}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
GOOD = Call("weather", '{"city": "Rome", "n": 3}', "abcdefghi")
OTHER = Call("time_of", '{"city": "Köln", "n": -1}', "abcdefgh2")
BAD = Call("weather", '{"city": "Paris", "n": 3}', "abcdefghi")
UNKNOWN = Call("drop_table", '{"city": "Rome", "n": 3}', "abcdefghi")


@cache
def grammar(name: str, max_calls: int | None = None) -> CallGrammar:
    template = ChatTemplate(tool_templates.tokenizer(name))
    return CallGrammar(template.form, ["weather", "time_of"], template.call_tokens, max_calls)


@cache
def trie(name: str) -> tuple[Any, int]:
    tokenizer = tool_templates.tokenizer(name)
    vocabulary = vocabulary_of(tokenizer, len(tokenizer))
    return vocabulary.trie(), vocabulary.end


def allows(name: str, lark: str, text: str) -> bool:
    """Return whether an answer may be a text and end there."""
    schemas = {f"arguments_{number}": SCHEMA for number in range(2)}
    made = grammar_of("parts", json.dumps({"grammar": lark, "schemas": schemas}))
    tokens, end = trie(name)
    matcher = LLMatcher(tokens, made, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    for token in tool_templates.tokenizer(name)(text, add_special_tokens=False)["input_ids"]:
        if not int.from_bytes(matcher.compute_bitmask(), "little") >> token & 1:
            return False
        matcher.consume_token(token)
    return bool(int.from_bytes(matcher.compute_bitmask(), "little") >> end & 1)


def said(name: str, *calls: Call) -> str:
    return grammar(name).form.write(calls)


@pytest.mark.parametrize("name", tool_templates.TEMPLATES)
def test_required_calls_are_the_templates_and_nothing_else(name: str) -> None:
    lark = grammar(name).required()
    assert allows(name, lark, said(name, GOOD))
    assert allows(name, lark, said(name, OTHER))
    for text in ("", "Hello", said(name, BAD), said(name, UNKNOWN), "So: " + said(name, GOOD)):
        assert not allows(name, lark, text)


@pytest.mark.parametrize("name", [n for n in tool_templates.TEMPLATES if n != "llama"])
def test_several_calls_are_allowed_where_there_may_be_several(name: str) -> None:
    both = said(name, GOOD, OTHER)
    assert allows(name, grammar(name).required(), both)
    assert allows(name, grammar(name).optional(), both)
    assert not allows(name, grammar(name, 1).required(), both)


@pytest.mark.parametrize("name", tool_templates.TEMPLATES)
def test_optional_calls_are_well_formed_wherever_they_begin(name: str) -> None:
    lark = grammar(name).optional()
    for text in ("", "Hello, world.\n", "a <tool_ b", 'say "x": [1]', said(name, GOOD)):
        assert allows(name, lark, text), text
    for text in (said(name, BAD), said(name, UNKNOWN)):
        assert not allows(name, lark, text), text


@pytest.mark.parametrize("name", ["hermes", "mistral", "new mistral", "none"])
def test_calls_that_something_opens_may_stand_amid_text(name: str) -> None:
    lark, call = grammar(name).optional(), said(name, GOOD)
    for text in ("Look:\n" + call, call + "There.", "a " + call + "b " + said(name, OTHER)):
        assert allows(name, lark, text), text
    assert not allows(name, lark, "Look:\n" + said(name, BAD))


@pytest.mark.parametrize("name", ["llama", "plain"])
def test_text_that_begins_like_a_call_that_nothing_opens_is_one(name: str) -> None:
    lark = grammar(name).optional()
    for text in ('{"a": 1}', "[1]", " {", "\n"):
        assert not allows(name, lark, text)
    assert allows(name, lark, "<|python_tag|>" + said(name, GOOD))


@pytest.mark.parametrize("name", tool_templates.TEMPLATES)
def test_an_answer_without_calls_may_have_to_be_of_another_rule(name: str) -> None:
    lark = grammar(name).optional("@arguments_0")
    tag = "" if grammar(name).form.opening else "<|python_tag|>"
    for text in ('{"city": "Rome", "n": 3}', tag + said(name, GOOD)):
        assert allows(name, lark, text)
    for text in ("", "Hello", '{"city": "Paris", "n": 3}', said(name, BAD)):
        assert not allows(name, lark, text)


def test_calls_that_begin_as_json_does_cannot_stand_beside_it() -> None:
    bare = CallGrammar(grammar("plain").form, ["weather"], special={})
    with pytest.raises(ValueError, match="begin as an answer in JSON does"):
        bare.optional("@content")

"""A text is read as any other program would read it, or refused in words; depth is bounded."""

import json
import re
import sys
import time
from typing import Any

import pytest

from adapters_core import strict_json as module
from adapters_core.strict_json import MAX_DEPTH, UnclearJson, nests_deeper, strict_json


def nested(depth: int, opening: str = "[", closing: str = "]", inner: str = "1") -> str:
    return opening * depth + inner + closing * depth


def refused(text: str | bytes, **named: Any) -> UnclearJson:
    with pytest.raises(UnclearJson) as caught:
        strict_json(text, **named)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2.5, null, true, "x", {"b": {}}]}',
        '"text"',
        " [] ",
        json.dumps({"quotes": 'a "quoted" \\ text', "brackets": "[{" * 1000}),
        json.dumps([{"a": "[" * i} for i in range(200)]),
        '"\\ud83d\\ude00"',
        nested(MAX_DEPTH),
        nested(MAX_DEPTH, '{"a":', "}"),
        "[" + ",".join([nested(20)] * 50) + "]",
    ],
    ids=lambda given: given[:30],
)
def test_plain_json_is_read_as_python_reads_it(text: str) -> None:
    assert strict_json(text) == strict_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON: Expecting value at character 1"),
        ("{,}", "is not JSON: Expecting property name enclosed in double quotes at character 2"),
        ('{"a": 1, "a": 1}', "has the key `a` twice in one object"),
        ('[{"b": {"a": 1, "c": 2, "a": 3}}]', "has the key `a` twice in one object"),
        ("[NaN]", "has NaN, which is no number of JSON"),
        ("[-Infinity]", "has -Infinity, which is no number of JSON"),
        ('{"a": 1e999}', "has the number 1e999, which is beyond all doubles"),
        ("[-1E400]", "has the number -1E400, which is beyond all doubles"),
        ("1" * 5000, "has a number of too many digits"),
        ('"\\ud83d"', "has half of a character, '\\ud83d'"),
        (b'{"\xff": 1}', "is not UTF-8 (byte 3)"),
        (nested(MAX_DEPTH + 1), f"is nested too deeply: more than {MAX_DEPTH} levels"),
        (nested(MAX_DEPTH + 1, '{"a":', "}"), "is nested too deeply"),
        ("[" * 1_000_000, "is nested too deeply"),
        ('{"a":[' * 100_000, "is nested too deeply"),
    ],
    ids=lambda given: repr(given)[:30],
)
def test_what_programs_read_differently_is_refused_in_words(text: str | bytes, words: str) -> None:
    assert words in str(refused(text))


def test_a_key_that_stands_twice_is_named_and_cut() -> None:
    assert refused('{"model": "a", "model": "b"}').key == "model"
    assert len(refused(json.dumps({"x" * 500: 1})[:-1] + f', "{"x" * 500}": 2}}').key or "") < 50
    assert refused("{").key is None


@pytest.mark.parametrize("depth", [450, sys.getrecursionlimit() - 50, 100_000])
@pytest.mark.parametrize("around", ["%s", '{"a": [%s]}', '["\\\\", %s]', '["\\"]", %s]'])
def test_depth_is_bounded_wherever_the_brackets_stand(depth: int, around: str) -> None:
    strict_json(around % nested(MAX_DEPTH - 2))
    assert "nested too deeply" in str(refused(around % nested(depth)))
    assert strict_json(json.dumps({"a": nested(depth)})) == {"a": nested(depth)}


@pytest.mark.parametrize(
    "text",
    ['"' + '\\"' * 500_000, '"' + "\\" * 1_000_001, '["' * 500_000],
    ids=["quotes", "backslashes", "strings"],
)
def test_a_text_that_never_closes_a_string_is_refused_in_linear_time(text: str) -> None:
    started = time.process_time()
    refused("[" * 70 + "]" * 70 + text)
    refused("[],{}" * 70 + text)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("depth", [0, 1, 5, 450, 100_000])
def test_the_depth_of_a_value_is_counted_without_recursion(depth: int) -> None:
    value: Any = 1
    for number in range(depth):
        value = {"a": value, "b": 2} if number % 2 else [value, 3]
    assert nests_deeper(value, depth - 1) or depth == 0
    assert not nests_deeper(value, depth)


# Long lists of whole numbers, which are read in pieces

LONG = [number % 1000 for number in range(100_000)]


@pytest.mark.parametrize(
    "value",
    [
        LONG,
        {"a": LONG, "b": [LONG, "x", LONG]},
        [json.dumps(LONG)],  # within a text
        {"a": json.dumps(LONG), "b": LONG},
        {"a": LONG, "b": "-Infinity"},
        [LONG, -1, 1.5, None],
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_long_lists_are_what_the_parser_makes_of_them(value: Any, indent: int | None) -> None:
    assert strict_json(json.dumps(value, indent=indent)) == value


def test_long_lists_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser runs no other thread before its end."""
    longest: list[int] = []
    loads = json.loads

    def counted(text: str, **hooks: Any) -> Any:
        longest.append(len(text))
        return loads(text, **hooks)

    text = json.dumps({"a": LONG})
    monkeypatch.setattr(json, "loads", counted)
    assert strict_json(text) == {"a": LONG}
    assert len(longest) > 2
    assert max(longest) < 2 * module._MANY_CHARS < len(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[%s,]", "is not JSON"),
        ("[%s,,1]", "is not JSON"),
        ("[,%s]", "is not JSON"),
        ("[%s 7]", "is not JSON"),
        ("[07,%s]", "is not JSON"),
        ("[%s", "is not JSON"),
        ("-[%s]", "is not JSON"),
        ("1[%s]", "is not JSON"),
        ("[[%s], NaN]", "has NaN, which is no number of JSON"),
        ("[[%s], -Infinity]", "has -Infinity, which is no number of JSON"),
        ('[{"a": [%s], "a": 1}]', "has the key `a` twice in one object"),
    ],
)
def test_faults_beside_long_lists_are_told_as_the_parser_tells_them(text: str, fault: str) -> None:
    with pytest.raises(UnclearJson, match=re.escape(fault)):
        strict_json(text.replace("%s", ",".join(map(str, LONG))))


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1," * 65_537 + " ]",  # a piece ends at the last comma
        "[" + "1," * 65_537 + " " * 131_073 + ",1]",
        "[" + " " * 131_073 + ",1]",
    ],
)
def test_a_piece_without_a_number_is_not_json(text: str) -> None:
    assert "is not JSON" in str(refused(text))


def test_a_long_list_of_blanks_is_empty() -> None:
    assert strict_json("[" + " " * 200_000 + "]") == []

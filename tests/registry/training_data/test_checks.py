"""Training files are checked to their last line, whatever they are."""

import csv
import io
import json
import struct
import zipfile
from typing import Any, get_args

import pytest

from adapters_core.tokens.messages import ROLES, plain_messages
from registry.training_data import lines as training_lines
from registry.training_data.checks import FileReport, check_lines
from registry.training_data.lines import MAX_FAULTS

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def report(content: bytes) -> FileReport:
    return check_lines(io.BytesIO(content))


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zipped(**files: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def test_every_form_of_example_is_counted() -> None:
    content = lines(
        CHAT, {"prompt": "", "completion": "b"}, {"text": "a"}, {"text": "a", "label": 3}
    )
    found = report(content)
    assert (found.kind, found.num_examples, found.faults) == ("jsonl", 4, ())
    assert found.forms == {"chat": 1, "completion": 1, "text": 1, "label": 1}
    assert not found.faults


def test_a_byte_order_mark_and_blank_lines_are_passed_over() -> None:
    found = report(b"\xef\xbb\xbf" + lines({"text": "a"}) + b"\r\n \n" + lines({"text": "b"}))
    assert (found.num_examples, found.faults) == (2, ())


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b"nope", "is not JSON: Expecting value at character 1"),
        (b"[1]", "is a JSON list, expected an object"),
        (b'{"text": "\xff"}', "is not UTF-8 (byte 11)"),
        (b"{}", "has the fields none; expected `messages`"),
        (b'{"text": ""}', "has an empty `text`"),
        (b'{"text": 1}', "has no text under `text`"),
        (b'{"text": "a", "label": null}', "has the label 'None'"),
        (b'{"text": "a", "label": true}', "has the label 'True'"),
        (b'{"prompt": "a"}', "has no text under `completion`"),
        (b'{"prompt": "a", "completion": ""}', "has an empty `completion`"),
        (b'{"messages": []}', "messages that are no list"),
        (b'{"messages": [{"role": "user"}]}', "number 1, without role and content"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "no message of the role assistant"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"text": "a", "x": ' + b"[" * 450 + b"]" * 450 + b"}", "is nested too deeply"),
        (b'{"text": "a \\uD83D b"}', r"has half of a character, '\ud83d'"),
        (b'{"text": ' + b"1" * 5000 + b"}", "a number of too many digits"),
        (
            b'{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}',
            "has a weight of '2'; 0 and 1 are known",
        ),
        (
            b'{"messages": [{"role": "assistant", "content": "a"}], "tools": [{}]}',
            "has a tool, number 1, that is not",
        ),
        (
            b'{"messages": [{"role": "assistant", "content": "a"}], "functions": [{}]}',
            "has the field `functions`, which is not learned beside `messages`",
        ),
        (b'{"prompt": "a", "completion": "b", "tools": [{}]}', "has the field `tools`"),
        (b'{"text": "a", "text": "b"}', "has the key `text` twice in one object"),
        (
            b'{"messages": [{"role": "assistant", "content": "a", "content": "b"}]}',
            "has the key `content` twice",
        ),
        (b'{"text": "a", "label": NaN}', "has NaN, which is no number of JSON"),
        (b'{"text": "a", "label": -Infinity}', "has -Infinity, which is no number"),
        (b'{"text": "a", "id": 3}', "has the field `id`, which is not learned beside `text`"),
        (b'{"text": "a", "label": 1, "text_pair": "b"}', "texts are read one by one"),
        (b'{"prompt": "a", "completion": "b", "weight": 0}', "on a message of the assistant"),
        (b'{"prompt": "a", "completion": "b", "text": "c"}', "the field `text`"),
        (
            b'{"messages": [{"role": "assistant", "content": "a"}], "prompt": "b"}',
            "has the field `prompt`, which is not learned beside `messages`",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_number(row: bytes, words: str) -> None:
    found = report(lines({"text": "a"}) + b"\n" + row + b"\n" + lines({"text": "b"}))
    (fault,) = found.faults
    assert fault.line == 3
    assert words in fault.message
    assert found.num_examples == 2
    assert found.faults


def said(*messages: dict[str, Any]) -> str:
    found = report(lines({"text": "a"}, {"messages": list(messages)}))
    assert all(fault.line == 2 for fault in found.faults)
    return found.shown()


USER = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "b", "tool_call_id": "c"}
TOOL = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {}}}
OTHER = {"name": "g", "arguments": "{}"}
BAD = {"name": "f", "arguments": "{"}


def called(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages), "tools": [TOOL]}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, "has a call of 'f' in"),
        ({**ANSWER, "tool_calls": [CALL]}, "3, which is no function in `tools`"),
        ({**ANSWER, "tool_calls": 7}, "has `tool_calls` in message 3 that are no list"),
        ({**ANSWER, "tool_calls": ["f"]}, "has a call in message 3 that is not"),
        ({**ANSWER, "tool_calls": [{**CALL, "type": "custom"}]}, "has a call in message 3"),
        ({**ANSWER, "tool_calls": [{**CALL, "function": {"name": "f"}}]}, "has a call in"),
        ({**USER, "tool_calls": [CALL]}, "has `tool_calls` in message 3, of the role user"),
        ({**USER, "tool_call_id": "c"}, "has `tool_call_id` in message 3, of the role user"),
        ({**USER, "refusal": "no"}, "has `refusal` in message 3, of the role user"),
        ({**ANSWER, "function_call": {"name": "f"}}, "has `function_call` in message 3"),
        ({"role": "tool", "content": "b", "tool_call_id": "c"}, "'c' is the id of no call"),
        ({"role": "tool", "content": None, "tool_call_id": "c"}, "has null as `content`"),
        ({"role": "tool", "content": "b", "tool_call_id": 7}, "has a `tool_call_id` in message 3"),
        ({"role": "ipython", "content": "b"}, "served are system, developer, user, assistant"),
        ({"role": "assistant", "content": None}, "has null as `content` of message 3"),
        ({"role": "assistant", "content": 7}, "has 7 as `content` of message 3"),
        ({"role": "assistant", "content": ""}, "has an empty answer, message 3"),
        ({"role": "assistant", "content": []}, "has an empty answer, message 3"),
        ({**ANSWER, "name": 7}, "has a `name` in message 3 that is no text"),
        ({**ANSWER, "thinking": "so"}, "has the field `thinking` in message 3"),
        ({**USER, "weight": 1}, "has a `weight` of 1 on message 3, of the role user"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "a part of type 'image_url'"),
        ({"role": "user", "content": ["a"]}, "a part of type 'a' in `content` of message 3"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "a part without text"),
    ],
)
def test_what_would_be_dropped_of_a_message_is_refused(message: dict[str, Any], words: str) -> None:
    assert words in said(USER, ANSWER, message)


def test_a_chat_whose_answers_all_have_no_weight_teaches_nothing() -> None:
    assert "all its answers have a `weight` of 0" in said(USER, {**ANSWER, "weight": 0})


def test_fields_that_say_nothing_are_passed_over() -> None:
    empty = {"tool_calls": None, "function_call": None, "name": None, "annotations": []}
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    messages = [{**USER, "weight": 0, **empty}, {**ANSWER, "content": parts, **empty, "weight": 1}]
    assert said(*messages) == ""
    assert plain_messages(messages)[1] == {"role": "assistant", "content": "bc"}
    more = {"tools": None, "parallel_tool_calls": False, "metadata": {}}
    assert not report(lines({"messages": messages, **more})).faults
    assert not report(b"text,label,id\na,b,\n").faults


def test_roles_that_are_learned_are_the_ones_that_are_served() -> None:
    from server.api.chat_schemas import Message

    assert get_args(Message.model_fields["role"].annotation) == tuple(ROLES)
    calls = [{**USER, "content": [{"type": "text", "text": "b"}]}, CALLED, RESULT]
    assert not report(lines(called(*calls, ANSWER))).faults
    served = [Message.model_validate(message).given() for message in calls]
    assert plain_messages(served) == plain_messages(calls)


def test_calls_of_the_chats_own_tools_are_learned() -> None:
    assert not report(lines(called(USER, CALLED, RESULT, ANSWER))).faults
    assert not report(lines(called(USER, CALLED))).faults
    unasked = {**CALLED, "weight": 0, "tool_calls": [{**CALL, "function": OTHER}]}
    assert not report(lines(called(USER, unasked, RESULT, ANSWER))).faults
    one = json.dumps([USER, CALLED]), json.dumps([TOOL])
    table = io.StringIO()
    csv.writer(table).writerows([("messages", "tools"), one, (json.dumps([USER, ANSWER]), "")])
    assert report(table.getvalue().encode()).forms == {"chat": 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tools": {}}, "has a call of 'f' in message 2, which is no function in `tools`"),
        ({"tools": 7}, "has `tools` that are no list"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name: 'f' is the name of two functions"),
        ({"tools": [{**TOOL, "type": "custom"}]}, "has a tool, number 1, that is not"),
        ({"tools": [{**TOOL, "extra": 1}]}, "has a tool, number 1, that is not"),
        ({"tools": [{"function": {"name": "f g"}}]}, "has a tool, number 1, that is not"),
        ({"tools": [{"function": {"name": "f", "x": 1}}]}, "has a wrong field `x` in tool 1"),
        ({"tools": [{"function": {"name": "f", "parameters": []}}]}, "field `parameters` in tool"),
        ({"parallel_tool_calls": "no"}, "has 'no' as `parallel_tool_calls`"),
        (
            {
                "messages": [USER, {**CALLED, "tool_calls": [CALL, {**CALL, "id": "d"}]}],
                "parallel_tool_calls": False,
            },
            "has an answer of several calls beside `parallel_tool_calls` of false",
        ),
        (
            {"messages": [USER, {**CALLED, "tool_calls": [{**CALL, "function": BAD}]}]},
            "messages[1].tool_calls[0].function.arguments: the text is ",
        ),
    ],
)
def test_calls_that_would_be_served_otherwise_are_refused(
    changes: dict[str, Any], words: str
) -> None:
    assert words in report(lines(called(USER, CALLED) | changes)).shown()


def test_the_first_ten_faults_are_told_and_no_more_is_read() -> None:
    found = report(lines({"text": "a"}) + b"x\n" * 50 + lines({"text": "b"}))
    assert [fault.line for fault in found.faults] == list(range(2, 12))
    assert found.num_examples == 1
    assert found.shown().startswith("line 2: is not JSON")
    assert found.shown().endswith(f"(the first {MAX_FAULTS}; there may be more)")


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_lines, "MAX_LINE_BYTES", 100)
    (fault,) = report(lines({"text": "a"}) + b'{"text": "' + b"x" * 10_000).faults
    assert (fault.line, fault.message[:22]) == (2, "has more than 100 byte")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"text,label\n"])
def test_an_empty_file_is_refused(content: bytes) -> None:
    (fault,) = report(content).faults
    assert (fault.line, str(fault)) == (0, "the file holds no example")


def test_a_table_is_read_by_its_header_and_over_several_lines() -> None:
    found = report(b'text,label\n"a\nb",x\nc,y\n')
    assert (found.kind, found.forms, found.faults) == ("csv", {"label": 2}, ())
    chats = report(b'messages\n"[{""role"": ""assistant"", ""content"": ""a""}]"\n')
    assert (chats.forms, chats.faults) == ({"chat": 1}, ())


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"hello world\n", 1, "has the columns `hello world`; expected"),
        (b"text,text\n", 1, "stand twice"),
        (b'text\n"a\nb"\nc,d\n', 4, "has 2 columns, the header 1"),
        (b'text\n"a', 2, "is not CSV"),
        (b"text\n, \n\n b,c\n", 4, "has 2 columns"),
        (b'messages\n"[{"\n', 2, "has a text under `messages` that is not JSON"),
        (b"text\na\n\xff\n", 3, "is not UTF-8"),
        (
            b'messages\n"[{""role"": ""a"", ""role"": ""b""}]"\n',
            2,
            "has a text under `messages` that has the key `role` twice",
        ),
        (b"\x89PNG\r\n\x1a\n", 1, "is not UTF-8"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(content: bytes, line: int, words: str) -> None:
    (fault,) = report(content).faults
    assert fault.line == line
    assert words in fault.message


def test_images_are_labelled_by_folders_or_by_a_table() -> None:
    folders = report(zipped(**{"cat/1.png": "x", "dog/2.jpg": "y", "__MACOSX/x": ""}))
    assert (folders.kind, folders.forms, folders.faults) == ("images", {"image": 2}, ())
    table = report(zipped(**{"labels.csv": "file,label\n1.png,cat\n", "1.png": "x"}))
    assert (table.num_examples, table.faults) == (1, ())


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"1.png": "x"}, "the zip holds '1.png'; expected images as LABEL/NAME.png"),
        ({"labels.csv": "file,label\n2.png,cat\n"}, "line 2: of labels.csv names '2.png'"),
        ({"labels.jsonl": "{}\n"}, "line 1: of labels.jsonl has no file and label"),
        ({"labels.jsonl": "x\n"}, "line 1: of labels.jsonl is not JSON"),
    ],
)
def test_a_wrong_zip_says_what_is_wrong(files: dict[str, str], words: str) -> None:
    assert words in report(zipped(**files)).shown()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"train/cat/1.png": "x", "test/cat/2.png": "y"},
            "folders of labels in 'test' and 'train'; upload two files",
        ),
        ({"cat/1.png": "x", "more/dog/2.png": "y"}, "in 'the top' and 'more'"),
        ({"train/1.png": "x", "Test/2.png": "y"}, "'Test' and 'train' are parts of a data set"),
        ({"cat/1.png": "x", "dog/1.png": "x"}, "'dog/1.png' are the same image with the labels"),
        ({"cat/1.png": "x", "dog/more.zip": "y"}, "the zip holds 'dog/more.zip'; expected images"),
        ({"/1.png": "x"}, "the zip holds '/1.png'"),
        ({"labels.csv": "file,label\n", "labels.jsonl": ""}, "labels.jsonl and labels.csv; keep"),
        (
            {"labels.csv": "file,label\n1.png,a\n", "1.png": "x", "2.png": "y"},
            "the zip holds '2.png', which labels.csv gives no label",
        ),
        (
            {"labels.csv": "file,label\n1.png,a\n1.png,b\n", "1.png": "x"},
            "line 3: of labels.csv names '1.png' for the second time",
        ),
        (
            {"labels.jsonl": '\n{"file": "1.png", "label": "a", "label": "b"}\n', "1.png": "x"},
            "line 2: of labels.jsonl has the key `label` twice",
        ),
        ({"labels.csv": "file,label,label\n1.png,a,b\n", "1.png": "x"}, "labels.csv is no CSV"),
        ({"labels.csv": "file,label\n1.png,\n", "1.png": "x"}, "line 2: of labels.csv has no"),
    ],
)
def test_a_zip_that_could_mean_two_things_is_refused(files: dict[str, str], words: str) -> None:
    assert words in report(zipped(**files)).shown()


def test_labels_that_are_no_utf8_are_refused_not_changed() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("1.png", "x")
        archive.writestr("labels.csv", "file,label\n1.png,caf\xe9\n".encode("latin-1"))
    assert "line 2: of labels.csv is not UTF-8" in report(made.getvalue()).shown()


def test_a_name_that_stands_twice_in_a_zip_is_refused() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("cat/1.png", "x")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cat/1.png", "y")
    assert "the zip holds 'cat/1.png' twice" in report(made.getvalue()).shown()


def test_zips_that_mean_one_thing_are_read() -> None:
    one_more = zipped(**{"pets/cat/1.png": "x", "pets/dog/2.png": "y", "pets/dog/.DS_Store": ""})
    assert report(one_more).forms == {"image": 2}
    alike = zipped(**{"cat/1.png": "x", "cat/2.png": "x", "dog/3.png": "y"})
    assert report(alike).forms == {"image": 3}
    table = {"labels.csv": "\ufefffile,label\r\n1.png,a\r\n\r\n", "1.png": "x", "README": "z"}
    assert report(zipped(**table)).forms == {"image": 1}


def test_comparing_images_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.training_data.zips._MAX_COMPARED_BYTES", 3)
    assert not report(zipped(**{"cat/1.png": "xx", "dog/1.png": "xx"})).faults
    assert report(zipped(**{"cat/1.png": "x", "dog/1.png": "x"})).faults


def test_half_a_zip_is_refused() -> None:
    whole = zipped(**{"cat/1.png": "x" * 1000})
    assert "not a whole zip" in report(whole[: len(whole) // 2]).shown()
    assert "not a whole zip" in report(b"PK\x03\x04" + b"x" * 100).shown()


def test_a_zip_whose_directory_would_fill_the_memory_is_refused_unread() -> None:
    whole = bytearray(zipped(**{"cat/1.png": "x"}))
    struct.pack_into("<L", whole, len(whole) - 22 + 12, 1 << 30)
    assert "directory claims 1073741824 bytes" in report(bytes(whole)).shown()


def test_others_get_on_while_a_long_file_is_read() -> None:
    paused = []
    check_lines(io.BytesIO(lines(*[{"text": "a"}] * 640)), pause=lambda: paused.append(1))
    assert len(paused) == 10

"""Training files are checked to their last line, whatever they are."""

import io
import json
import struct
import zipfile
from typing import Any

import pytest

from registry import training_lines
from registry.training_data import FileReport, check_lines
from registry.training_lines import MAX_FAULTS

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
    assert found.is_valid


def test_a_byte_order_mark_and_blank_lines_are_passed_over() -> None:
    found = report(b"\xef\xbb\xbf" + lines({"text": "a"}) + b"\r\n \n" + lines({"text": "b"}))
    assert (found.num_examples, found.is_valid) == (2, True)


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
        (b'{"text": "a \\uD83D b"}', r"has half of a character, '\ud83d'"),
        (b'{"text": ' + b"1" * 5000 + b"}", "a number of too many digits"),
        (
            b'{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}',
            "has a weight of '2'; 0 and 1 are known",
        ),
        (
            b'{"messages": [{"role": "assistant", "content": "a"}], "tools": [{}]}',
            "has `tools`; chats with functions are not taken",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_number(row: bytes, words: str) -> None:
    found = report(lines({"text": "a"}) + b"\n" + row + b"\n" + lines({"text": "b"}))
    (fault,) = found.faults
    assert fault.line == 3
    assert words in fault.message
    assert found.num_examples == 2
    assert not found.is_valid


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
        (b'messages\n"[{"\n', 2, "has `messages` that are no JSON"),
        (b"text\na\n\xff\n", 3, "is not UTF-8"),
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

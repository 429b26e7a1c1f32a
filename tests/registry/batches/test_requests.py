"""A batch's file is refused line by line, with the line's number and a code."""

import io
import json

import pytest

from batches_made import lines, request
from registry.batches.requests import MAX_ID_CHARS, BatchRequest, check_requests, requests_of


def checked(*objects, max_requests=1000):
    return check_requests(io.BytesIO(lines(*objects)), max_requests)


def test_a_good_file_is_counted_with_its_endpoint():
    found = checked(*map(request, range(3)))

    assert (found.num_requests, found.endpoint, found.faults) == (3, "/v1/completions", ())
    assert found.shown() == ""


def test_blank_lines_are_no_requests_and_lines_are_counted_with_them():
    stream = io.BytesIO(lines(request(0), "", "  ", request(1)))

    assert [(number, line) for number, line, _ in requests_of(stream)] == [(0, 1), (1, 4)]


BAD = {
    "invalid_json_line": '{"custom_id": "1", ',
    "missing_required_parameter": {"custom_id": "1", "method": "POST", "body": {}},
    "unsupported_parameter": {**request(1), "priority": 3},
    "invalid_custom_id": {**request(1), "custom_id": 7},
    "invalid_method": {**request(1), "method": "GET"},
    "invalid_url": {**request(1), "url": "/v1/images"},
    "invalid_body": {**request(1), "body": []},
    "mismatched_url": request(1, "/v1/embeddings"),
    "duplicate_custom_id": request(0),
}


@pytest.mark.parametrize("code", BAD)
def test_what_is_wrong_is_named_with_its_line(code):
    found = checked(request(0), BAD[code], request(2))

    (fault,) = found.faults
    assert (fault.code, fault.line) == (code, 2)
    assert found.shown() == f"line 2: {fault.message}"


def test_a_duplicate_names_the_first_line_of_the_custom_id():
    (fault,) = checked(request(0), request(1), request(0)).faults

    assert fault.message == "has the custom_id 'request-0' of line 1"
    assert fault.param == "custom_id"


def test_streams_are_refused_by_name():
    (fault,) = checked(request(0, stream=True)).faults

    assert (fault.code, fault.param) == ("unsupported_parameter", "body.stream")
    assert not checked(request(0, stream=False)).faults


@pytest.mark.parametrize("custom_id", ["", "x" * (MAX_ID_CHARS + 1), None, True])
def test_a_custom_id_is_a_text_of_limited_length(custom_id):
    (fault,) = checked({**request(0), "custom_id": custom_id}).faults

    assert fault.code == "invalid_custom_id"


def test_too_many_requests_are_seen_at_the_first_that_is_too_many():
    assert not checked(*map(request, range(5)), max_requests=5).faults
    (fault,) = checked(*map(request, range(7)), max_requests=5).faults

    assert fault.line == 6
    assert "more than 5 requests" in fault.message


def test_at_most_ten_faults_are_told():
    found = checked(*["no"] * 30)

    assert [fault.line for fault in found.faults] == list(range(1, 11))
    assert "there may be more" in found.shown()


def test_an_empty_file_holds_no_request():
    (fault,) = checked().faults

    assert (fault.code, fault.line) == ("empty_file", None)
    assert checked("", "").faults == (fault,)


def test_the_check_lets_others_run():
    pauses = []
    stream = io.BytesIO(lines(*map(request, range(200))))
    check_requests(stream, 1000, lambda: pauses.append(1))

    assert len(pauses) >= 3


def test_a_request_is_read_as_it_was_checked():
    line = json.dumps(request("é", temperature=0)).encode()

    read = BatchRequest.read(line)

    assert (read.custom_id, read.url) == ("request-é", "/v1/completions")
    assert read.body == {"model": "tiny", "prompt": "Once é", "temperature": 0}

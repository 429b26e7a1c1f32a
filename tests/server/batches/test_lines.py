"""Lines of a batch's results are lines for every reader."""

import json

from registry.batches.requests import BatchRequest
from server.batches.lines import answered
from server.batches.request_answer import Outcome

TEXT = "one\u2028two\x85three\u2029four\nfive"


def test_an_answer_with_other_ends_of_lines_is_one_line() -> None:
    request = BatchRequest("first", "/v1/completions", {})
    line = answered(0, request, Outcome(200, {"text": TEXT})).line.decode()
    (one,) = line.splitlines()
    assert json.loads(one)["response"]["body"] == {"text": TEXT}

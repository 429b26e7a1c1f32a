"""The lines of a batch's results, in OpenAI's shapes."""

import uuid
from collections.abc import Mapping
from typing import Any

from registry import Answered
from registry.batches.requests import BatchRequest
from server.api.json_answer import one_line, pieces_of
from server.batches.request_answer import Outcome

EXPIRED = ("batch_expired", "the request was not run before the batch's time was over")


def answered(number: int, request: BatchRequest, outcome: Outcome) -> Answered:
    """Return the line of a request that was run: of the answers, or of the failed ones."""
    response = {
        "status_code": outcome.status,
        "request_id": uuid.uuid4().hex,
        "body": outcome.body,
    }
    line = _line(request.custom_id, response, None)
    return Answered(number, "output" if outcome.is_good else "error", line)


def not_run(number: int, custom_id: str, code: str, message: str) -> Answered:
    """Return the line of a request that was not run."""
    return Answered(number, "error", _line(custom_id, None, {"code": code, "message": message}))


def _line(
    custom_id: str, response: Mapping[str, Any] | None, error: Mapping[str, str] | None
) -> bytes:
    identity = f"batch_req_{uuid.uuid4().hex}"
    given = {"id": identity, "custom_id": custom_id, "response": response, "error": error}
    return one_line(b"".join(pieces_of(given)).decode()).encode()

"""The lines of a batch's file: one request each, checked without a base. Pure.

    {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": …}}

What a body holds is checked when its request is run: a fault in it is that request's answer. What
is wrong here is a fault of the file, and a batch over it fails.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, get_args

from registry.training_data.lines import (
    MAX_FAULTS,
    LineFault,
    Unreadable,
    object_of,
    objects_of,
    shown,
)

Endpoint = Literal[
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/classify",
]
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)

MAX_ID_CHARS = 512
_FIELDS = ("custom_id", "method", "url", "body")
_PAUSE_EVERY = 64


@dataclass(frozen=True)
class RequestFault:
    """What is wrong with a batch or with one line of its file.

    Args:
        code: a stable word for programs.
        message: for people.
        line: counted from 1; None stands for the whole batch.
        param: the field at fault, if one is.
    """

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BadRequest(ValueError):
    """A line is no request that a batch can hold; `fault` says why, without the line's number."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.fault = RequestFault(code, message, None, param)


@dataclass(frozen=True)
class BatchRequest:
    """One request of a batch.

    Args:
        custom_id: the caller's name of it, one of its kind in the file.
        url: the endpoint.
        body: as it would be sent there.
    """

    custom_id: str
    url: str
    body: dict[str, Any]

    @classmethod
    def read(cls, line: bytes) -> "BatchRequest":
        """Return the request of a line.

        Raises:
            BadRequest: it is none.
        """
        try:
            given = object_of(line)
        except ValueError as error:
            raise BadRequest("invalid_json_line", str(error)) from error
        missing = next((name for name in _FIELDS if name not in given), None)
        if missing is not None:
            raise BadRequest("missing_required_parameter", f"has no `{missing}`", missing)
        extra = next((name for name in given if name not in _FIELDS), None)
        if extra is not None:
            known = ", ".join(f"`{name}`" for name in _FIELDS)
            message = f"has the field `{extra[:40]}`; a request has {known}"
            raise BadRequest("unsupported_parameter", message, extra[:40])
        return cls(_custom_id(given), _url(given), _body(given))


def requests_of(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Yield the request's number from 0, its line from 1 and its bytes; blank lines are none.

    Raises:
        Unreadable: a line is too long.
    """
    for number, (line, _, raw) in enumerate(objects_of(stream)):
        yield number, line, raw


@dataclass(frozen=True)
class FileOfRequests:
    """What reading a whole file has shown.

    Args:
        num_requests: its lines that are not blank.
        endpoint: of the first request; None of a file without a good one.
        faults: the first ten, in the file's order.
    """

    num_requests: int
    endpoint: str | None
    faults: tuple[RequestFault, ...]

    def shown(self) -> str:
        """Return the faults as one text; empty if there are none."""
        return shown([LineFault.of(fault.line or 0, fault.message) for fault in self.faults])


def check_requests(
    stream: BinaryIO, max_requests: int, pause: Callable[[], None] = lambda: None
) -> FileOfRequests:
    """Read a batch's file to its end, or to its tenth fault.

    Memory: the longest line, and 16 bytes for each request to find names that stand twice.

    Args:
        stream: seekable, at any place.
        max_requests: that a file may hold.
        pause: called now and then, so that a server's other threads can run meanwhile.
    """
    reading = _Reading(max_requests)
    try:
        for number, line, raw in requests_of(stream):
            if number % _PAUSE_EVERY == _PAUSE_EVERY - 1:
                pause()
            reading.take(line, raw)
            if len(reading.faults) >= MAX_FAULTS:
                break
    except Unreadable as error:
        reading.note(error.line, RequestFault("invalid_json_line", str(error)))
    if not reading.count and not reading.faults:
        reading.note(None, RequestFault("empty_file", "the file holds no request"))
    return FileOfRequests(reading.count, reading.endpoint, tuple(reading.faults))


class _Reading:
    """What was read so far."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._seen: dict[bytes, int] = {}  # digest of a custom_id -> its line
        self.count = 0
        self.endpoint: str | None = None
        self.faults: list[RequestFault] = []

    def take(self, line: int, raw: bytes) -> None:
        """Count one request, and note what is wrong with it."""
        self.count += 1
        if self.count == self._max_requests + 1:
            limit = f"the file holds more than {self._max_requests} requests; split it"
            raise Unreadable(limit, line)
        try:
            request = BatchRequest.read(raw)
            self._check_against_others(line, request)
        except BadRequest as error:
            self.note(line, error.fault)

    def note(self, line: int | None, fault: RequestFault) -> None:
        """Keep a fault."""
        message = LineFault.of(line or 0, fault.message).message
        self.faults.append(RequestFault(fault.code, message, line, fault.param))

    def _check_against_others(self, line: int, request: BatchRequest) -> None:
        self.endpoint = self.endpoint or request.url
        if request.url != self.endpoint:
            message = f"has the url {request.url}, an earlier line {self.endpoint}; a batch has one"
            raise BadRequest("mismatched_url", message, "url")
        key = hashlib.blake2b(request.custom_id.encode(), digest_size=16).digest()
        first = self._seen.setdefault(key, line)
        if first != line:
            message = f"has the custom_id {ascii(request.custom_id[:60])} of line {first}"
            raise BadRequest("duplicate_custom_id", message, "custom_id")


def _custom_id(given: dict[str, Any]) -> str:
    value = given["custom_id"]
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_CHARS:
        message = f"has a custom_id that is no text of 1 to {MAX_ID_CHARS} characters"
        raise BadRequest("invalid_custom_id", message, "custom_id")
    return value


def _url(given: dict[str, Any]) -> str:
    if given["method"] != "POST":
        message = f"has the method {ascii(str(given['method'])[:20])}; only 'POST' is taken"
        raise BadRequest("invalid_method", message, "method")
    url = given["url"]
    if url not in ENDPOINTS:
        known = ", ".join(ENDPOINTS)
        raise BadRequest(
            "invalid_url", f"has the url {ascii(str(url)[:60])}; not one of {known}", "url"
        )
    return str(url)


def _body(given: dict[str, Any]) -> dict[str, Any]:
    body = given["body"]
    if not isinstance(body, dict):
        raise BadRequest("invalid_body", "has a body that is no JSON object", "body")
    if body.get("stream"):
        message = "has `stream: true`; a batch's answers are not streamed, leave it out"
        raise BadRequest("unsupported_parameter", message, "body.stream")
    return body

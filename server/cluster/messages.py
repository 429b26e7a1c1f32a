"""What ingress and replicas send each other, and which headers go no further than one hop."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

RawHeaders = tuple[tuple[bytes, bytes], ...]

#: RFC 9110, 7.6.1; `expect` is answered by the first hop.
_OF_ONE_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
    *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"),
}
#: Of answers: Ray Serve's proxy sends its own, with the id that the request had.
_OF_PROXY = {b"date", b"server", b"x-request-id"}


class ReplicaLost(Exception):
    """The replica has ended, or its server cannot be reached."""


@dataclass(frozen=True)
class Forwarded:
    """A request on its way to a replica.

    Args:
        method: of HTTP.
        target: path and query, as they came.
        headers: without those of one hop.
        body: all of it, or its beginning.
        rest: a `ray.util.queue.Queue` with the pieces that follow, then None; None if none do.
    """

    method: str
    target: str
    headers: RawHeaders
    body: bytes
    rest: Any = None


@dataclass(frozen=True)
class Head:
    """The beginning of an answer; what follows are the body's further bytes."""

    status: int
    headers: RawHeaders
    body: bytes = b""
    is_whole: bool = False

    @property
    def is_stream(self) -> bool:
        """Return whether the body is server-sent events."""
        given = dict(self.headers).get(b"content-type", b"")
        return given.startswith(b"text/event-stream")


def of_request(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Return the headers that go on to a replica."""
    return _without(headers, _OF_ONE_HOP)


def of_answer(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Return the headers that go back to the client."""
    return _without(headers, _OF_ONE_HOP | _OF_PROXY)


def _without(headers: Iterable[tuple[bytes, bytes]], names: set[bytes]) -> RawHeaders:
    return tuple((name, value) for name, value in headers if name.lower() not in names)

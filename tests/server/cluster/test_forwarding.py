"""Forwarding with replicas that are scripted; tests/deploy/test_ray.py has real ones."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from adapters_core.errors import BaseMismatch
from registry import AdapterNotFound
from server.cluster import forwarding
from server.cluster.asked import Asked
from server.cluster.forwarding import Forwarding
from server.cluster.messages import Forwarded, Head, ReplicaLost, of_answer, of_request
from server.errors import InternalError, NotReady, body_of

EVENTS = ((b"content-type", b"text/event-stream; charset=utf-8"),)
ASKED = Asked(None, "support", is_repeatable=True)


def head(status: int = 200, body: bytes = b"{}") -> Head:
    return Head(status, (), body, is_whole=True)


MISMATCH = head(409, json.dumps(body_of(BaseMismatch("another one's"))).encode())


@dataclass
class Bases:
    """Answers by script: each base's are taken in turn, the last one for ever."""

    script: dict[str, list[list[Head | bytes | Exception]]]
    calls: list[tuple[str, str]] = field(default_factory=list)
    closed: int = 0
    cut: int = 0

    async def call(self, base: str, key: str, request: Forwarded) -> AsyncGenerator[Head | bytes]:
        self.calls.append((base, key))
        pieces = self.script[base]
        try:
            for piece in pieces.pop(0) if len(pieces) > 1 else pieces[0]:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        except GeneratorExit:
            self.cut += 1
            raise
        finally:
            self.closed += 1


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_PAUSE_S", 0.0)


def answered(
    bases: Bases, asked: Asked = ASKED, path: str = "/v1/completions", rest: object = None
) -> tuple[int, bytes]:
    """Return status and body of one request's answer."""

    async def run() -> tuple[int, bytes]:
        made = Forwarding(list(bases.script), bases.call)
        answer = await made.answer(asked, Forwarded("POST", f"{path}?a=1", (), b"", rest))
        return answer.head.status, b"".join([piece async for piece in answer.body()])

    return asyncio.run(run())


def test_a_replica_that_is_lost_before_it_answers_is_replaced() -> None:
    bases = Bases({"one": [[ReplicaLost()], [ReplicaLost()], [Head(200, (), b"a"), b"b"]]})
    assert answered(bases) == (200, b"ab")
    assert bases.calls == [("one", "support")] * 3
    assert bases.closed == 3


@pytest.mark.parametrize(
    ("asked", "rest"),
    [(Asked(None, None, is_repeatable=False), None), (ASKED, object())],
)
def test_what_may_have_been_done_is_not_sent_again(asked: Asked, rest: object) -> None:
    bases = Bases({"one": [[ReplicaLost()]]})
    with pytest.raises(InternalError, match="look before you ask again"):
        answered(bases, asked, rest=rest)
    assert len(bases.calls) == 1


def test_replicas_that_are_lost_one_after_the_other_are_not_asked_for_ever() -> None:
    bases = Bases({"one": [[ReplicaLost()]]})
    with pytest.raises(NotReady, match="try again"):
        answered(bases)
    assert len(bases.calls) == bases.closed == 5


@pytest.mark.parametrize(
    ("path", "name", "done"),
    [("/v1/chat/completions", b"", b"data: [DONE]\n\n"), ("/v1/responses", b"event: error\n", b"")],
)
def test_a_stream_that_is_cut_off_ends_with_an_error_event(
    path: str, name: bytes, done: bytes
) -> None:
    bases = Bases({"one": [[Head(200, EVENTS), b"data: {}\n\n", ReplicaLost()]]})
    status, body = answered(bases, path=path)
    assert status == 200
    assert body.startswith(b"data: {}\n\n" + name + b"data: ")
    assert body.endswith(b"\n\n" + done)
    last = body.removesuffix(done).rpartition(b"data: ")[2]
    told = json.loads(last)
    assert told.get("error", told)["code"] == "internal_error"


def test_another_body_that_is_cut_off_fails() -> None:
    with pytest.raises(ReplicaLost):
        answered(Bases({"one": [[Head(200, ()), b"bytes", ReplicaLost()]]}))


def test_an_adapter_of_another_base_is_found_and_remembered() -> None:
    bases = Bases({"one": [[MISMATCH]], "two": [[MISMATCH]], "three": [[head(body=b"3")]]})

    async def run() -> list[int]:
        made = Forwarding(list(bases.script), bases.call)
        request = Forwarded("POST", "/v1/completions", (), b"")
        return [(await made.answer(ASKED, request)).head.status for _ in range(2)]

    assert asyncio.run(run()) == [200, 200]
    assert [base for base, _ in bases.calls] == ["one", "two", "three", "three"]


def test_an_adapter_that_fits_no_base_is_refused_as_a_plain_server_does() -> None:
    bases = Bases({"one": [[MISMATCH]], "two": [[MISMATCH]]})
    assert answered(bases) == (409, MISMATCH.body)
    assert len(bases.calls) == 2


def test_uploads_are_not_tried_on_other_bases() -> None:
    bases = Bases({"one": [[MISMATCH]], "two": [[head()]]})
    assert answered(bases, Asked(None, "support", is_repeatable=False))[0] == 409
    assert len(bases.calls) == 1


@pytest.mark.parametrize(
    ("asked", "base", "key"),
    [
        (Asked("two", "support", True), "two", "support"),
        (Asked(None, "two", True), "two", ""),
        (Asked(None, None, True), "one", ""),
        (Asked("two", "one", True), "two", "one"),
    ],
)
def test_a_request_goes_to_the_base_that_it_names(asked: Asked, base: str, key: str) -> None:
    bases = Bases({"one": [[head()]], "two": [[head()]]})
    answered(bases, asked)
    assert bases.calls == [(base, key)]


def test_a_base_that_is_not_served_is_an_error_with_those_that_are() -> None:
    with pytest.raises(AdapterNotFound, match="no base 'big' here; there are: one, two"):
        answered(Bases({"one": [[head()]], "two": [[head()]]}), Asked("big", None, True))


def test_a_whole_answer_is_read_to_its_end() -> None:
    bases = Bases({"one": [[head()]]})
    assert answered(bases) == (200, b"{}")
    assert (bases.closed, bases.cut) == (1, 0)


def test_headers_of_one_hop_go_no_further() -> None:
    kept = ((b"x-a", b"1"), (b"x-a", b"2"), (b"host", b"h"))
    hop = ((b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"expect", b"100"))
    assert of_request([*kept, *hop]) == kept
    assert of_answer([*kept, *hop, (b"Date", b"d"), (b"Server", b"s")]) == kept

"""The lean HTTP client against bytes cut anywhere, and against real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.lib.stream import Exchange, Wires
from overtone_client import ConnectionFailed, ConnectionLost, InvalidArgument
from toy_http import Answer, answering

EVENTS = [b'{"a":1}', '{"ä":"0\\r\\n"}'.encode(), b"[DONE]"]
STREAM = b"".join(b"data: " + event + b"\n\n" for event in EVENTS)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({min(place, len(data)) for place in places}), len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


@given(st.lists(st.integers(0, 120), max_size=12), st.lists(st.integers(0, 120), max_size=6))
def test_events_are_the_same_however_their_bytes_are_cut(wire: list[int], chunk: list[int]) -> None:
    body = chunked(*[part for part in cut(STREAM, chunk) if part])
    pieces = [(float(at), piece) for at, piece in enumerate(cut(body, wire))]
    exchange = Exchange(0.0, 200, {"transfer-encoding": "chunked"}, pieces)
    assert [data for _, data in exchange.events()] == EVENTS
    times = [at for at, _ in exchange.events()]
    assert times == sorted(times)
    assert exchange.body() == STREAM


def test_comments_are_no_events() -> None:
    body = b": ping\n\n" + STREAM.replace(b"data: [DONE]", b": ping\n\ndata: [DONE]")
    assert [data for _, data in Exchange(0.0, 200, {}, [(1.0, body)]).events()] == EVENTS


def test_an_event_is_complete_when_its_last_byte_is_there() -> None:
    body = STREAM
    exchange = Exchange(0.0, 200, {}, [(1.0, body[:5]), (2.0, body[5:20]), (3.0, body[20:])])
    assert [at for at, _ in exchange.events()] == [2.0, 3.0, 3.0]


@asynccontextmanager
async def wires_to(answer: Answer, closes: bool = False) -> AsyncIterator[Wires]:
    async with answering(answer, closes) as url:
        wires = Wires(url, "key")
        try:
            yield wires
        finally:
            wires.close()


def test_a_connection_is_used_again_and_carries_the_key() -> None:
    asked: list[bytes] = []
    connections: set[int] = set()

    async def answer(head: bytes, number: int) -> bytes:
        asked.append(head)
        connections.add(number)
        if head.startswith(b"POST"):
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(STREAM)
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"

    async def ask() -> list[Exchange]:
        async with wires_to(answer) as wires:
            return [
                await wires.request("POST", "/v1/x"),
                await wires.request("GET", "/v1/y"),
                await wires.request("POST", "/v1/z"),
            ]

    first, second, third = asyncio.run(ask())
    assert len(connections) == 1
    assert [data for _, data in first.events()] == [data for _, data in third.events()] == EVENTS
    assert (second.status, second.body()) == (404, b"hello")
    assert all(b"Authorization: Bearer key\r\n" in head for head in asked)


def test_a_connection_that_breaks_is_an_error_of_its_own() -> None:
    async def answer(head: bytes, number: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nda"

    async def ask() -> None:
        async with wires_to(answer, closes=True) as wires:
            await wires.request("GET", "/")

    with pytest.raises(ConnectionLost):
        asyncio.run(ask())


def test_an_answer_that_is_given_up_ends_its_connection() -> None:
    async def answer(head: bytes, number: int) -> None:
        return None

    async def ask() -> None:
        async with answering(answer) as url:  # which ends only after all connections have
            wires = Wires(url)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wires.request("GET", "/"), 0.05)

    asyncio.run(ask())


def test_no_server_and_no_url_are_told_apart() -> None:
    with pytest.raises(ConnectionFailed, match="overtone serve"):
        asyncio.run(Wires("http://127.0.0.1:1").request("GET", "/"))
    for url in ("ftp://host", "127.0.0.1:8000", "http://"):
        with pytest.raises(InvalidArgument, match="not a server's URL"):
            Wires(url)

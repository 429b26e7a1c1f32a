"""A connection of HTTP/1.1: offers of other protocols, half requests, and answers left unread."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from live import Live
from raw_http import Wire, head, post, wire
from server.process.connection import MAX_HEAD_BYTES
from server.process.http_server import http_config
from server.settings import Settings
from server.telemetry.observer import Observer
from waiting import until

H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
)
WEBSOCKET = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
)
STALL_S = 0.4
BODY = json.dumps({"model": "tiny", "prompt": "Once", "max_tokens": 4, "temperature": 0}).encode()


@dataclass(frozen=True)
class Toy:
    """A server of a toy application."""

    url: str
    server: uvicorn.Server


@contextmanager
def toy(app: Any) -> Iterator[Toy]:
    """A toy application behind the server's own HTTP."""
    config = http_config(
        app, Settings(base="none", client_stall_s=STALL_S), Observer(), lifespan="off"
    )
    server = uvicorn.Server(config)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Toy(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was asked, body and headers."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    told = {"path": scope["path"], "headers": headers, "body": body.decode()}
    text = json.dumps(told).encode()
    length = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture(scope="module")
def echoing() -> Iterator[str]:
    with toy(echo) as made:
        yield made.url


@pytest.fixture
def line(echoing: str) -> Iterator[Wire]:
    with wire(echoing) as made:
        yield made


def split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_an_offer_of_another_protocol_is_answered_in_this_one(
    live: Live, offer: tuple[str, ...]
) -> None:
    expected = live.http.post("/v1/completions", json=json.loads(BODY)).json()["choices"]
    with wire(live.url) as line:
        line.send(post("/v1/completions", line.host, BODY, *offer))
        status, _, told = line.answer()
        assert (status, told.get("choices")) == (200, expected)
        line.send(head("GET", "/health/live", line.host, *offer))
        assert line.answer()[0] == 200
        line.send(post("/v1/completions", line.host, b'{"model": "none"}', *offer))
        assert line.answer()[0] == 400


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_request_with_an_offer_may_come_in_pieces(line: Wire, size: int) -> None:
    body = b"0123456789" * 30
    line.send(*split(post("/first", line.host, body, *H2C), size))
    assert line.answer()[2]["body"] == body.decode()
    framed = b"5\r\nHello\r\n3\r\n, y\r\n0\r\n\r\n"
    chunked = head("POST", "/second", line.host, "Transfer-Encoding: chunked", *H2C)
    line.send(*split(chunked + framed, size))
    told = line.answer()[2]
    assert (told["path"], told["body"]) == ("/second", "Hello, y")


def test_pipelined_requests_with_offers_are_all_answered(line: Wire) -> None:
    line.send(b"".join(post(f"/{i}", line.host, b"x" * i, *H2C) for i in range(2000)))
    for i in range(2000):
        _, _, told = line.answer()
        assert (told["path"], len(told["body"])) == (f"/{i}", i)


def test_only_the_offer_is_taken_out_of_a_head(line: Wire) -> None:
    line.send(post("/a%20b?c=d", line.host, b"x", *WEBSOCKET, "X-Own: one", "X-Own: two"))
    headers = line.answer()[2]["headers"]
    assert headers["connection"] == "keep-alive"
    assert "upgrade" not in headers
    assert headers["x-own"] == "two"
    line.send(post("/", line.host, b"x", "Connection: close, Upgrade", "Upgrade: h2c"))
    status, headers, told = line.answer()
    assert (status, headers["connection"], told["body"]) == (200, "close", "x")
    assert line.is_closed()


def test_connect_is_refused(line: Wire) -> None:
    line.send(head("CONNECT", "elsewhere.example:443", line.host))
    status, _, told = line.answer()
    assert (status, told["error"]["code"]) == (400, "invalid_request")
    assert line.is_closed()


def test_what_is_not_http_has_the_error_body_of_all_errors(line: Wire) -> None:
    line.send(b"GARBAGE\r\n\r\n")
    status, _, told = line.answer()
    assert (status, told["error"]["code"]) == (400, "invalid_request")
    assert line.is_closed()


def test_a_body_that_is_no_http_is_answered_once(line: Wire) -> None:
    line.send(head("POST", "/", line.host, "Transfer-Encoding: chunked") + b"no length\r\n")
    status, _, told = line.answer()
    assert (status, told["error"]["code"]) == (400, "invalid_request")
    assert line.is_closed()


@pytest.mark.parametrize(
    "sent", [b"P", b"POST / HTTP/1.1\r\nHost: x\r\nX-Half", b"GET / HTTP/1.1\r\nHost: x\r\n"]
)
def test_half_a_head_ends_with_408(line: Wire, sent: bytes) -> None:
    line.send(sent)
    status, headers, told = line.answer()
    assert (status, headers["connection"]) == (408, "close")
    assert told["error"]["code"] == "request_timeout"
    assert line.is_closed()


def test_a_head_that_comes_byte_by_byte_ends_with_408(line: Wire) -> None:
    sent = 0
    line.send(b"GET / HTTP/1.1\r\nX: ")
    while line.says_nothing(STALL_S / 8):
        line.send(b"x")
        sent += 1
    assert line.answer()[0] == 408
    assert 4 < sent < 40


def test_the_end_of_a_refused_body_is_not_waited_for() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"0")
        await send({"type": "http.response.start", "status": 401, "headers": [length]})
        await send({"type": "http.response.body", "body": b""})

    with toy(refuse) as made, wire(made.url) as line:
        line.send(head("POST", "/", line.host, "Content-Length: 1000"), b"x")
        assert line.answer()[0] == 401
        while line.says_nothing(STALL_S / 8):
            line.send(b"x")
        assert line.is_closed()


def test_a_second_request_may_wait_for_the_first_ones_answer() -> None:
    """Half of it: while the server answers, nothing is the caller's fault."""
    ask, go = threading.Event(), threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        ask.set()
        await asyncio.to_thread(go.wait, 20)
        await echo(scope, receive, send)

    with toy(slow) as made, wire(made.url) as line:
        second = post("/second", line.host, b"body")
        line.send(head("GET", "/first", line.host) + second[:20])
        assert ask.wait(20)
        assert line.says_nothing(2 * STALL_S)
        go.set()
        assert line.answer()[2]["path"] == "/first"
        line.send(second[20:])
        assert line.answer()[2]["path"] == "/second"


@pytest.mark.parametrize("where", ["head", "trailers"])
def test_headers_without_an_end_are_refused(line: Wire, where: str) -> None:
    many = b"".join(b"X-%d: %s\r\n" % (i, b"x" * 1000) for i in range(300))
    begin = head("POST", "/", line.host, "Transfer-Encoding: chunked")
    line.send(begin[:-2] if where == "head" else begin + b"1\r\nx\r\n0\r\n")
    for part in split(many, MAX_HEAD_BYTES // 4):
        try:
            line.send(part)
        except ConnectionError:
            break  # refused before all was sent
    status, _, told = line.answer()
    assert (status, told["error"]["code"]) == (431, "too_large")
    assert line.is_closed()


def test_what_follows_a_chunked_body_is_not_taken_for_its_headers(line: Wire) -> None:
    begin = head("POST", "/", line.host, "Transfer-Encoding: chunked")
    line.send(begin + b"1\r\nx\r\n0\r\nAuthorization: Bearer of-another\r\n\r\n")
    assert "authorization" not in line.answer()[2]["headers"]


class Endless:
    """An application that sends for as long as it can, and notes its end."""

    def __init__(self) -> None:
        self.over = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(self._until_gone(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
        self.over.set()

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


def test_an_answer_that_is_not_read_is_cut() -> None:
    app = Endless()
    with toy(app) as made, wire(made.url) as line:
        line.send(head("GET", "/", line.host))
        assert app.over.wait(20)


def test_a_reader_that_is_slow_but_reads_is_not_cut() -> None:
    app = Endless()
    with toy(app) as made, wire(made.url) as line:
        line.send(head("GET", "/", line.host))
        num_bytes = 0
        for _ in range(30):
            num_bytes += len(line.socket.recv(1 << 16))
            assert not app.over.wait(STALL_S / 8)
        assert num_bytes > 10_000


def test_the_last_bytes_of_a_closed_connection_are_not_waited_for() -> None:
    """They fit the server's own buffer, so nothing else waits for them to be read."""
    size = 24 << 20

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % size)
        headers = [length, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    with toy(closing) as made, wire(made.url) as line:
        line.send(head("GET", "/", line.host))
        assert not line.says_nothing(20)
        until(lambda: not made.server.server_state.connections)
        assert len(line.rest()) < size


def test_every_request_of_a_lost_connection_is_told_so() -> None:
    """The second one was pipelined behind the first."""
    begun, told = threading.Event(), threading.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        assert scope["state"]["is_gone"]
        told.set()

    with toy(waiting) as made, wire(made.url) as line:
        line.send(head("GET", "/first", line.host) + head("GET", "/second", line.host))
        assert begun.wait(20)
        line.socket.close()
        assert told.wait(20)


def test_a_connection_on_which_nothing_comes_is_an_idle_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.process.http_server._KEEP_ALIVE_S", STALL_S)
    with toy(echo) as made, wire(made.url) as line:
        assert line.is_closed()


@pytest.fixture
def slow(serve: Callable[..., Live]) -> Live:
    return serve(client_stall_s=STALL_S)


def test_half_a_body_ends_with_408_and_counts_as_that(slow: Live) -> None:
    with wire(slow.url) as line:
        line.send(post("/v1/completions", line.host, BODY)[:-1])
        status, headers, told = line.answer()
        assert (status, told["error"]["code"]) == (408, "request_timeout")
        assert headers["x-request-id"]
        assert line.is_closed()
    with wire(slow.url) as line:
        line.send(post("/v1/completions", line.host, BODY + b" " * 100)[:-100])
        while line.says_nothing(STALL_S / 8):
            line.send(b" ")
        assert line.answer()[0] == 408
    until(lambda: sum(slow.codes("/v1/completions").values()) == 2)
    assert slow.codes("/v1/completions") == {"408": 2}


def test_what_never_became_a_request_is_counted(slow: Live) -> None:
    before = slow.codes("unknown")
    with wire(slow.url) as line:
        line.send(b"POST /v1/comp")
        assert line.answer()[0] == 408
    until(lambda: slow.codes("unknown") == before | {"408": before.get("408", 0) + 1})


def test_a_slow_but_honest_upload_arrives(slow: Live) -> None:
    content = b'{"prompt": "a", "completion": "b"}\n' * 200
    form = (
        b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + content
        + b"\r\n--cut--\r\n"
    )
    with wire(slow.url) as line:
        about = ("Content-Type: multipart/form-data; boundary=cut", f"Content-Length: {len(form)}")
        line.send(head("POST", "/v1/files", line.host, *about))
        for part in split(form, len(form) // 12):
            assert line.says_nothing(STALL_S / 4)
            line.send(part)
        status, _, told = line.answer()
        assert (status, told["bytes"]) == (200, len(content))

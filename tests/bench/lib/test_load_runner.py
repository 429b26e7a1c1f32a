"""Open and closed loops against a server that is slow, refuses, lies or goes away."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.lib.load import Lengths, Load, Planned
from bench.lib.load_runner import Ending, Model, Record, Target, closed_loop, connected, open_loop
from bench.lib.summary import ttft
from overtone_client import ConnectionFailed
from toy_http import answering

DIGEST = "sha256:right"
FOUR = Lengths("fixed", (4,))


def requests(rate: float | None = None) -> Iterator[Planned]:
    return Load(1, 0.0, FOUR, FOUR, rate).requests(0)


def event(digest: str, usage: int | None) -> bytes:
    body: dict[str, Any] = {"overtone": {"digest": digest}, "choices": []}
    if usage is not None:
        body["usage"] = {"completion_tokens": usage}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def answer(digest: str = DIGEST, tokens: int = 4) -> bytes:
    events = [event(digest, None)] * tokens + [event(digest, tokens), b"data: [DONE]\n\n"]
    body = b"".join(events)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def refusal(code: str) -> bytes:
    body = json.dumps({"error": {"code": code, "message": "no"}}).encode()
    return b"HTTP/1.1 429 Too Many\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def driven(
    loop: Callable[[Target], Any], reply: bytes | None, open_at_once: list[int] | None = None
) -> Record:
    """Run a loop against a server that gives one reply to all, or none until the loop is over."""
    now_open: set[int] = set()

    async def respond(head: bytes, number: int) -> bytes | None:
        now_open.add(number)
        if open_at_once is not None:
            open_at_once.append(len(now_open))
        if reply is not None:
            now_open.discard(number)
        return reply

    async def run() -> Record:
        async with answering(respond) as url, connected(url, None) as wires:
            target = Target(wires, [Model("a", DIGEST)], 0, timeout_s=0.3)
            record: Record = await loop(target)
            return record

    return asyncio.run(run())


def test_an_open_loop_does_not_wait_for_answers() -> None:
    outstanding: list[int] = []
    ending = Ending(requests=40)
    record = driven(lambda t: open_loop(t, requests(1000.0), 100, ending), None, outstanding)
    assert max(outstanding) == 40
    assert {seen.code for seen in record.seen} == {"timeout"}
    due = [one.at_s for one in itertools.islice(requests(1000.0), 40)]
    assert [seen.due_s for seen in sorted(record.seen, key=lambda s: s.planned.number)] == due


def test_an_open_loop_counts_what_it_drops() -> None:
    outstanding: list[int] = []
    ending = Ending(requests=40)
    record = driven(lambda t: open_loop(t, requests(1000.0), 10, ending), None, outstanding)
    assert max(outstanding) == 10
    assert len(record.seen) + record.dropped == 40
    assert record.dropped == 30


def test_a_closed_loop_keeps_its_callers_and_ends_after_its_requests() -> None:
    outstanding: list[int] = []
    ending = Ending(requests=30)
    record = driven(lambda t: closed_loop(t, requests(), 3, ending), answer(), outstanding)
    assert max(outstanding) <= 3
    assert sorted(seen.planned.number for seen in record.seen) == list(range(30))
    assert all(seen.code is None and len(seen.tokens_s) == 4 for seen in record.seen)
    assert all(0 < ttft(seen) <= seen.done_s - seen.due_s for seen in record.seen)
    assert record.window_s == max(seen.done_s for seen in record.seen)


def test_a_loop_ends_after_its_time() -> None:
    ending = Ending(duration_s=0.2)
    for record in (
        driven(lambda t: closed_loop(t, requests(), 2, ending), answer()),
        driven(lambda t: open_loop(t, requests(200.0), 99, ending), answer()),
    ):
        assert record.seen
        assert all(seen.due_s < 0.2 for seen in record.seen)
        assert record.window_s == 0.2


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (answer("sha256:wrong"), "wrong_adapter"),
        (answer(tokens=3), "wrong_length"),
        (refusal("overloaded"), "overloaded"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "invalid_response"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 5\r\n\r\nhello", "invalid_response"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told(reply: bytes, code: str) -> None:
    record = driven(lambda t: closed_loop(t, requests(), 1, Ending(requests=1)), reply)
    assert [seen.code for seen in record.seen] == [code]


def test_an_error_in_mid_stream_is_that_error() -> None:
    body = event(DIGEST, None) + b'data: {"error":{"code":"internal_error"}}\n\ndata: [DONE]\n\n'
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    record = driven(lambda t: closed_loop(t, requests(), 1, Ending(requests=1)), reply)
    assert [(seen.code, len(seen.tokens_s)) for seen in record.seen] == [("internal_error", 1)]


def test_a_run_ends_when_the_server_has_gone() -> None:
    async def run() -> None:
        async with connected("http://127.0.0.1:1", None) as wires:
            target = Target(wires, [Model("a", DIGEST)], 0)
            await closed_loop(target, requests(), 8, Ending(duration_s=600))

    with pytest.raises(ConnectionFailed, match="the server has gone"):
        asyncio.run(run())

"""Calls that the server is too busy for: which are sent again, after how long, and which not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from overtone_client import (
    AsyncClient,
    Client,
    Draining,
    InvalidArgument,
    NotReady,
    OutOfMemory,
    Overloaded,
    OvertoneError,
    Timeout,
    Unavailable,
)
from overtone_client._requests import Call
from overtone_client._responses import _seconds
from overtone_client._retries import FIRST_S, GREATEST_S, PATIENCE_S, pause_before_retry

RECORD = {"name": "demo", "version": 1, "digest": "sha256:0"}
JOB = {"id": "ftjob-1", "status": "queued", "model": "tiny"}
ASKED = {"model": "demo", "prompt": "x"}


class Busy:
    """A server that refuses some requests before it answers one."""

    def __init__(self, refusals: int, status: int, code: str | None, **headers: str) -> None:
        self.left, self.num_asked = refusals, 0
        self._refusal = {"error": {"message": "busy", "code": code}}
        self._status, self._headers = status, headers
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.num_asked += 1
        self.bodies.append(request.read())
        if self.left:
            self.left -= 1
            return httpx2.Response(self._status, json=self._refusal, headers=self._headers)
        is_job = "fine_tuning" in request.url.path
        return httpx2.Response(200, json=JOB if is_job else RECORD)


def asked(server: Busy, ask: Callable[[Client], Any], **options: Any) -> Any:
    with Client(transport=httpx2.MockTransport(server), **options) as client:
        return ask(client)


def show(client: Client) -> Any:
    return client.show("demo")


def test_a_call_is_sent_again_with_pauses_that_grow(paused: list[float]) -> None:
    assert asked(Busy(2, 503, "registry_unavailable"), show).name == "demo"
    first, second = paused
    assert FIRST_S / 2 <= first <= FIRST_S
    assert FIRST_S <= second <= 2 * FIRST_S


def test_after_the_last_try_the_error_comes(paused: list[float]) -> None:
    server = Busy(9, 429, "overloaded")
    with pytest.raises(Overloaded):
        asked(server, show, max_retries=1)
    assert (server.num_asked, len(paused)) == (2, 1)
    with pytest.raises(Overloaded):
        asked(server, show, max_retries=0)
    assert server.num_asked == 3


def test_the_servers_own_time_is_kept_and_never_undercut(paused: list[float]) -> None:
    asked(Busy(1, 429, "rate_limit_exceeded", **{"Retry-After": "4"}), show)
    assert 4 <= paused[0] <= 5


def test_a_server_that_wants_long_patience_is_left_alone(paused: list[float]) -> None:
    server = Busy(1, 429, "rate_limit_exceeded", **{"Retry-After": str(PATIENCE_S + 1)})
    with pytest.raises(Overloaded):
        asked(server, show)
    assert (server.num_asked, paused) == (1, [])


def test_a_pause_is_drawn_and_bounded() -> None:
    busy, call = Overloaded("busy"), Call("GET", "/v1/models")
    assert pause_before_retry(call, busy, 0, draw=lambda: 0.0) == FIRST_S / 2
    assert pause_before_retry(call, busy, 0, draw=lambda: 1.0) == FIRST_S
    assert pause_before_retry(call, busy, 30, draw=lambda: 1.0) == GREATEST_S


ONCE = [
    Call("POST", "/v1/fine_tuning/jobs"),
    Call("POST", "/v1/batches"),
    Call("POST", "/v1/files"),
    Call("POST", "/v1/keys"),
    Call("POST", "/v1/adapters/poet/rollback"),
    Call("DELETE", "/v1/adapters/poet"),  # a second one's 404 would hide that the first was done
    Call("PUT", "/v1/adapters/poet/aliases/prod", headers={"If-Match": '"3"'}),  # likewise its 412
]
REPEATABLE = [
    Call("GET", "/v1/models"),
    Call("PUT", "/v1/adapters/poet/aliases/prod"),
    Call("PATCH", "/v1/adapters/poet"),
    Call("POST", "/v1/adapters"),
    Call("POST", "/v1/chat/completions"),
    Call("POST", "/v1/adapters/poet/warm"),
]


@pytest.mark.parametrize("call", [*ONCE, *REPEATABLE], ids=lambda call: f"{call.method} {call.url}")
def test_what_may_have_been_done_is_sent_again_only_if_that_does_no_harm(call: Call) -> None:
    for refused in (Overloaded("full"), NotReady("starting"), Draining("going down")):
        assert pause_before_retry(call, refused, 0) is not None  # nothing was done
    for unsure in (OutOfMemory("no memory"), Unavailable("a proxy's page", status=503)):
        assert (pause_before_retry(call, unsure, 0) is not None) == (call in REPEATABLE)
    assert pause_before_retry(call, Unavailable("bad gateway", status=502), 0) is None


def test_a_job_is_not_filed_twice(paused: list[float]) -> None:
    server = Busy(1, 503, "registry_unavailable")
    with pytest.raises(OvertoneError):
        asked(server, lambda client: client.training.create("tiny", "file-1"))
    assert (server.num_asked, paused) == (1, [])


def test_other_errors_come_at_once() -> None:
    for status in (400, 401, 404, 409, 500, 504):
        server = Busy(1, status, None)
        with pytest.raises(OvertoneError):
            asked(server, show)
        assert server.num_asked == 1


def test_health_says_at_once_that_a_server_is_not_ready(paused: list[float]) -> None:
    health = asked(Busy(9, 503, "not_ready"), lambda client: client.health())
    assert (health.is_ready, health.code, paused) == (False, "not_ready", [])


def test_a_server_that_starts_is_waited_for(paused: list[float]) -> None:
    asked(Busy(3, 503, "not_ready"), lambda client: client.wait_until_ready())
    assert len(paused) == 3
    with pytest.raises(Timeout, match=r"not ready after 0 s"):
        asked(Busy(9, 503, "not_ready"), lambda client: client.wait_until_ready(0))
    with pytest.raises(Timeout, match="cannot reach"):
        Client("http://127.0.0.1:9").wait_until_ready(0.2)


def test_an_upload_sends_the_whole_file_again(paused: list[float], folder: Any) -> None:
    server = Busy(1, 429, "overloaded")
    asked(server, lambda client: client.upload(folder, "demo"))
    assert len(paused) == 1
    first, second = (body.partition(b"0123456789")[2] for body in server.bodies)
    assert len(first) == len(second) > 100_000


EVENTS = 'data: {"id": "c", "model": "demo", "choices": [{"text": "Hel"}]}\n\n'


@pytest.mark.parametrize(("refusals", "tries"), [(1, 2), (0, 1)])
def test_a_stream_is_sent_again_before_it_begins_and_never_after(
    paused: list[float], refusals: int, tries: int
) -> None:
    server = Busy(refusals, 429, "overloaded")

    def answer(request: httpx2.Request) -> httpx2.Response:
        refused = server(request)
        if refused.status_code == 429:
            return refused
        own = {"content-type": "text/event-stream"}
        fault = 'data: {"error": {"code": "overloaded", "message": "full"}}\n\n'
        return httpx2.Response(200, text=EVENTS + fault, headers=own)

    said: list[str] = []
    with Client(transport=httpx2.MockTransport(answer)) as client, pytest.raises(Overloaded):
        said += [chunk.text for chunk in client.stream_complete("demo", "x")]
    assert (server.num_asked, len(paused)) == (tries, refusals)


@pytest.mark.anyio
async def test_the_awaited_client_waits_too(paused: list[float]) -> None:
    server = Busy(1, 503, "draining")
    async with AsyncClient(transport=httpx2.MockTransport(server)) as client:
        assert (await client.show("demo")).name == "demo"
    assert len(paused) == 1


def test_negative_retries_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="max_retries"):
        Client(max_retries=-1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, None),
        ("3", 3.0),
        ("-5", 0.0),
        ("inf", None),
        ("soon", None),
        ("Fri, 31 Jul 1998 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms_and_never_below_zero(
    given: str | None, told: float | None
) -> None:
    assert _seconds(given) == told


def test_a_date_in_retry_after_is_that_far_away() -> None:
    then = datetime.now(UTC) + timedelta(seconds=20)
    seconds = _seconds(format_datetime(then, usegmt=True))
    assert seconds is not None
    assert 18 < seconds <= 20

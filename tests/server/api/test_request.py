"""A long body is read and checked beside the event loop, which answers others meanwhile."""

import asyncio
from typing import Any

import pytest

from live import Live
from server.api import request


def test_a_long_body_is_read_beside_the_event_loop(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, on_loop = request._parsed, list[bool]()

    def watched(body: bytes) -> Any:
        on_loop.append(asyncio._get_running_loop() is not None)
        return read(body)

    monkeypatch.setattr(request, "_parsed", watched)
    for size in (10, 100_000):
        body = {"model": "tiny", "prompt": [7] * size, "max_tokens": 1}
        live.http.post("/v1/completions", json=body)
    assert on_loop == [True, False]

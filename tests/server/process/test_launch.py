"""A real server's process: what it accepts it answers at once, whatever it has loaded."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.process.launch import _warn_of_keys
from server.process.listening import open_listener
from server.settings import Settings

ROOT = Path(__file__).parents[3]
#: Serves, and when it is ready says what a collection of garbage would have to look at, and how a
#: request is answered that offers h2c.
PROGRAM = """
import gc, json, os, signal, socket, sys
from server.process.launch import launch
from server.process.listening import open_listener
from server.settings import read_settings

listener = open_listener("127.0.0.1", 0)

def ask():
    head = "POST /v1/completions HTTP/1.1|Host: localhost|Content-Type: application/json|"
    head += "Connection: Upgrade, HTTP2-Settings, close|Upgrade: h2c|HTTP2-Settings: AAMAAABk|"
    body = json.dumps({"model": "base", "prompt": "Once", "max_tokens": 2})
    head += "Content-Length: %d||" % len(body)
    with socket.create_connection(listener.getsockname()) as line:
        line.sendall((head.replace("|", "\\r\\n") + body).encode())
        return line.makefile("rb").read(12).decode()

def on_ready(service):
    seen = {"kept": gc.get_freeze_count(), "seen": len(gc.get_objects())}
    print(json.dumps({**seen, "h2c": ask()}), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(launch(read_settings(**json.loads(sys.argv[1])), on_ready, [listener]))
"""


def test_small_answers_do_not_wait_for_each_other() -> None:
    """Nagle's algorithm would hold a token back until the one before is acknowledged: 40 ms."""

    async def nodelay() -> int:
        listener = open_listener("127.0.0.1", 0)
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own: socket.socket = writer.get_extra_info("socket")
            accepted.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(on_connection, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            found = await accepted
            writer.close()
            await writer.wait_closed()
        return found

    assert asyncio.run(nodelay()) != 0


@pytest.fixture(scope="module")
def found(
    base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What `PROGRAM` says."""
    data = tmp_path_factory.mktemp("launched")
    words = {"base": str(base_folder("llama")), "base_name": "base", "data": str(data)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.timeout(120)
def test_no_collection_of_garbage_goes_through_what_the_server_keeps_to_its_end(
    found: dict[str, Any],
) -> None:
    """It would stop all threads for a quarter of a second, in the middle of other answers."""
    assert found["kept"] > 100_000
    assert found["seen"] < found["kept"] / 10


@pytest.mark.timeout(120)
def test_a_request_that_offers_h2c_is_answered(found: dict[str, Any]) -> None:
    assert found["h2c"] == "HTTP/1.1 200"


@pytest.mark.parametrize(("keys", "num_nameless"), [("a=1,a=2", 0), ("s3cret,s4cret", 2), ("", 0)])
def test_a_start_warns_of_keys_without_a_name_and_shows_none(
    keys: str, num_nameless: int, caplog: pytest.LogCaptureFixture
) -> None:
    _warn_of_keys(Settings(base="x", api_keys=keys))  # type: ignore[arg-type]
    told = [each.message for each in caplog.records if "no name" in each.message]
    assert len(told) == (num_nameless > 0)
    assert not num_nameless or f"{num_nameless} of 2 API keys have no name" in told[0]
    assert "cret" not in caplog.text


def test_a_start_warns_of_several_tenants_keys_that_may_do_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _warn_of_keys(Settings(base="x", api_keys="alice=s3cret,alice=s4cret"))  # type: ignore[arg-type]
    assert not caplog.records
    _warn_of_keys(Settings(base="x", api_keys="alice=s3cret,bob=s4cret"))  # type: ignore[arg-type]
    assert "keys of 2 tenants, and each of them may make" in caplog.text
    assert "cret" not in caplog.text

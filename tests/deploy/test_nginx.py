"""deploy/nginx before small servers: where requests go, and which are handed on."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest

from .nginx import running_nginx

pytestmark = pytest.mark.nginx
NAMES = [f"adapter-{number}" for number in range(40)]


class Backend(ThreadingHTTPServer):
    """Answers with its own port and what it got, or with the status that it is set to."""

    status = 200
    breaks = False
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Backend

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.bodies.append(body)
        if self.server.breaks:
            self.close_connection = True
            return
        self.send_response(self.server.status)
        answer = json.dumps({"port": self.server.server_port, "path": self.path}).encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *_: object) -> None: ...


@contextmanager
def backend() -> Iterator[Backend]:
    with Backend() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[httpx2.Client, list[Backend]]]:
    """Give a client of nginx and the three servers behind it."""
    with ExitStack() as stack:
        servers = [stack.enter_context(backend()) for _ in range(3)]
        url = stack.enter_context(running_nginx([s.address for s in servers], tmp_path))
        yield stack.enter_context(httpx2.Client(base_url=url, trust_env=False)), servers


def port_of(client: httpx2.Client, model: Any, **headers: str) -> int:
    body = {"model": model, "prompt": "Once"}
    answer = client.post("/v1/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["path"] == "/v1/completions"
    port: int = answer.json()["port"]
    return port


def test_an_adapter_has_one_server_and_all_servers_have_adapters(scene: Any) -> None:
    client, servers = scene
    ports = {name: port_of(client, name) for name in NAMES}
    assert set(ports.values()) == {server.server_port for server in servers}
    assert {name: port_of(client, f"{name}@prod") for name in NAMES} == ports
    fixed = {"X-Overtone-Adapter": NAMES[0]}
    assert {port_of(client, name, **fixed) for name in NAMES} == {ports[NAMES[0]]}
    paths = {name: client.get(f"/v1/adapters/{name}/versions").json()["port"] for name in NAMES}
    assert paths == ports


@pytest.mark.parametrize("model", ["demo", 7, None])
def test_the_base_and_what_names_no_model_go_to_all(scene: Any, model: Any) -> None:
    client, servers = scene
    assert len({port_of(client, model) for _ in range(40)}) == len(servers)


def test_bodies_arrive_as_they_are_also_what_is_no_json(scene: Any) -> None:
    client, servers = scene
    big = json.dumps({"model": "a", "prompt": "x" * 3_000_000}).encode()
    for body in (big, b"{", b"null", b"[]", b""):
        assert client.post("/v1/chat/completions", content=body).status_code == 200
    assert {big, b"{", b"null", b"[]", b""} == {b for s in servers for b in s.bodies}
    assert client.post("/v1/completions", content=b" " * 9_000_000).status_code == 413


@pytest.mark.parametrize("status", [429, 503])
def test_what_a_server_refuses_another_one_answers(scene: Any, status: int) -> None:
    client, servers = scene
    servers[0].status = status
    ports = {port_of(client, name) for name in NAMES}
    assert ports == {server.server_port for server in servers[1:]}
    for server in servers:
        server.status = status
    answer = client.post("/v1/completions", json={"model": "a"})
    assert answer.status_code == status  # the server's own, not one of nginx


def test_uploads_are_not_sent_twice_and_generation_is(scene: Any) -> None:
    client, servers = scene
    for server in servers:
        server.breaks = True
    assert client.post("/v1/adapters", content=b"bytes").status_code == 502
    assert [b for s in servers for b in s.bodies] == [b"bytes"]
    assert client.post("/v1/completions", json={"model": "a"}).status_code == 502
    assert sum(len(server.bodies) for server in servers) == 3


def test_a_server_that_is_away_is_passed_over_by_uploads_too(scene: Any) -> None:
    client, servers = scene
    servers[0].shutdown()
    servers[0].socket.close()
    answers = [client.post("/v1/adapters", content=b"bytes") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}

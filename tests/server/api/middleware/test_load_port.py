"""A port for schedulers, which send no key: it has one page."""

from collections.abc import Callable, Iterator

import httpx2
import pytest

from live import Live
from program import free_port

KEY = "a-secret-of-32-characters-or-more"


@pytest.fixture
def ports(serve: Callable[..., Live]) -> Iterator[tuple[httpx2.Client, httpx2.Client]]:
    """A server with keys: clients of its own port and of that for schedulers, neither with one."""
    port = free_port()
    server = serve(load_port=port, api_keys=f"root={KEY}")
    with (
        httpx2.Client(base_url=server.url, trust_env=False) as main,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as load,
    ):
        yield main, load


def test_the_page_needs_no_key_there_and_nothing_else_is_there(
    ports: tuple[httpx2.Client, httpx2.Client],
) -> None:
    main, load = ports
    page = load.get("/metrics/load")
    assert page.status_code == 200
    assert "vllm:lora_requests_info{" in page.text
    assert "overtone_" not in page.text
    for path in ("/", "/metrics", "/health/live", "/v1/models", "/openapi.json"):
        answer = load.get(path, headers={"Authorization": f"Bearer {KEY}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    assert load.post("/metrics/load").status_code == 404


def test_the_servers_own_port_asks_for_a_key_as_before(
    ports: tuple[httpx2.Client, httpx2.Client],
) -> None:
    main, load = ports
    assert main.get("/metrics/load").status_code == 401
    named = {"Host": f"{load.base_url.host}:{load.base_url.port}"}
    assert main.get("/metrics/load", headers=named).status_code == 401
    key = {"Authorization": f"Bearer {KEY}"}
    assert main.get("/metrics/load", headers=key).status_code == 200

"""What can be named as `model`: all of it at once, or page by page, and nothing cut silently."""

from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

import spectra
from adapters_core.format.description import AdapterDescription
from live import Live
from registry import NewVersion, RegistryUnavailable

COUNT = 1203


def publish(server: Live, name: str, number: int) -> None:
    """Write a record as an upload does, without its bytes."""
    base = server.service.base.spec
    description = AdapterDescription(
        digest=f"sha256:{number:064x}",
        method="fourierft",
        method_config={"n": 8},
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        base_verified=True,
        target_modules=tuple(base.targets),
        num_coefficients=8,
        size_bytes=32,
    )
    server.service.registry.adapters.publish(
        NewVersion(name=name, description=description, created_at=1000 + number, created_by="me")
    )


@pytest.fixture(scope="module")
def names() -> list[str]:
    return sorted(f"{'org/' if number % 2 else ''}poet-{number}" for number in range(COUNT))


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live], names: list[str]) -> Live:
    """A server with more adapters than fit one page."""
    started = serve_all()
    for number, name in enumerate(names):
        publish(started, name, number)
    return started


def listed(server: Live, **query: Any) -> dict[str, Any]:
    answer = server.http.get("/v1/models", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    ids = [model["id"] for model in body["data"]]
    assert (body["first_id"], body["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return body | {"ids": ids}


def test_without_parameters_all_models_are_listed_the_base_first(
    server: Live, names: list[str]
) -> None:
    body = listed(server)
    assert body["ids"] == ["tiny", *names]
    assert body["has_more"] is False
    assert body["data"][1] == {
        "id": names[0],
        "object": "model",
        "created": 1000,
        "owned_by": "me",
        "root": "tiny",
        "parent": "tiny",
    }


def test_openais_client_sees_all_models(server: Live, names: list[str]) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["tiny", *names]
        assert client.models.retrieve(names[-1]).id == names[-1]


@pytest.mark.parametrize("limit", [1, 7, 500, 1000])
def test_pages_make_the_whole_list(server: Live, names: list[str], limit: int) -> None:
    whole = ["tiny", *names]
    found: list[str] = []
    after: dict[str, str] = {}
    while limit >= 7 or len(found) < 3:
        page = listed(server, limit=limit, **after)
        found += page["ids"]
        assert found == whole[: len(found)]
        assert page["has_more"] == (len(found) < len(whole))
        if not page["has_more"]:
            break
        assert len(page["ids"]) == limit
        after = {"after": page["last_id"]}
    assert limit < 7 or found == whole


def test_a_list_goes_on_after_any_model(server: Live, names: list[str]) -> None:
    assert listed(server, after="tiny")["ids"] == names
    assert listed(server, after=names[700])["ids"] == names[701:]
    assert listed(server, after=names[700] + "-gone", limit=1)["has_more"] is True
    assert listed(server, after="zzz")["ids"] == []
    assert listed(server, after="zzz", limit=1)["has_more"] is False


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"after": "../x"}]
)
def test_a_bad_query_is_refused(server: Live, query: dict[str, Any]) -> None:
    answer = server.http.get("/v1/models", params=query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_versions_are_listed_all_or_page_by_page(server: Live) -> None:
    for number in range(450):
        publish(server, "grown", 10_000 + number)
    path = "/v1/adapters/grown/versions"

    def numbers(**query: int) -> tuple[list[int], bool]:
        answer = server.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found = [record["version"] for record in body["data"]]
        ends = [str(found[0]), str(found[-1])] if found else [None, None]
        assert [body["first_id"], body["last_id"]] == ends
        return found, body["has_more"]

    assert numbers() == ([*range(1, 451)], False)
    assert numbers(limit=200) == ([*range(1, 201)], True)
    assert numbers(limit=200, after=250) == ([*range(251, 451)], False)
    assert numbers(after=450) == ([], False)
    for query in ({"limit": 0}, {"limit": 1001}, {"after": "x"}, {"after": -1}):
        assert server.http.get(path, params=query).status_code == 400
    assert server.http.get("/v1/adapters/nobody/versions", params={"limit": 3}).status_code == 404
    server.http.delete("/v1/adapters/grown")


def test_a_registry_that_is_away_is_said_before_a_list_begins(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise RegistryUnavailable("the registry does not answer; try again shortly")

    monkeypatch.setattr(server.service.registry.adapters, "list", away)
    answer = server.http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "registry_unavailable")


def test_a_list_that_breaks_off_does_not_look_whole(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = server.service.registry.adapters
    read = adapters.list

    def away_soon(limit: int, after: str | None = None, *more: Any) -> Any:
        if after is not None:
            raise RegistryUnavailable("the registry does not answer; try again shortly")
        return read(limit, after, *more)

    monkeypatch.setattr(adapters, "list", away_soon)
    with pytest.raises(httpx2.RemoteProtocolError):
        server.http.get("/v1/models")
    monkeypatch.undo()
    assert listed(server)["has_more"] is False


def test_a_few_models_are_one_plain_answer(live: Live) -> None:
    live.upload("few", spectra.files(5))
    answer = live.http.get("/v1/models")
    assert "few" in [model["id"] for model in answer.json()["data"]]
    assert int(answer.headers["Content-Length"]) == len(answer.content)

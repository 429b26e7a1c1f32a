"""Versions over REST: aliases, rollback, and what a deleted one leaves."""

import threading
from collections.abc import Callable

import pytest

from adapter_calls import blobs, names, put
from live import Live, error_of
from waiting import until


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Live:
    """A server that starts without any adapter."""
    return serve_all(max_upload_bytes=64 << 10, max_body_bytes=32 << 10)


def test_an_alias_moves_only_from_where_its_caller_saw_it(server: Live) -> None:
    for seed in (1, 2):
        put(server, "moved", seed)
    path = "/v1/adapters/moved/aliases/prod"
    made = server.http.put(path, json={"version": 1})
    assert made.status_code == 200
    etag = made.headers["ETag"]
    assert server.tokens("moved@prod") == server.tokens("moved@1")
    moved = server.http.put(path, json={"version": 2}, headers={"If-Match": etag})
    assert (moved.status_code, moved.json()["version"]) == (200, 2)
    assert moved.headers["ETag"] != etag
    assert server.tokens("moved@prod") == server.tokens("moved@2")
    late = server.http.put(path, json={"version": 1}, headers={"If-Match": etag})
    assert (late.status_code, error_of(late)["code"]) == (412, "precondition_failed")
    assert server.http.get("/v1/adapters/moved").json()["aliases"]["prod"] == 2
    versions = server.http.get("/v1/adapters/moved/versions").json()["data"]
    assert all(version["aliases"]["prod"] == 2 for version in versions)


def test_an_alias_points_only_to_what_is_there(server: Live) -> None:
    put(server, "pointed", 1)
    path = "/v1/adapters/pointed/aliases/"
    assert server.http.put(path + "prod", json={"version": 9}).status_code == 404
    assert server.http.put(path + "latest", json={"version": 1}).status_code == 400
    assert server.http.put(path + "Prod!", json={"version": 1}).status_code == 400
    assert server.http.put(path + "new", json={"version": 1}, headers={"If-Match": "*"}).is_error
    for body in ({"version": "one"}, {"version": 0}, {}, {"version": 1, "more": 2}, [1]):
        assert server.http.put(path + "prod", json=body).status_code == 400
    assert server.http.get("/v1/adapters/pointed").json()["aliases"] == {"latest": 1}


def test_a_rollback_makes_the_version_before_the_latest(server: Live) -> None:
    for seed in (1, 2):
        put(server, "rolled", seed)
    before = server.tokens("rolled")
    answer = server.http.post("/v1/adapters/rolled/rollback")
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert server.tokens("rolled") == server.tokens("rolled@1") != before
    again = server.http.post("/v1/adapters/rolled/rollback")
    assert (again.status_code, error_of(again)["code"]) == (409, "name_conflict")


def test_a_deleted_version_is_gone_and_latest_falls_back(server: Live) -> None:
    for seed in (21, 22):
        put(server, "shrinks", seed)
    server.tokens("shrinks@2")  # known to the server's mirror of names
    held = blobs(server)
    answer = server.http.delete("/v1/adapters/shrinks/versions/2")
    assert answer.json() == {
        "object": "adapter.deleted",
        "name": "shrinks",
        "version": 2,
        "deleted": True,
    }
    assert server.complete("shrinks@2").status_code == 404
    assert server.tokens("shrinks") == server.tokens("shrinks@1")
    assert len(blobs(server)) == len(held) - 2


def test_a_version_with_an_alias_is_in_use(server: Live) -> None:
    put(server, "in-use", 1, alias="prod")
    answer = server.http.delete("/v1/adapters/in-use/versions/1")
    assert (answer.status_code, error_of(answer)["code"]) == (409, "adapter_in_use")
    assert "prod" in error_of(answer)["message"]
    assert server.complete("in-use@prod").status_code == 200


def test_a_running_request_finishes_on_a_deleted_adapter(server: Live) -> None:
    put(server, "leaves", 31)
    alone = server.tokens("leaves", max_tokens=40, ignore_eos=True)
    told: list[list[int]] = []
    ask = threading.Thread(
        target=lambda: told.append(server.tokens("leaves", max_tokens=40, ignore_eos=True))
    )
    with server.paused():
        ask.start()
        until(lambda: server.num_open == 2)
        assert server.http.delete("/v1/adapters/leaves").status_code == 200
        refused = server.complete("leaves")
        assert (refused.status_code, error_of(refused)["code"]) == (404, "model_not_found")
    ask.join(60)
    assert told == [alone]
    assert server.complete("leaves").status_code == 404
    assert "leaves" not in names(server)


def test_a_name_that_comes_back_answers_with_its_new_bytes(server: Live) -> None:
    put(server, "returns", 41)
    before = server.tokens("returns")
    server.http.delete("/v1/adapters/returns")
    record = put(server, "returns", 42)
    assert record["version"] == 2  # a number is never given twice
    assert server.tokens("returns") != before

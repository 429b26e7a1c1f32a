"""Batches over HTTP: every request is answered as at its endpoint, or its line says why not."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

import spectra
from batches_made import lines, request
from live import BASE, Live
from waiting import until

FINAL = ("completed", "failed", "expired", "cancelled")
ENDPOINT = "/v1/completions"


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Iterator[Live]:
    live = serve_all(max_batches=3, max_batch_requests=100, max_batch_file_bytes=1 << 16)
    for i in range(3):
        assert live.upload(f"poet-{i}", spectra.files(i)).status_code == 201
    return live


def upload(live: Live, content: bytes, **headers: str) -> httpx2.Response:
    files = {"file": ("in.jsonl", content, "application/jsonl")}
    return live.http.post("/v1/files", data={"purpose": "batch"}, files=files, headers=headers)


def created(live: Live, content: bytes, endpoint: str = ENDPOINT, **more: Any) -> httpx2.Response:
    file = upload(live, content).json()
    body = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"}
    return live.http.post("/v1/batches", json=body | more)


def at_end(live: Live, id_: str) -> dict[str, Any]:
    def ended() -> Any:
        batch = live.http.get(f"/v1/batches/{id_}").json()
        return batch if batch["status"] in FINAL else None

    found: dict[str, Any] = until(ended)
    return found


def results(live: Live, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    answer = live.http.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def code_of(answer: httpx2.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def test_every_request_is_answered_by_the_adapter_that_it_names(server: Live) -> None:
    names = [BASE, "poet-0", "poet-1@1", "poet-2"]
    fixed = {"max_tokens": 6, "temperature": 0, "return_token_ids": True}
    made = [request(i, model=names[i % 4], **fixed) for i in range(40)]

    batch = created(server, lines(*made), metadata={"who": "me"})
    assert batch.status_code == 200, batch.text
    assert batch.json()["metadata"] == {"who": "me"}
    ended = at_end(server, batch.json()["id"])

    assert ended["status"] == "completed"
    assert ended["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
    assert ended["error_file_id"] is None
    found = results(server, ended["output_file_id"])
    assert [line["custom_id"] for line in found] == [line["custom_id"] for line in made]
    for line, sent in zip(found, made, strict=True):
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        alone = server.http.post(ENDPOINT, json=sent["body"]).json()
        body = line["response"]["body"]
        assert body["model"] == sent["body"]["model"]
        assert body["overtone"]["digest"] == alone["overtone"]["digest"]
        assert body["choices"][0]["token_ids"] == alone["choices"][0]["token_ids"]
    for at in ("created_at", "in_progress_at", "finalizing_at", "completed_at", "expires_at"):
        assert ended[at] > 0
    file = server.http.get(f"/v1/files/{ended['output_file_id']}").json()
    assert (file["purpose"], file["overtone"]["num_requests"]) == ("batch_output", 40)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4},
        ),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 4}),
    ],
)
def test_chats_and_responses_are_answered_too(
    server: Live, url: str, asked: dict[str, Any]
) -> None:
    body = {"model": "poet-0", **asked}
    one = {"custom_id": "chat", "method": "POST", "url": url, "body": body}

    ended = at_end(server, created(server, lines(one), url).json()["id"])

    (line,) = results(server, ended["output_file_id"] or ended["error_file_id"])
    alone = server.http.post(url, json=body)
    assert line["response"]["status_code"] == alone.status_code
    assert line["response"]["body"].keys() == alone.json().keys()


def test_a_request_that_is_wrong_is_a_line_and_not_the_batchs_fault(server: Live) -> None:
    bad = [
        request("unknown", model="nobody"),
        request("hot", temperature=9),
        request("long", prompt="x" * 5000),
        request("odd", sparkle=True),
        request("timed", max_tokens=400, ignore_eos=True, timeout_s=0.001),
    ]
    ended = at_end(server, created(server, lines(request(0), *bad, request(1))).json()["id"])

    assert ended["status"] == "completed"
    assert ended["request_counts"] == {"total": 7, "completed": 2, "failed": 5}
    assert server.metric('overtone_batch_requests_total{outcome="failed"}') >= 5
    assert server.metric('overtone_batches{state="completed"}') >= 1
    good = [line["custom_id"] for line in results(server, ended["output_file_id"])]
    assert good == ["request-0", "request-1"]
    found = results(server, ended["error_file_id"])
    assert [line["custom_id"] for line in found] == [one["custom_id"] for one in bad]
    for line, sent in zip(found, bad, strict=True):
        alone = server.http.post(ENDPOINT, json=sent["body"])
        told, direct = line["response"]["body"]["error"], alone.json()["error"]
        assert (line["response"]["status_code"], told["code"], told["param"]) == (
            alone.status_code,
            direct["code"],
            direct["param"],
        )


def test_a_file_that_is_wrong_fails_the_batch_with_its_lines(server: Live) -> None:
    content = lines(
        request(0), "{", request(0), request(1, "/v1/embeddings"), request(2, stream=True)
    )
    file = upload(server, content).json()
    assert file["status"] == "error"
    assert file["status_details"].startswith("line 2: is not JSON")

    ended = at_end(server, created(server, content).json()["id"])

    assert ended["status"] == "failed"
    assert ended["failed_at"] > 0
    assert [(fault["line"], fault["code"]) for fault in ended["errors"]["data"]] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "mismatched_url"),
        (5, "unsupported_parameter"),
    ]
    assert ended["output_file_id"] is None


def test_a_batch_for_another_endpoint_than_its_file_fails(server: Live) -> None:
    ended = at_end(server, created(server, lines(request(0)), "/v1/chat/completions").json()["id"])

    assert ended["status"] == "failed"
    assert ended["errors"]["data"][0]["code"] == "mismatched_endpoint"


def test_what_is_no_batch_is_refused_by_name(server: Live) -> None:
    file = upload(server, lines(request(0))).json()["id"]
    other = server.http.post(
        "/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", b'{"text": "a"}\n')}
    ).json()["id"]
    good = {"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h"}
    for change, expected in (
        ({"completion_window": "1h"}, (400, "invalid_request", "completion_window")),
        ({"endpoint": "/v1/images"}, (400, "invalid_request", "endpoint")),
        ({"endpoint": "/v1/embeddings"}, (400, "invalid_request", "endpoint")),
        ({"input_file_id": other}, (400, "invalid_request", "input_file_id")),
        ({"input_file_id": "file-" + "0" * 24}, (404, "not_found", None)),
        ({"metadata": {"a": 1}}, (400, "invalid_request", "metadata.a")),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 3600}},
            (400, "unsupported_parameter", "output_expires_after"),
        ),
    ):
        assert code_of(server.http.post("/v1/batches", json=good | change)) == expected
    job = {"model": BASE, "training_file": file}
    answer = server.http.post("/v1/fine_tuning/jobs", json=job)
    assert code_of(answer) == (400, "invalid_request", "training_file")
    answer = server.http.post("/v1/evaluations", json={"model": BASE, "file": file})
    assert code_of(answer) == (400, "invalid_request", "file")


def test_files_have_their_own_limits(server: Live) -> None:
    assert code_of(upload(server, lines(request(0)) * 2000))[:2] == (413, "too_large")
    told = upload(server, lines(*map(request, range(101)))).json()
    assert "more than 100 requests" in told["status_details"]


def test_lists_are_walked_page_by_page(server: Live) -> None:
    made = [created(server, lines(request(i))).json()["id"] for i in range(2)]
    for id_ in made:
        at_end(server, id_)
    first = server.http.get("/v1/batches", params={"limit": 1}).json()
    assert ([one["id"] for one in first["data"]], first["has_more"]) == ([made[1]], True)
    after = {"limit": 1, "after": first["last_id"]}
    assert [one["id"] for one in server.http.get("/v1/batches", params=after).json()["data"]] == [
        made[0]
    ]
    answer = server.http.get("/v1/batches", params={"after": "batch_" + "0" * 24})
    assert code_of(answer)[:2] == (404, "not_found")
    only = server.http.get("/v1/files", params={"purpose": "batch_output"}).json()["data"]
    assert only
    assert {one["purpose"] for one in only} == {"batch_output"}


def test_a_cancelled_batch_keeps_what_is_answered(server: Live) -> None:
    slow = {"max_tokens": 300, "ignore_eos": True}
    made = [request(i, max_tokens=2) for i in range(10)]
    made += [request(i, **slow) for i in range(10, 100)]
    id_ = created(server, lines(*made)).json()["id"]
    until(lambda: _counts(server, id_)["completed"] >= 10)

    told = server.http.post(f"/v1/batches/{id_}/cancel")
    assert told.status_code == 200
    assert told.json()["status"] in ("cancelling", "cancelled")
    ended = at_end(server, id_)

    assert ended["status"] == "cancelled"
    found = results(server, ended["output_file_id"])
    assert 10 <= len(found) == ended["request_counts"]["completed"] < 100
    assert len({line["custom_id"] for line in found}) == len(found)
    assert server.http.post(f"/v1/batches/{id_}/cancel").json() == ended
    until(lambda: server.num_open == 0)


def _counts(live: Live, id_: str) -> dict[str, int]:
    counts: dict[str, int] = live.http.get(f"/v1/batches/{id_}").json()["request_counts"]
    return counts


def test_what_is_over_is_not_cancelled(server: Live) -> None:
    ended = at_end(server, created(server, lines(request(0))).json()["id"])
    answer = server.http.post(f"/v1/batches/{ended['id']}/cancel")
    assert code_of(answer)[:2] == (400, "invalid_request")


def test_a_tenant_has_only_so_many_batches_and_a_file_stays_with_them(server: Live) -> None:
    with server.paused():
        made = [created(server, lines(request(i, max_tokens=2))).json() for i in range(3)]
        refused = created(server, lines(request(9)))
        assert code_of(refused)[:2] == (429, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        answer = server.http.delete(f"/v1/files/{made[0]['input_file_id']}")
        assert code_of(answer)[:2] == (400, "invalid_request")
        assert made[0]["id"] in answer.json()["error"]["message"]
    for one in made:
        assert at_end(server, one["id"])["status"] == "completed"
    assert server.http.delete(f"/v1/files/{made[0]['input_file_id']}").status_code == 200


def test_an_adapter_that_is_deleted_midway_costs_its_own_lines_alone(server: Live) -> None:
    assert server.upload("short-lived", spectra.files(9)).status_code == 201
    made = [request(0, model="short-lived", max_tokens=2)]
    made += [request(i, max_tokens=100, ignore_eos=True) for i in range(1, 80)]
    made += [request(i, model="short-lived", max_tokens=2) for i in range(80, 100)]
    with server.paused():
        id_ = created(server, lines(*made)).json()["id"]
        until(lambda: _status(server, id_) == "in_progress")
        assert server.http.delete("/v1/adapters/short-lived").status_code == 200
    ended = at_end(server, id_)

    assert ended["status"] == "completed"
    counts = ended["request_counts"]
    assert counts["completed"] + counts["failed"] == 100
    assert counts["completed"] >= 79
    told = {
        line["response"]["body"]["error"]["code"]
        for line in results(server, ended["error_file_id"])
    }
    assert told == {"model_not_found"}


def _status(live: Live, id_: str) -> str:
    status: str = live.http.get(f"/v1/batches/{id_}").json()["status"]
    return status


def test_batches_of_other_tenants_are_not_found(serve: Callable[..., Live]) -> None:
    live = serve(api_keys="alice=one,bob=two")
    alice, bob = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
    file = upload(live, lines(request(0)), **alice).json()["id"]
    body = {"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h"}

    assert code_of(live.http.post("/v1/batches", json=body, headers=bob))[:2] == (404, "not_found")
    id_ = live.http.post("/v1/batches", json=body, headers=alice).json()["id"]
    for method, path in (("GET", f"/v1/batches/{id_}"), ("POST", f"/v1/batches/{id_}/cancel")):
        assert code_of(live.http.request(method, path, headers=bob))[:2] == (404, "not_found")
    assert live.http.get("/v1/batches", headers=bob).json()["data"] == []

    def ended() -> Any:
        batch = live.http.get(f"/v1/batches/{id_}", headers=alice).json()
        return batch if batch["status"] in FINAL else None

    output = until(ended)["output_file_id"]
    assert live.http.get(f"/v1/files/{output}/content", headers=alice).status_code == 200
    assert live.http.get(f"/v1/files/{output}/content", headers=bob).status_code == 404


def test_a_server_that_runs_no_batches_leaves_them_to_others(serve: Callable[..., Live]) -> None:
    live = serve(run_batches=False)
    id_ = created(live, lines(request(0))).json()["id"]
    told = live.http.get(f"/v1/batches/{id_}").json()
    assert (told["status"], told["overtone"]["server"]) == ("validating", None)
    assert live.http.post(f"/v1/batches/{id_}/cancel").json()["status"] == "cancelled"

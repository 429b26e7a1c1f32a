"""Warm, pin, unpin: what is in memory, and what is refused."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

import spectra
from live import Live
from overtone_client import Client
from spectra import TARGETS, N
from waiting import until

ROW_BYTES = 4 * N * len(TARGETS)


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Live:
    """A server with room for four adapters' coefficients, and none of evicted ones."""
    return serve_all(coefficient_bytes=4 * ROW_BYTES, host_bytes=0)


def put(server: Live, name: str, seed: int) -> dict[str, Any]:
    answer = server.upload(name, spectra.files(seed))
    assert answer.status_code in (200, 201), answer.text
    record: dict[str, Any] = answer.json()
    return record


def residency(server: Live, name: str) -> list[str]:
    modes: list[str] = server.http.get(f"/v1/adapters/{name}").json()["residency"]
    return modes


def call(server: Live, verb: str, path: str, **params: Any) -> httpx2.Response:
    return server.http.request(verb, f"/v1/adapters/{path}", params=params)


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def crowd(server: Live) -> None:
    """Have four other adapters answer, so that everything that may go is gone."""
    for i in range(4):
        put(server, f"crowd{i}", 100 + i)
        server.tokens(f"crowd{i}")


def test_a_warm_adapter_is_in_memory_before_its_first_request(server: Live) -> None:
    record = put(server, "warm", 1)
    assert residency(server, "warm") == []
    answer = call(server, "POST", "warm/warm")
    assert answer.status_code == 200
    assert answer.json() == {
        "object": "adapter.residency",
        "name": "warm",
        "version": 1,
        "digest": record["digest"],
        "residency": ["factored"],
        "pinned": False,
    }
    misses = server.metric('overtone_cache_misses_total{cache="coefficients"}')
    server.tokens("warm")
    assert server.metric('overtone_cache_misses_total{cache="coefficients"}') == misses


def test_a_mode_may_be_asked_for(server: Live) -> None:
    put(server, "both", 2)
    assert call(server, "POST", "both/warm", mode="merged").json()["residency"] == ["merged"]
    assert call(server, "POST", "both/warm", mode="factored").json()["residency"] == [
        *("factored", "merged")
    ]
    assert error_of(call(server, "POST", "both/warm", mode="quick")) == (400, "invalid_request")


def test_a_load_that_takes_too_long_is_not_waited_for(server: Live) -> None:
    put(server, "slow", 3)
    answer = call(server, "POST", "slow/warm", timeout_s=0)
    assert answer.status_code in (200, 202)
    until(lambda: residency(server, "slow") == ["factored"])


@pytest.mark.parametrize(("verb", "action"), [("POST", "warm"), ("PUT", "pin"), ("DELETE", "pin")])
def test_what_is_not_there_is_not_found(server: Live, verb: str, action: str) -> None:
    for name in ("nobody", "tiny", "not%20a%20name"):
        assert error_of(call(server, verb, f"{name}/{action}"))[0] in (400, 404)


def test_a_bad_timeout_is_named(server: Live) -> None:
    put(server, "warm", 1)
    answer = call(server, "POST", "warm/warm", timeout_s=-1)
    assert error_of(answer) == (400, "invalid_request")
    assert answer.json()["error"]["param"] == "timeout_s"


def test_a_pinned_adapter_stays_until_it_is_unpinned(server: Live) -> None:
    put(server, "kept", 4)
    assert call(server, "PUT", "kept/pin").json()["pinned"] is True
    assert call(server, "PUT", "kept/pin").status_code == 200  # twice is harmless
    crowd(server)
    assert residency(server, "kept") == ["factored"]
    assert call(server, "DELETE", "kept/pin").json()["pinned"] is False
    assert call(server, "DELETE", "kept/pin").status_code == 200
    crowd(server)
    assert residency(server, "kept") == []


def test_pins_leave_room_for_others(server: Live) -> None:
    for i in range(4):
        put(server, f"pinned{i}", 10 + i)
    try:
        for i in range(3):
            assert call(server, "PUT", f"pinned{i}/pin").status_code == 200
        refused = call(server, "PUT", "pinned3/pin")
        assert error_of(refused) == (413, "too_large")
        assert "unpin others first" in refused.json()["error"]["message"]
        assert server.tokens("pinned3")
    finally:
        for i in range(3):
            call(server, "DELETE", f"pinned{i}/pin")
    assert server.service.loader.memory.pinned_bytes("factored")[0] == 0


def test_a_new_version_takes_the_pin_over_when_it_is_pinned(server: Live) -> None:
    put(server, "moving", 20)
    call(server, "PUT", "moving/pin")
    newer = put(server, "moving", 21)
    assert call(server, "POST", "moving/warm").json()["pinned"] is False
    answer = call(server, "PUT", "moving/pin").json()
    assert (answer["version"], answer["digest"], answer["pinned"]) == (2, newer["digest"], True)
    assert server.service.loader.memory.pinned_bytes("factored")[0] == ROW_BYTES
    assert call(server, "DELETE", "moving/pin").status_code == 200


def test_a_deleted_adapters_pin_goes_with_it(server: Live) -> None:
    put(server, "gone", 30)
    call(server, "PUT", "gone/pin")
    assert call(server, "DELETE", "gone").status_code == 200
    assert server.service.loader.memory.pinned_bytes("factored")[0] == 0


def test_a_deleted_versions_pin_goes_with_it(server: Live) -> None:
    for seed in (32, 33):
        put(server, "halved", seed)
        call(server, "PUT", "halved@1/pin")
    assert call(server, "DELETE", "halved/versions/1").status_code == 200
    assert server.service.loader.memory.pinned_bytes("factored")[0] == 0


def test_the_client_warms_and_pins(server: Live) -> None:
    put(server, "clients", 40)
    with Client(server.url) as client:
        client.warm("clients")
        assert residency(server, "clients") == ["factored"]
        client.pin("clients")
        assert server.service.pins.digest_of("clients") is not None
        client.unpin("clients")
    assert server.service.pins.digest_of("clients") is None


def test_a_damaged_file_is_told_and_the_server_goes_on(server: Live) -> None:
    record = put(server, "damaged", 50)
    blob = server.service.registry.blobs.open(record["digest"])
    blob.file.chmod(0o644)
    blob.file.write_bytes(blob.file.read_bytes()[:-8])
    failures = 'overtone_adapter_load_failures_total{reason="damaged"}'
    before = server.metric(failures)
    assert call(server, "POST", "damaged/warm").status_code == 500
    assert call(server, "PUT", "damaged/pin").status_code == 500
    assert server.metric(failures) == before + 2
    assert server.service.pins.digest_of("damaged") is None
    put(server, "warm", 1)
    assert call(server, "POST", "warm/warm").status_code == 200


def test_version_shows_what_was_measured(server: Live) -> None:
    shown = server.http.get("/version").json()["calibration"]
    assert shown["seconds"] > 0
    assert "fourierft tokens" in shown["milliseconds_by_rows"]


def test_answers_say_the_mode_that_was_chosen(server: Live) -> None:
    put(server, "moded", 60)
    answer = server.complete("moded").json()
    assert answer["overtone"]["mode"] == "factored"
    assert server.metric('overtone_mode_requests_total{mode="factored",reason="planned"}') >= 1


def test_deterministic_answers_repeat_bit_by_bit(serve: Callable[..., Live]) -> None:
    """The same request again, alone and beside others: the same tokens and log-probabilities."""
    server = serve(deterministic=True)
    for i in range(2):
        put(server, f"d{i}", 70 + i)
    assert server.http.get("/version").json()["calibration"] is None
    first = server.complete("d0", logprobs=1).json()["choices"]
    for i in range(20):
        again = server.complete(f"d{i % 2}", logprobs=1).json()
        assert again["overtone"]["mode"] == "factored"
    assert server.complete("d0", logprobs=1).json()["choices"] == first

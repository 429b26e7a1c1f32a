"""Tenants, full queues, deadlines and kept prefixes as a caller sees them."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

import spectra
from live import BASE, Live, parts
from waiting import until

LONG = {"max_tokens": 600, "ignore_eos": True, "temperature": 0}
KEYS = ("first-key", "second-key")
PROMPT = [7 + i % 200 for i in range(150)]


@pytest.fixture(scope="module")
def shared(serve_all: Callable[..., Live]) -> Live:
    """A server of two tenants, on which two sequences run and two more wait."""
    return serve_all(api_keys=KEYS, max_running=2, max_waiting=2, max_step_tokens=16)


def ask(live: Live, key: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
    fixed = {"model": BASE, "prompt": "Once", "max_tokens": 4, "temperature": 0}
    given = {"Authorization": f"Bearer {key}"} | (headers or {})
    return live.http.post("/v1/completions", json=fixed | body, headers=given, timeout=60)


def test_a_tenants_full_queue_is_429_with_retry_after_and_anothers_is_not(shared: Live) -> None:
    with ThreadPoolExecutor(4) as threads:
        with shared.paused():
            running = [threads.submit(ask, shared, KEYS[0]) for _ in range(4)]
            until(lambda: shared.num_open == 5)
            refused = ask(shared, KEYS[0])
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "overloaded"
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert [answer.result().status_code for answer in running] == [200] * 4
    assert ask(shared, KEYS[0]).status_code == 200


def test_a_tenant_with_room_is_taken_while_another_is_refused(shared: Live) -> None:
    with ThreadPoolExecutor(5) as threads:
        with shared.paused():
            flood = [threads.submit(ask, shared, KEYS[0]) for _ in range(4)]
            until(lambda: shared.num_open == 5)
            assert ask(shared, KEYS[0]).status_code == 429
            neighbour = threads.submit(ask, shared, KEYS[1])
            until(lambda: shared.num_open == 6)
        assert neighbour.result().status_code == 200
        assert [answer.result().status_code for answer in flood] == [200] * 4


def test_many_choices_that_do_not_fit_are_refused_together(shared: Live) -> None:
    assert ask(shared, KEYS[0], n=5).status_code == 429
    until(lambda: shared.num_open == 0)


def test_what_has_no_end_in_its_time_is_504(shared: Live) -> None:
    answer = ask(shared, KEYS[0], **LONG, timeout_s=0.05)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    until(lambda: shared.num_open == 0)


def test_a_stream_whose_time_is_over_ends_with_an_error_event(shared: Live) -> None:
    answer = ask(shared, KEYS[0], **LONG, timeout_s=0.2, stream=True)
    if answer.status_code == 504:  # not even a first token by then
        return
    *events, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert json.loads(events[-1][len("data: ") :])["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("timeout_s", [0, -1, 1e9, "soon"])
def test_a_time_out_of_range_is_said(shared: Live, timeout_s: Any) -> None:
    answer = ask(shared, KEYS[0], timeout_s=timeout_s)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "timeout_s"


def cached(answer: httpx2.Response) -> int:
    told: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return told


def test_a_prompt_is_found_again_by_its_tenant_and_adapter_only(shared: Live) -> None:
    key = {"Authorization": f"Bearer {KEYS[0]}"}
    files = {"data": {"name": "own"}, "files": parts(spectra.files(3))}
    assert shared.http.post("/v1/adapters", headers=key, **files).status_code in (200, 201)
    first = ask(shared, KEYS[0], prompt=PROMPT, return_token_ids=True)
    again = ask(shared, KEYS[0], prompt=PROMPT, return_token_ids=True)
    assert (cached(first), cached(again)) == (0, 128)
    assert first.json()["choices"] == again.json()["choices"]
    assert cached(ask(shared, KEYS[1], prompt=PROMPT)) == 0
    assert cached(ask(shared, KEYS[0], prompt=PROMPT, model="own")) == 0
    assert cached(ask(shared, KEYS[0], prompt=PROMPT, model="own")) == 128


def test_choices_of_one_prompt_compute_it_once(shared: Live) -> None:
    before = metric(shared, "overtone_prompt_tokens_total")
    prompt = [3 + i % 150 for i in range(129)]
    answer = ask(shared, KEYS[0], prompt=prompt, n=4)
    assert answer.json()["usage"]["prompt_tokens"] == 129
    assert metric(shared, "overtone_prompt_tokens_total") - before == 129 + 3
    assert metric(shared, "overtone_prefix_cached_tokens_total") >= 3 * 128


def test_a_named_tenant_is_believed_only_where_the_header_is_set(
    serve: Callable[..., Live],
) -> None:
    plain = serve(api_keys=KEYS)
    named = serve(api_keys=KEYS, tenant_header="X-Tenant")
    for live, expected in ((plain, 128), (named, 0)):
        for tenant, found in (("a", 0), ("b", expected), ("a", 128)):
            answer = ask(live, KEYS[0], {"X-Tenant": tenant}, prompt=PROMPT)
            assert cached(answer) == found


def test_without_a_prefix_cache_nothing_is_found(serve: Callable[..., Live]) -> None:
    live = serve(prefix_cache=False)
    assert [cached(live.complete(BASE, PROMPT)) for _ in range(2)] == [0, 0]


def metric(live: Live, sample: str) -> float:
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    lines = live.http.get("/metrics", headers=headers).text.splitlines()
    (value,) = [line.rpartition(" ")[2] for line in lines if line.startswith(sample + " ")]
    return float(value)

"""Limits of tenants over REST, what they let through on a real server, and what answers say."""

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
import pytest

import spectra
import tiny_encoders as te
from live import Live, error_of, parts, serving, settings_of
from registry.common.limits import NAMES
from waiting import until

ROOT = "root-of-the-tests"
BODY = {"model": "tiny", "prompt": "Once", "max_tokens": 4, "temperature": 0}
LINES = b'{"prompt": "a", "completion": "b"}\n' * 10
RATES = ("limit", "remaining", "reset")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def guarded(serve_all: Callable[..., Live]) -> Live:
    return serve_all(api_keys=f"root={ROOT}", calibration_s=0)


def key_of(live: Live, tenant: str, *scopes: str) -> dict[str, str]:
    body = {"tenant": tenant, "scopes": scopes or ["infer"]}
    made = live.http.post("/v1/keys", json=body, headers=bearer(ROOT))
    assert made.status_code == 201, made.text
    return bearer(made.json()["secret"])


def limit(live: Live, tenant: str, **limits: Any) -> httpx2.Response:
    path = f"/v1/tenants/{tenant}/limits"
    return live.http.put(path, json=limits, headers=bearer(ROOT))


def complete(live: Live, key: dict[str, str], **changes: Any) -> httpx2.Response:
    return live.http.post("/v1/completions", json={**BODY, **changes}, headers=key)


def standing(answer: httpx2.Response, rate: str) -> list[str]:
    return [answer.headers[f"x-ratelimit-{name}-{rate}"] for name in RATES]


def used(live: Live, tenant: str) -> dict[str, Any]:
    answer = live.http.get(f"/v1/tenants/{tenant}/usage", headers=bearer(ROOT))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["usage"]
    return found


def test_limits_are_set_shown_and_taken_away(guarded: Live) -> None:
    key = key_of(guarded, "setter")
    answer = limit(guarded, "setter", requests_per_minute=5, running_requests="unlimited")
    assert answer.json() == {
        "object": "tenant.limits",
        "tenant": "setter",
        "own": {"requests_per_minute": 5, "running_requests": "unlimited"},
        "limits": dict.fromkeys(NAMES) | {"requests_per_minute": 5},
    }
    path = "/v1/tenants/setter/limits"
    assert guarded.http.get(path, headers=bearer(ROOT)).json() == answer.json()
    assert guarded.http.get(path, headers=key).status_code == 403
    assert limit(guarded, "setter").json()["own"] == {}
    assert complete(guarded, key).headers["x-ratelimit-limit-requests"] != "5"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"requests_per_minute": -1}, "requests_per_minute"),
        ({"tokens_per_minute": "many"}, "tokens_per_minute"),
        ({"tokens_per_minute": 1.5}, "tokens_per_minute"),
        ({"requests": 1}, "requests"),
    ],
)
def test_a_wrong_limit_is_named_and_changes_nothing(
    guarded: Live, given: dict[str, Any], param: str
) -> None:
    answer = limit(guarded, "nothing", **given)
    assert answer.status_code == 400
    assert (error_of(answer)["param"] or "").startswith(param)
    assert limit(guarded, "-bad").status_code == 400
    shown = guarded.http.get("/v1/tenants/nothing/limits", headers=bearer(ROOT))
    assert shown.json()["own"] == {}


def test_requests_a_minute_are_refused_with_what_is_used_and_allowed(guarded: Live) -> None:
    key = key_of(guarded, "often")
    limit(guarded, "often", requests_per_minute=3)
    answers = [complete(guarded, key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [standing(answer, "requests")[:2] for answer in answers] == [
        ["3", left] for left in ("2", "1", "0")
    ]
    assert "x-ratelimit-limit-tokens" not in answers[0].headers
    refused = complete(guarded, key)
    assert refused.status_code == 429
    error = error_of(refused)
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    seconds = int(refused.headers["retry-after"])
    assert 17 <= seconds <= 20
    told = "3 of 3 requests a minute are used by tenant 'often', and this needs 1 more; try again"
    assert error["message"] == f"{told} in {seconds} s"
    assert standing(refused, "requests")[:2] == ["3", "0"]
    assert standing(refused, "requests")[2].endswith("s")
    assert complete(guarded, key_of(guarded, "other")).status_code == 200
    assert used(guarded, "often")["requests_per_minute"] == {"used": 3, "allowed": 3}
    # Taken away, it holds no more.
    limit(guarded, "often")
    assert complete(guarded, key).status_code == 200


def test_prompts_and_answers_count_as_tokens_and_a_prompt_once(guarded: Live) -> None:
    key = key_of(guarded, "wordy", "infer", "upload")
    limit(guarded, "wordy", tokens_per_minute=10_000)
    answer = complete(guarded, key, n=3, ignore_eos=True)
    usage = answer.json()["usage"]
    assert usage["completion_tokens"] == 12
    limit_, remaining, reset = standing(answer, "tokens")
    assert limit_ == "10000"
    spent = usage["total_tokens"]
    assert 10_000 - spent <= int(remaining) <= 10_000 - spent + 50  # 166 come back in a second
    assert reset.endswith("ms")
    body = {"model": "nobody", "input": "Once"}
    failed = guarded.http.post("/v1/responses", json=body, headers=key)
    assert (failed.status_code, standing(failed, "tokens")[0]) == (404, "10000")


def test_requests_outside_v1_count_too(guarded: Live) -> None:
    key = key_of(guarded, "counted")
    limit(guarded, "counted", requests_per_minute=1)
    body = {"model": "tiny", "prompt": "Once"}
    statuses = [guarded.http.post("/tokenize", json=body, headers=key).status_code for _ in "ab"]
    assert statuses == [200, 429]


def test_too_many_tokens_are_refused_until_they_are_paid(guarded: Live) -> None:
    key = key_of(guarded, "long")
    limit(guarded, "long", tokens_per_minute=30)
    prompt = [5] * 10
    answer = complete(guarded, key, prompt=prompt, max_tokens=40, ignore_eos=True)
    assert answer.status_code == 200  # the prompt fitted, and its answer is owed
    assert standing(answer, "tokens")[1] == "0"
    refused = complete(guarded, key, prompt=prompt)
    assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
    assert "50 of 30 tokens a minute are used" in error_of(refused)["message"]
    assert 55 <= int(refused.headers["retry-after"]) <= 60  # 20 owed and 10 needed, one in 2 s
    never = complete(guarded, key, prompt=[5] * 31)
    assert (never.status_code, error_of(never)["code"]) == (403, "quota_exceeded")
    assert "needs 31, which is never let through" in error_of(never)["message"]
    comparison = {"models": ["tiny", "tiny"], "prompt": prompt}
    assert guarded.http.post("/v1/compare", json=comparison, headers=key).status_code == 429


def test_an_aborted_stream_counts_what_it_made(guarded: Live) -> None:
    key = key_of(guarded, "gone")
    limit(guarded, "gone", tokens_per_minute=1000, running_requests=1)
    body = {**BODY, "prompt": [5] * 10, "max_tokens": 400, "ignore_eos": True, "stream": True}
    url = "/v1/completions"
    with guarded.http.stream("POST", url, json=body, headers=key) as stream:
        events = stream.iter_lines()
        assert sum(line.startswith("data: {") for line in islice(events, 12)) == 6
        assert used(guarded, "gone")["running_requests"]["used"] in (0, 1)  # told within a tick
        second = complete(guarded, key)
        assert (second.status_code, "1 of 1 running" in second.text) == (429, True)
        assert second.headers["retry-after"] == "1"
    until(lambda: guarded.num_open == 0)
    until(lambda: used(guarded, "gone")["running_requests"]["used"] == 0)
    until(lambda: used(guarded, "gone")["tokens_per_minute"]["used"] > 10)
    assert used(guarded, "gone")["tokens_per_minute"]["used"] < 410  # not what was asked for
    until(lambda: complete(guarded, key).status_code == 200)


def test_a_refused_or_failed_request_runs_no_more(guarded: Live) -> None:
    key = key_of(guarded, "faulty")
    limit(guarded, "faulty", running_requests=1, tokens_per_minute=1)
    bad: tuple[dict[str, Any], ...] = (
        *({"model": "nobody"}, {"n": 0}),
        *({"prompt": [5] * 9}, {"prompt": [-1]}),
    )
    for changes in bad:
        answer = complete(guarded, key, **changes)
        assert 400 <= answer.status_code < 500, answer.text
        assert "running" not in answer.text


def test_two_servers_share_a_limit_and_hear_of_its_change_within_a_second(
    serve: Callable[..., Live], tmp_path_factory: pytest.TempPathFactory
) -> None:
    fixed: dict[str, Any] = {
        "data": tmp_path_factory.mktemp("shared"),
        "api_keys": f"root={ROOT}",
        "calibration_s": 0,
        "tenant_limits": "requests_per_minute=15",
    }
    one, other = serve(**fixed), serve(**fixed)
    key = key_of(one, "alice")
    until(lambda: complete(other, key).status_code == 200)
    counts = [[complete(live, key).status_code for live in (one, other)] for _ in range(9)]
    answered = sum(status == 200 for pair in counts for status in pair)
    assert 13 <= answered + 1 <= 16  # 15, and what came back or was tried meanwhile
    assert complete(one, key).status_code == complete(other, key).status_code == 429
    limit(one, "alice", requests_per_minute=6000)
    until(lambda: complete(other, key).headers["x-ratelimit-limit-requests"] == "6000", 1.0)
    limit(one, "alice", requests_per_minute=0)
    until(lambda: complete(other, key).headers["x-ratelimit-limit-requests"] == "0", 1.0)
    refused = complete(other, key)
    assert refused.status_code == 403
    assert "of 0 requests a minute are used" in error_of(refused)["message"]
    limit(one, "alice")
    until(lambda: complete(other, key).headers["x-ratelimit-limit-requests"] == "15", 1.0)


def test_concurrent_requests_are_let_through_up_to_the_limit(guarded: Live) -> None:
    key = key_of(guarded, "crowd")
    limit(guarded, "crowd", requests_per_minute=8)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(complete(guarded, key).status_code))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(statuses)) == [200, 429]
    assert 8 <= statuses.count(200) <= 9  # one more after 7.5 s


def test_a_tenant_sees_its_own_usage_and_no_other(guarded: Live) -> None:
    limit(guarded, "seen", requests_per_minute=5)
    key = key_of(guarded, "seen", "upload", "infer")
    complete(guarded, key)
    own = guarded.http.get("/v1/usage", headers=key)
    assert own.status_code == 200
    assert own.json()["tenant"] == "seen"
    assert own.json()["usage"]["requests_per_minute"] == {"used": 1, "allowed": 5}
    assert own.json()["usage"]["tokens_per_minute"] == {"used": None, "allowed": None}
    assert guarded.http.get("/v1/tenants/seen/usage", headers=key).status_code == 403


def test_encoders_count_their_inputs_tokens(tmp_path: Path, few_threads: None) -> None:
    base = te.save(tmp_path / "base", "bert", is_embedder=True)
    fixed = {"tenant_limits": "tokens_per_minute=20"}
    with serving(settings_of(base, tmp_path / "data", **fixed)) as live:
        body = {"model": "tiny", "input": ["a", "b"]}
        answer = live.http.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        tokens = answer.json()["usage"]["total_tokens"]
        assert standing(answer, "tokens")[:2] == ["20", str(20 - tokens)]
        statuses = [live.http.post("/v1/embeddings", json=body).status_code for _ in range(20)]
        assert statuses.count(200) <= (20 - tokens) // tokens + 1
        assert statuses[-1] == 429


def test_files_and_jobs_are_refused_with_what_is_used_and_allowed(guarded: Live) -> None:
    key = key_of(guarded, "keeper", "upload", "train")
    limit(guarded, "keeper", files=1, jobs=1)

    def upload() -> httpx2.Response:
        form, file = {"purpose": "fine-tune"}, {"file": ("a.jsonl", LINES)}
        return guarded.http.post("/v1/files", data=form, files=file, headers=key)

    def train() -> httpx2.Response:
        body = {"model": "tiny", "training_file": file["id"]}
        return guarded.http.post("/v1/fine_tuning/jobs", json=body, headers=key)

    file = upload().json()
    refused = upload()
    assert refused.status_code == 403
    error = error_of(refused)
    assert error["code"] == "quota_exceeded"
    assert error["message"].startswith("1 of 1 files are used, and this needs 1 more")
    job = train()
    assert job.status_code == 200, job.text
    assert (train().status_code, error_of(train())["code"]) == (403, "quota_exceeded")
    assert used(guarded, "keeper")["files"] == {"used": 1, "allowed": 1}
    assert used(guarded, "keeper")["file_bytes"] == {"used": len(LINES), "allowed": None}
    assert used(guarded, "keeper")["jobs"] == {"used": 1, "allowed": 1}
    path = f"/v1/fine_tuning/jobs/{job.json()['id']}/cancel"
    assert guarded.http.post(path, headers=key).status_code == 200
    assert train().status_code == 200


def test_adapters_are_refused_with_what_is_used_and_allowed(guarded: Live) -> None:
    key = key_of(guarded, "owner", "upload")
    limit(guarded, "owner", adapters=1)

    def upload(name: str, seed: int, key: dict[str, str] = key) -> httpx2.Response:
        files = parts(spectra.files(seed))
        return guarded.http.post("/v1/adapters", data={"name": name}, files=files, headers=key)

    assert upload("first", 0).status_code == 201
    refused = upload("second", 1)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "quota_exceeded")
    assert error_of(refused)["message"].startswith(
        "1 of 1 adapters are used, and this needs 1 more"
    )
    assert upload("first", 1).status_code == 201
    assert upload("first", 0).status_code == 200  # these bytes are there
    found = used(guarded, "owner")
    assert found["adapters"] == {"used": 1, "allowed": 1}
    size = found["adapter_bytes"]["used"]
    limit(guarded, "owner", adapter_bytes=size)
    refused = upload("second", 2)
    assert refused.status_code == 403
    assert f"{size} of {size} bytes of adapters are used" in error_of(refused)["message"]
    limit(guarded, "owner", adapter_bytes=2 * size)
    assert upload("second", 2).status_code == 201
    assert upload("shared-by-all", 3, bearer(ROOT)).status_code == 201  # the operators' own

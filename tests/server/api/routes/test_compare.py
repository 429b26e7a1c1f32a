"""Comparisons over HTTP: every model as alone, side by side in one batch, each failing alone."""

import json
from typing import Any

import httpx2
import pytest

import spectra
from api_contract import check_event
from live import Live
from raw_http import post, wire
from server.api import answering
from waiting import until

MODELS = ["tiny", "one", "two@1"]
CHAT = [{"role": "user", "content": "Once"}]


@pytest.fixture(scope="module", autouse=True)
def _adapters(live: Live) -> None:
    for name, seed in (("one", 11), ("two", 12)):
        assert live.upload(name, spectra.files(seed)).status_code in (200, 201)
    huge = {
        spectra.key(target): spectra.torch.full((spectra.N,), 3e38) for target in spectra.TARGETS
    }
    assert live.upload("huge", spectra.files(changed=huge)).status_code in (200, 201)


def compare(live: Live, **params: Any) -> httpx2.Response:
    fixed = {"models": MODELS, "max_tokens": 8, "temperature": 0, "return_token_ids": True}
    prompt = {} if "messages" in params else {"prompt": "Once"}
    return live.http.post("/v1/compare", json={**fixed, **prompt, **params})


def streamed(live: Live, **params: Any) -> list[dict[str, Any]]:
    answer = compare(live, stream=True, **params)
    assert answer.status_code == 200, answer.text
    *events, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    found = [json.loads(event.removeprefix("data: ")) for event in events]
    for event in found:
        check_event(answer, event)
    return found


def test_every_model_answers_as_it_does_alone(live: Live) -> None:
    told = compare(live).json()
    assert [(each["index"], each["model"]) for each in told["data"]] == list(enumerate(MODELS))
    for each in told["data"]:
        alone = live.complete(each["model"]).json()
        assert each["answer"]["choices"] == alone["choices"]
        assert each["answer"]["overtone"]["digest"] == alone["overtone"]["digest"]
        assert each["answer"]["usage"]["total_tokens"] == alone["usage"]["total_tokens"]


def test_every_model_answers_a_conversation_as_it_does_alone(live: Live) -> None:
    for each in compare(live, messages=CHAT, seed=3, temperature=1).json()["data"]:
        body = {"model": each["model"], "messages": CHAT, "max_tokens": 8, "seed": 3}
        alone = live.http.post("/v1/chat/completions", json=body).json()
        message = each["answer"]["choices"][0]["message"]
        assert message == alone["choices"][0]["message"]


def test_a_stream_has_every_models_events_with_its_number(live: Live) -> None:
    whole = compare(live, n=2, temperature=1, seed=5).json()["data"]
    options = {"include_usage": True}
    events = streamed(live, n=2, temperature=1, seed=5, stream_options=options)
    for each in whole:
        own = [event for event in events if event["index"] == each["index"]]
        assert {event["model"] for event in own} == {each["model"]}
        *chunks, last = [event["chunk"] for event in own]
        texts = ["", ""]
        for chunk in chunks:
            (choice,) = chunk["choices"]
            texts[choice["index"]] += choice["text"]
        assert texts == [choice["text"] for choice in each["answer"]["choices"]]
        assert last["usage"]["completion_tokens"] == each["answer"]["usage"]["completion_tokens"]


def test_all_models_have_one_seed(live: Live) -> None:
    told = compare(live, models=["one", "one", "one@1"], temperature=1).json()["data"]
    first, *others = (each["answer"]["choices"] for each in told)
    assert others == [first, first]


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_is_an_error_beside_the_others_answers(live: Live, stream: bool) -> None:
    models = ["huge", "one", "tiny"]
    if stream:
        events = streamed(live, models=models)
        (failed,) = [event["chunk"] for event in events if event["model"] == "huge"]
        ids = {
            model: [
                token
                for event in events
                if event["model"] == model
                for token in event["chunk"]["choices"][0]["token_ids"]
            ]
            for model in models[1:]
        }
    else:
        failed, *others = (each["answer"] for each in compare(live, models=models).json()["data"])
        ids = {m: a["choices"][0]["token_ids"] for m, a in zip(models[1:], others, strict=True)}
    assert failed["error"]["code"] == "internal_error"
    assert ids == {model: live.tokens(model) for model in models[1:]}
    until(lambda: live.num_open == 0)


def num_steps(live: Live) -> float:
    """Return how many steps the engine has done, of all kinds."""
    until(lambda: live.num_open == 0)
    lines = live.http.get("/metrics").text.splitlines()
    return sum(float(x.split()[1]) for x in lines if x.startswith("overtone_step_seconds_count"))


@pytest.mark.parametrize("stream", [False, True])
def test_all_models_go_through_the_engine_together(live: Live, stream: bool) -> None:
    compare(live)  # all are in memory
    before = num_steps(live)
    compare(live, stream=stream, ignore_eos=True).read()
    assert num_steps(live) - before == 8  # one for each token


def test_the_headers_do_not_wait(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READY_HOLD_S", "LOADING_HOLD_S"):
        monkeypatch.setattr(answering, name, 60.0)
    body = {"models": MODELS, "prompt": "Once", "max_tokens": 2, "stream": True}
    with live.paused():
        request = live.http.build_request("POST", "/v1/compare", json=body)
        answer = live.http.send(request, stream=True)
        assert answer.status_code == 200
        assert live.num_open == 4
    assert answer.read().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_ends_all_of_them(live: Live, stream: bool) -> None:
    body = {"models": MODELS, "prompt": "Once", "max_tokens": 1000, "ignore_eos": True}
    content = json.dumps({**body, "stream": stream}).encode()
    before = live.metric("overtone_generation_tokens_total")
    with wire(live.url) as line:
        line.send(post("/v1/compare", line.host, content))
        until(lambda: live.num_open == 3)
    until(lambda: live.num_open == 0)
    assert live.metric("overtone_generation_tokens_total") - before < 2000  # of 3000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("params", "status", "param"),
    [
        ({"models": ["one", "nobody"]}, 404, None),
        ({"models": []}, 400, "models"),
        ({"models": ["tiny"] * 17}, 400, "models"),
        ({"models": "tiny"}, 400, "models"),
        ({"models": ["tiny", ""]}, 400, "models[1]"),
        ({"models": None}, 400, "models"),
        ({"model": "tiny"}, 400, "model"),
        ({"messages": CHAT, "prompt": "Once"}, 400, "prompt"),
        ({"prompt": None}, 400, "prompt"),
        ({"n": 43}, 400, "n"),
        ({"max_tokens": 2000}, 400, "prompt"),
        ({"timeout_s": 0}, 400, "timeout_s"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_model_is(
    live: Live, params: dict[str, Any], status: int, param: str, stream: bool
) -> None:
    answer = compare(live, stream=stream, **params)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
    until(lambda: live.num_open == 0)

"""A prompt's own tokens are scored as PEFT scores them, echoed, and asked for with nothing else."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tiny
from live import BASE, Live
from peft_made import Made, make
from waiting import until

PROMPT = [79, 110, 99, 101, 32, 7, 200, 3]
TEXT = "Once upon a time"
#: Logits of two ways to compute the same may differ so much.
TIE = 1e-3


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    folder: Path = tmp_path_factory.mktemp("adapters")
    return [make("llama", number, folder / str(number)) for number in range(4)]


@pytest.fixture(scope="module", params=("factored", "merged"))
def live(
    request: pytest.FixtureRequest, adapters: list[Made], serve_all: Callable[..., Live]
) -> Live:
    live = serve_all("llama", mode=request.param)
    for made in adapters:
        assert live.upload(made.label, made.files).status_code == 201
    return live


def choice(live: Live, model: str, prompt: Any = PROMPT, **params: Any) -> dict[str, Any]:
    answer = live.complete(model, prompt, **params)
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()["choices"]
    return dict(one)


@pytest.mark.parametrize("number", range(4))
def test_echoed_log_probabilities_are_pefts(live: Live, adapters: list[Made], number: int) -> None:
    made = adapters[number]
    got = choice(live, made.label, echo=True, logprobs=2, max_tokens=1)
    own = got["logprobs"]["token_logprobs"]
    (generated,) = got["token_ids"]
    true = made.logprobs([*PROMPT, generated])
    assert own[0] is None
    assert got["logprobs"]["top_logprobs"][0] is None
    for i, token in enumerate([*PROMPT, generated][1:]):
        assert own[i + 1] == pytest.approx(float(true[i, token]), abs=TIE)
        best = max(got["logprobs"]["top_logprobs"][i + 1].values())
        assert best == pytest.approx(float(true[i].max()), abs=TIE)


@pytest.mark.parametrize("number", range(4))
def test_prompt_log_probabilities_and_ranks_are_pefts(
    live: Live, adapters: list[Made], number: int
) -> None:
    made = adapters[number]
    scores = choice(live, made.label, prompt_logprobs=3, max_tokens=0)["prompt_logprobs"]
    true = made.logprobs(PROMPT)
    assert scores[0] is None
    assert len(scores) == len(PROMPT)
    for i, token in enumerate(PROMPT[1:]):
        entries = scores[i + 1]
        for name, entry in entries.items():
            assert entry["logprob"] == pytest.approx(float(true[i, int(name)]), abs=TIE)
        value = entries[str(token)]["logprob"]
        rank = entries[str(token)]["rank"]
        assert int((true[i] > value + TIE).sum()) < rank <= int((true[i] > value - TIE).sum())
        ranks = sorted(entry["rank"] for entry in entries.values())
        assert ranks[:3] == [1, 2, 3]
        assert len(ranks) <= 4


def test_an_echo_is_the_prompt_before_the_answer(live: Live) -> None:
    alone = choice(live, BASE, TEXT, ignore_eos=True)
    echoed = choice(live, BASE, TEXT, ignore_eos=True, echo=True, logprobs=0)
    assert echoed["text"] == TEXT + alone["text"]
    assert echoed["token_ids"] == alone["token_ids"]
    texts = echoed["logprobs"]["tokens"]
    assert "".join(texts[: len(TEXT)]) == TEXT
    assert len(texts) == len(TEXT) + 8
    assert echoed["logprobs"]["text_offset"][: len(TEXT)] == list(range(len(TEXT)))


def test_an_echo_of_token_ids_is_their_text(live: Live) -> None:
    ids = tiny.tokenizer()(TEXT)["input_ids"]
    assert choice(live, BASE, ids, echo=True)["text"] == choice(live, BASE, TEXT, echo=True)["text"]


def test_no_token_is_generated_where_none_is_asked_for(live: Live) -> None:
    answer = live.complete(BASE, TEXT, max_tokens=0).json()
    (one,) = answer["choices"]
    assert (one["text"], one["token_ids"], one["finish_reason"]) == ("", [], "length")
    assert answer["usage"]["completion_tokens"] == 0
    echoed = live.complete(BASE, TEXT, max_tokens=0, echo=True, logprobs=1).json()
    assert echoed["choices"][0]["text"] == TEXT
    assert len(echoed["choices"][0]["logprobs"]["tokens"]) == len(TEXT)
    assert echoed["usage"] == answer["usage"] | {
        "prompt_tokens_details": echoed["usage"]["prompt_tokens_details"]
    }


def test_a_prompt_that_fills_the_context_can_be_scored(live: Live) -> None:
    full = [7] * tiny.MAX_LENGTH
    assert len(choice(live, BASE, full, max_tokens=0, prompt_logprobs=0)["prompt_logprobs"]) == len(
        full
    )
    assert live.complete(BASE, full, max_tokens=1).status_code == 400


def test_a_stream_begins_each_choice_with_its_echo(live: Live) -> None:
    params = {"echo": True, "logprobs": 1, "n": 2, "seed": 3, "temperature": 1, "max_tokens": 5}
    whole = live.complete(BASE, [TEXT, "cat"], **params).json()["choices"]
    body = {"model": BASE, "prompt": [TEXT, "cat"], "stream": True, **params}
    texts, reasons = [""] * 4, [""] * 4
    with live.http.stream("POST", "/v1/completions", json=body) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            for piece in json.loads(line.removeprefix("data: "))["choices"]:
                texts[piece["index"]] += piece["text"]
                reasons[piece["index"]] += piece["finish_reason"] or ""
    assert texts == [one["text"] for one in whole]
    assert reasons == [one["finish_reason"] for one in whole]


def test_prompt_logprobs_in_a_stream_are_refused_by_name(live: Live) -> None:
    error = live.complete(BASE, TEXT, stream=True, prompt_logprobs=1)
    assert (error.status_code, error.json()["error"]["param"]) == (400, "prompt_logprobs")


def test_a_chats_prompt_is_scored_too(live: Live) -> None:
    body = {"model": BASE, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    answer = live.http.post("/v1/chat/completions", json=body | {"prompt_logprobs": 0}).json()
    scores = answer["choices"][0]["prompt_logprobs"]
    assert len(scores) == answer["usage"]["prompt_tokens"]
    assert scores[0] is None


def test_scored_prompts_keep_their_neighbours_bits(live: Live) -> None:
    def scored() -> dict[str, Any]:
        return choice(live, BASE, [9] * 300, echo=True, logprobs=5)

    def neighbour() -> dict[str, Any]:
        return choice(live, BASE, "neighbour", logprobs=0, max_tokens=20)

    alone = neighbour()
    with ThreadPoolExecutor(4) as pool, live.paused():
        crowd = [pool.submit(work) for work in (scored, neighbour, scored, scored)]
        until(lambda: live.num_open == 5)
    first, beside, *others = [one.result() for one in crowd]
    assert beside == alone
    assert others == [first, first]

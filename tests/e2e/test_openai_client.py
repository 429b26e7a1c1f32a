"""OpenAI's own Python client, unmodified, against the server."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import openai
import pytest
from openai import OpenAI

import spectra
from live import Live
from waiting import until

MESSAGES: Any = [{"role": "user", "content": "Say something."}]
KEY = "a-key-for-tests"


def client_of(live: Live, key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module", autouse=True)
def _no_proxy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    assert live.upload("oa", spectra.files(1)).status_code in (200, 201)
    with closing(client_of(live)) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(serve_all: Callable[..., Live]) -> Live:
    return serve_all(api_keys=KEY)


def test_models_are_listed_and_retrieved(client: OpenAI, live: Live) -> None:
    assert {"tiny", "oa"} <= {model.id for model in client.models.list()}
    model = client.models.retrieve("oa")
    assert (model.id, model.object) == ("oa", "model")
    extra = model.model_extra or {}
    assert (extra["root"], extra["parent"]) == ("tiny", "tiny")
    assert client.models.retrieve("oa@1").id == "oa@1"


def test_a_completion_has_text_usage_and_who_answered(client: OpenAI, live: Live) -> None:
    answer = client.completions.create(model="oa", prompt="Once", max_tokens=8, temperature=0)
    (choice,) = answer.choices
    assert choice.text == live.complete("oa").json()["choices"][0]["text"]
    assert choice.finish_reason in ("length", "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4
    assert answer.usage.total_tokens == 4 + answer.usage.completion_tokens
    assert answer.model_extra is not None
    assert answer.model_extra["overtone"]["adapter"] == "oa"


def test_a_streamed_completion_is_the_whole_one_in_pieces(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "oa", "prompt": "Once", "max_tokens": 12, "temperature": 0}
    options: Any = {"include_usage": True}
    *chunks, last = client.completions.create(**asked, stream=True, stream_options=options)
    whole = client.completions.create(**asked)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in chunks)
    assert last.usage == whole.usage
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_a_chat_answers_as_assistant(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="oa", messages=MESSAGES, max_completion_tokens=8, temperature=0
    )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 8


def test_a_streamed_chat_has_one_role_all_text_and_the_usage_last(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "oa", "messages": MESSAGES, "max_tokens": 12, "seed": 4}
    whole = client.chat.completions.create(**asked)
    *chunks, last = client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == []
    assert all(chunk.usage is None for chunk in chunks)
    assert last.usage == whole.usage


def test_n_choices_are_numbered_and_differ(client: OpenAI) -> None:
    answer = client.completions.create(model="oa", prompt="Once", n=2, max_tokens=16, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text != answer.choices[1].text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4


def test_null_means_the_default(client: OpenAI) -> None:
    answer = client.completions.create(model="oa", prompt="Once", n=None, stop=None, user="me")
    assert len(answer.choices) == 1


def test_a_seed_makes_an_answer_again(client: OpenAI) -> None:
    def text(seed: int) -> str:
        asked: Any = {"model": "oa", "prompt": "Once", "max_tokens": 16, "temperature": 1.2}
        told: str = client.completions.create(**asked, seed=seed).choices[0].text
        return told

    assert text(11) == text(11)
    assert len({text(seed) for seed in range(4)}) == 4


def test_a_stop_string_is_cut_off_and_is_the_reason(client: OpenAI) -> None:
    # Biased to letters alone, so that the text is sure and every character is a token.
    bias = {str(token): 100 for token in _ids("ab")}
    asked: Any = {"model": "oa", "prompt": "Once", "seed": 2, "logit_bias": bias}
    free = client.completions.create(**asked, max_tokens=32).choices[0].text
    assert set(free) == {"a", "b"}
    stop = free[5:8]
    choice = client.completions.create(**asked, max_tokens=32, stop=[stop, "zz"]).choices[0]
    assert choice.text == free[: free.index(stop)]
    assert choice.finish_reason == "stop"


def test_a_logit_bias_rules_the_answer(client: OpenAI) -> None:
    (letter,) = _ids("q")
    answer = client.completions.create(
        model="oa", prompt="Once", max_tokens=5, temperature=0, logit_bias={str(letter): 100}
    )
    assert answer.choices[0].text == "qqqqq"


def test_log_probabilities_of_a_completion(client: OpenAI) -> None:
    answer = client.completions.create(
        model="oa", prompt="Once", max_tokens=4, temperature=0, logprobs=3
    )
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 4
    assert all(
        max(top.values()) == told.token_logprobs[i] for i, top in enumerate(told.top_logprobs)
    )


def test_log_probabilities_of_a_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="oa", messages=MESSAGES, max_tokens=3, temperature=0, logprobs=True, top_logprobs=4
    )
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    for entry in told.content:
        values = [alternative.logprob for alternative in entry.top_logprobs]
        assert len(values) == 4
        assert values == sorted(values, reverse=True)
        assert entry.logprob == values[0] < 0


@pytest.mark.parametrize("key", ["wrong", "a-key-for-test", KEY + "x"])
def test_a_wrong_key_is_an_authentication_error(guarded: Live, key: str) -> None:
    with closing(client_of(guarded, key)) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client.completions.create(model="tiny", prompt="Once")


def test_the_right_key_opens_every_path(guarded: Live) -> None:
    with closing(client_of(guarded, KEY)) as client:
        assert client.completions.create(model="tiny", prompt="Once").choices
    for path in ("/metrics", "/version", "/docs/nothing", "/v1/adapters", "/nothing"):
        assert guarded.http.get(path).status_code == 401
    for path in ("/health/ready", "/openapi.json", "/docs", "/docs/swagger-ui-bundle.js"):
        assert guarded.http.get(path).status_code == 200


@pytest.mark.parametrize(
    "model",
    [
        "nobody",
        "oa@99",
        "oa@prod",
        "oa@sha256:" + "0" * 64,
        "tiny@1",
        "OA",
        "oa ",
        "../oa",
        "oa@",
        "ünknown",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_name_is_not_found_and_never_the_base(
    client: OpenAI, model: str, stream: bool
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model=model, prompt="Once", stream=stream)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(model)


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"frequency_penalty": 2.5}, "frequency_penalty", "invalid_request"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"best_of": 3}, "best_of", "unsupported_parameter"),
        ({"extra_body": {"min_p": 1.1}}, "min_p", "invalid_request"),
        ({"extra_body": {"mirostat": 2}}, "mirostat", "unsupported_parameter"),
        ({"max_tokens": -1}, "max_tokens", "invalid_request"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_request"),
        ({"max_tokens": 2000}, "prompt", "context_length_exceeded"),
        ({"temperature": 3}, "temperature", "invalid_request"),
        ({"temperature": -0.1}, "temperature", "invalid_request"),
        ({"top_p": 0}, "top_p", "invalid_request"),
        ({"n": 16384}, "n", "invalid_request"),
        ({"n": 0}, "n", "invalid_request"),
        ({"logprobs": 21}, "logprobs", "invalid_request"),
        ({"stop": ["a"] * 17}, "stop", "invalid_request"),
        ({"logit_bias": {"999": 1}}, "logit_bias", "invalid_request"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_request"),
        ({"prompt": []}, "prompt", "invalid_request"),
        ({"prompt": ""}, "prompt", "invalid_request"),
        ({"prompt": [1.5]}, "prompt[0]", "invalid_request"),
        ({"prompt": [[]]}, "prompt[0]", "invalid_request"),
        ({"prompt": {"a": 1}}, "prompt", "invalid_request"),
        ({"prompt": [257]}, "prompt", "invalid_request"),
        ({"prompt": [-1]}, "prompt[0]", "invalid_request"),
        ({"prompt": [10**30]}, "prompt", "invalid_request"),
        ({"prompt": ["a"] * 129}, "prompt", "invalid_request"),
        ({"prompt": "a" * 1024}, "prompt", "context_length_exceeded"),
        ({"seed": 2**64}, "seed", "invalid_request"),
        ({"model": 7}, "model", "invalid_request"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request_is_said_before_any_token_and_names_its_parameter(
    client: OpenAI, params: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    asked: dict[str, Any] = {"model": "oa", "prompt": "Once", **params}
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**asked, stream=stream)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "user", "content": "a" * 1100}]}, "messages"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
    ],
)
def test_a_bad_chat_names_its_parameter(client: OpenAI, params: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "oa", "messages": MESSAGES, **params})
    assert caught.value.param == param


def test_an_out_of_range_token_fails_its_own_request_only(client: OpenAI, live: Live) -> None:
    def ask(token: int) -> Any:
        return client.completions.create(
            model="oa", prompt=[1, token], max_tokens=4, temperature=0, logprobs=0
        )

    alone = ask(2).choices[0]
    bad = {3, 7}
    with ThreadPoolExecutor(10) as threads, live.paused():
        asked = [threads.submit(ask, 100_000 if i in bad else 2) for i in range(10)]
        until(lambda: live.num_open == 9)
    for i, future in enumerate(asked):
        if i in bad:
            assert isinstance(future.exception(), openai.BadRequestError)
        else:
            assert future.result().choices[0] == alone


def test_a_full_queue_is_a_rate_limit_error_with_retry_after(
    serve: Callable[..., Live],
) -> None:
    live = serve(max_running=1, max_waiting=1)
    waits = threading.Event()
    with closing(client_of(live)) as client, ThreadPoolExecutor(1) as threads:
        with live.paused():
            waiting = threads.submit(client.completions.create, model="tiny", prompt="Once")
            until(lambda: live.num_open == 2)
            for stream in (False, True):
                with pytest.raises(openai.RateLimitError) as caught:
                    client.completions.create(model="tiny", prompt="Once", stream=stream)
                assert caught.value.code == "overloaded"
                assert int(caught.value.response.headers["Retry-After"]) >= 1
            waits.set()
        assert waiting.result().choices  # who was let in is answered
        until(lambda: live.num_open == 0)
        assert client.completions.create(model="tiny", prompt="Once").choices


def _ids(text: str) -> list[int]:
    import tiny

    ids: list[int] = tiny.tokenizer()(text)["input_ids"]
    return ids


def test_an_error_in_mid_stream_is_raised_by_the_client(client: OpenAI, live: Live) -> None:
    huge = {
        spectra.key(target): spectra.torch.full((spectra.N,), 3e38) for target in spectra.TARGETS
    }
    assert live.upload("huge", spectra.files(changed=huge)).status_code in (200, 201)
    with live.paused():
        chunks = client.completions.create(model="huge", prompt="Once", stream=True)
    with pytest.raises(openai.APIError, match="not finite") as caught:
        list(chunks)
    assert caught.value.code == "internal_error"

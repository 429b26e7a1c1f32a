"""OpenAI's Responses API, by OpenAI's own Python client and over plain HTTP."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Literal

import httpx2
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

import spectra
from api_contract import check_event
from live import Live
from waiting import until

ASKED: dict[str, Any] = {"model": "resp", "temperature": 0, "max_output_tokens": 12}
TEXT = {"type": "input_text", "text": "Hi"}
SAID = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
}
CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "a", "output": "1"}


@pytest.fixture(scope="module", autouse=True)
def _adapter(live: Live) -> None:
    assert live.upload("resp", spectra.files(31)).status_code in (200, 201)


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        with closing(OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)) as made:
            yield made


def chat(live: Live, messages: list[dict[str, Any]], **params: Any) -> dict[str, Any]:
    """Return the chat's choice that a response is to have the text of."""
    body = {"model": "resp", "temperature": 0, "max_tokens": 12, "messages": messages, **params}
    answer = live.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return {**answer.json(), "choice": answer.json()["choices"][0]}


def events_of(live: Live, **params: Any) -> list[dict[str, Any]]:
    """Return a stream's events, each checked against the document and its name."""
    body = {**ASKED, "input": "Hello", **params, "stream": True}
    with live.http.stream("POST", "/v1/responses", json=body) as answer:
        assert answer.status_code == 200
        found = list(httpx2.EventSource(answer))
    for event in found:
        assert event.event == event.json()["type"]
        check_event(answer, event.json())
    return [event.json() for event in found]


def test_a_response_says_what_the_chat_says(client: OpenAI, live: Live) -> None:
    told = client.responses.create(**ASKED, input="Hello", metadata={"team": "blue"})
    same = chat(live, [{"role": "user", "content": "Hello"}])
    assert told.output_text == same["choice"]["message"]["content"]
    assert told.usage is not None
    assert told.usage.input_tokens == same["usage"]["prompt_tokens"]
    assert told.usage.output_tokens == same["usage"]["completion_tokens"]
    assert told.usage.total_tokens == same["usage"]["total_tokens"]
    assert (told.object, told.model, told.metadata) == ("response", "resp", {"team": "blue"})
    assert told.model_extra is not None
    assert told.model_extra["overtone"]["digest"] == same["overtone"]["digest"]
    assert told.model_extra["store"] is False


def test_a_response_that_is_cut_is_incomplete_and_says_why(client: OpenAI, live: Live) -> None:
    told = client.responses.create(**ASKED, input="Hello", extra_body={"ignore_eos": True})
    assert (told.status, told.output[-1].status) == ("incomplete", "incomplete")  # type: ignore[union-attr]
    assert told.incomplete_details is not None
    assert told.incomplete_details.reason == "max_output_tokens"
    import tiny

    bias = {"logit_bias": {str(tiny.EOS): 100}}
    told = client.responses.create(**ASKED, input="Hello", extra_body=bias)
    assert (told.status, told.output_text) == ("completed", "")
    assert told.incomplete_details is None
    assert [item.type for item in told.output] == ["message"]


def test_a_conversation_goes_on_with_an_earlier_responses_output(
    client: OpenAI, live: Live
) -> None:
    said: Any = [{"role": "user", "content": [{"type": "input_text", "text": "Hel"}]}]
    first = client.responses.create(**ASKED, input=said, instructions="Be kind.")
    history = [*said, *first.output, {"type": "message", "role": "user", "content": "More"}]
    second = client.responses.create(**ASKED, input=history, instructions="Be brief.")
    same = chat(
        live,
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hel"},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "More"},
        ],
    )
    assert second.output_text == same["choice"]["message"]["content"]
    assert second.instructions == "Be brief."


def test_sampling_is_as_a_chats(client: OpenAI, live: Live) -> None:
    asked = {"temperature": 1.3, "top_p": 0.8}
    told = client.responses.create(
        model="resp", input="Hello", max_output_tokens=12, **asked, extra_body={"seed": 5}
    )
    same = chat(live, [{"role": "user", "content": "Hello"}], **asked, seed=5)
    assert told.output_text == same["choice"]["message"]["content"]
    assert (told.temperature, told.top_p) == (1.3, 0.8)


def test_a_stream_is_the_whole_response_in_events(client: OpenAI) -> None:
    bias = {"logit_bias": {"97": 100}, "stop_token_ids": None}
    whole = client.responses.create(**ASKED, input="Hello", extra_body=bias)
    with client.responses.stream(**ASKED, input="Hello", extra_body=bias) as stream:
        events: list[Any] = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    last = events[-1]
    assert last.type == f"response.{whole.status}"
    assert last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage


def test_the_events_of_a_text_come_in_openais_order(live: Live) -> None:
    events = events_of(live)
    kinds = [event["type"] for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas >= 2
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        events[-1]["type"],
    ]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    first, last = events[0]["response"], events[-1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    assert first["id"] == last["id"]
    (item,) = last["output"]
    assert events[-2]["item"] == item
    assert {event["item_id"] for event in events if "item_id" in event} == {item["id"]}


def test_an_answer_without_text_has_an_empty_message(live: Live) -> None:
    import tiny

    events = events_of(live, logit_bias={str(tiny.EOS): 100})
    assert events[-1]["type"] == "response.completed"
    (item,) = events[-1]["response"]["output"]
    assert (item["content"][0]["text"], item["status"]) == ("", "completed")


class Verdict(BaseModel):
    """What an answer is held to."""

    is_good: bool
    kind: Literal["poem", "prose"]


def test_an_answer_is_parsed_by_a_schema_whole_and_streamed(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "resp", "input": "Hello", "temperature": 0}
    whole = client.responses.parse(**asked, text_format=Verdict)
    assert isinstance(whole.output_parsed, Verdict)
    with client.responses.stream(**asked, text_format=Verdict) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == whole.output_parsed
    assert whole.text is not None
    assert whole.text.format is not None
    assert (whole.text.format.type, whole.status) == ("json_schema", "completed")


def test_an_answer_may_be_any_json_object(live: Live) -> None:
    body = {**ASKED, "input": "Hello", "text": {"format": {"type": "json_object"}}}
    told = live.http.post("/v1/responses", json=body).json()
    assert told["output"][0]["content"][0]["text"].startswith("{")
    assert told["text"] == {"format": {"type": "json_object"}}


def test_an_error_in_mid_stream_is_a_failed_response(client: OpenAI, live: Live) -> None:
    huge = {
        spectra.key(target): spectra.torch.full((spectra.N,), 3e38) for target in spectra.TARGETS
    }
    assert live.upload("huge", spectra.files(changed=huge)).status_code in (200, 201)
    with live.paused():
        stream = client.responses.create(model="huge", input="Hello", stream=True)
    *_, last = stream
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    assert last.response.error.type == "internal_error"
    assert "not finite" in last.response.error.message
    assert last.response.status == "failed"


def test_headers_come_before_the_first_token(live: Live) -> None:
    body = {**ASKED, "model": "tiny", "input": "Hello", "stream": True}
    with live.paused():
        request = live.http.build_request("POST", "/v1/responses", json=body)
        answer = live.http.send(request, stream=True)
        assert (answer.status_code, answer.headers["X-Overtone-Adapter"]) == (200, "tiny")
        assert next(answer.iter_lines()) == "event: response.created"
    answer.close()
    until(lambda: live.num_open == 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("params", "status", "param"),
    [
        ({"store": True}, 400, "store"),
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"conversation": "conv_1"}, 400, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, 400, "prompt"),
        ({"background": True}, 400, "background"),
        ({"include": ["message.output_text.logprobs"]}, 400, "include"),
        ({"reasoning": {"effort": "high"}}, 400, "reasoning"),
        ({"truncation": "auto"}, 400, "truncation"),
        ({"top_logprobs": 3}, 400, "top_logprobs"),
        ({"max_tool_calls": 3}, 400, "max_tool_calls"),
        ({"n": 2}, 400, "n"),
        ({"messages": []}, 400, "messages"),
        ({"max_output_tokens": 0}, 400, "max_output_tokens"),
        ({"max_output_tokens": 5000}, 400, "input"),
        ({"input": "a" * 3000}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 400, "input[0].type"),
        ({"input": [{"type": "reasoning", "id": "r", "summary": []}]}, 400, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, 400, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            400,
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "assistant", "content": "", "tool_calls": [{"id": "a"}]}]},
            400,
            "input[0].tool_calls",
        ),
        (
            {"input": [{"role": "user", "content": [{**TEXT, "file_url": "x"}]}]},
            400,
            "input[0].content[0].file_url",
        ),
        ({"input": [{**CALL, "namespace": "x"}, RESULT]}, 400, "input[0].namespace"),
        ({"input": [CALL, {**RESULT, "is_error": True}]}, 400, "input[1].is_error"),
        (
            {"input": [{"type": "function_call", "call_id": "a", "arguments": "{}"}]},
            400,
            "input[0].name",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "a"}]}, 400, "input[0].output"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools[0].type"),
        ({"text": {"format": {"type": "yaml"}}}, 400, "text.format"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "no"}}}},
            400,
            "text.format.schema",
        ),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, 400, "text.format.schema"),
        ({"text": {"verbosity": "low"}}, 400, "text.verbosity"),
        ({"metadata": {"k": 1}}, 400, "metadata.k"),
        ({"model": "nobody"}, 404, None),
    ],
)
def test_what_is_not_served_is_refused_by_its_name(
    client: OpenAI, live: Live, params: dict[str, Any], status: int, param: str | None, stream: bool
) -> None:
    body = {**ASKED, "input": "Hello", **params, "stream": stream}
    answer = live.http.post("/v1/responses", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
    until(lambda: live.num_open == 0)


@pytest.mark.parametrize(
    "params",
    [
        {"store": False},
        {"background": False, "truncation": "disabled", "include": [], "reasoning": {}},
        {"include": ["reasoning.encrypted_content"], "top_logprobs": 0, "service_tier": "auto"},
        {"user": "me", "prompt_cache_key": "k", "safety_identifier": "s"},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"previous_response_id": None, "tools": [], "tool_choice": "auto"},
        {"stream_options": {"include_obfuscation": False}},
        {"input": [{"type": "message", "id": "m", "role": "user", "content": [TEXT]}]},
        {"input": [{**SAID, "phase": "final_answer"}, {"role": "user", "content": "x"}]},
        {"input": [{**CALL, "id": "f", "status": None, "namespace": None}, RESULT]},
        {"input": [CALL, {**RESULT, "id": "r", "status": "completed", "name": "f"}]},
    ],
)
def test_what_changes_nothing_is_taken(live: Live, params: dict[str, Any]) -> None:
    answer = live.http.post("/v1/responses", json={**ASKED, "input": "Hello", **params})
    assert answer.status_code == 200, answer.text


def test_openais_client_raises_its_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nobody", input="Hello")
    with pytest.raises(openai.BadRequestError, match="send the whole input"):
        client.responses.create(model="resp", input="Hello", previous_response_id="resp_1")
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="resp", input="a" * 3000)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


def test_events_are_json_objects_each_on_a_line(live: Live) -> None:
    body = {**ASKED, "input": "Hello", "stream": True}
    text = live.http.post("/v1/responses", json=body).text
    *events, end = text.split("\n\n")
    assert end == ""
    for event in events:
        name, data = event.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from overtone_client import (
    AnsweredBy,
    AsyncClient,
    ChatChunk,
    ChatCompletion,
    Client,
    Completion,
    ConnectionLost,
    InvalidArgument,
    InvalidResponse,
    Message,
    ModelNotFound,
    Overloaded,
    RankedDocument,
    TooLarge,
    ToolCall,
    Usage,
)

from .fake_overtone import State, caller_left

USER = [{"role": "user", "content": "hi"}]


def test_completion_says_what_answered(client: Client, state: State) -> None:
    answer = client.complete("demo", "Once", max_tokens=4, temperature=None)
    assert answer.text == "Hello, world"
    assert answer.choices[0].token_ids == (1, 2)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage == Usage(3, 2, 5)
    assert answer.answered_by == AnsweredBy("demo", 1, "sha256:0", "factored")
    assert state.bodies == [{"model": "demo", "prompt": "Once", "max_tokens": 4}]


def test_chat_answers_with_a_message(client: Client, state: State) -> None:
    answer = client.chat("demo@1", USER, seed=7)
    assert answer.choices[0].message == Message("assistant", "Hello, world")
    assert answer.text == "Hello, world"
    assert answer.model == "demo@1"
    assert state.bodies == [{"model": "demo@1", "messages": USER, "seed": 7}]


TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def test_a_chat_has_the_calls_of_functions_whole_and_in_pieces(
    client: Client, state: State
) -> None:
    answer = client.chat("calls", USER, tools=TOOLS, tool_choice="required")
    assert state.bodies[0]["tools"] == TOOLS
    (choice,) = answer.choices
    assert choice.tool_calls == (
        ToolCall(0, "c1", "weather", "{}"),
        ToolCall(1, "c2", "weather", "{}"),
    )
    assert answer.text == ""
    chunks = client.stream_chat("calls", USER, tools=TOOLS)
    pieces = [call for chunk in chunks for one in chunk.choices for call in one.tool_calls]
    assert pieces == [
        ToolCall(0, "c1", "weather", ""),
        ToolCall(0, None, None, "{"),
        ToolCall(0, None, None, "}"),
    ]


def test_a_reranking_has_its_documents_in_order(client: Client, state: State) -> None:
    found = client.rerank("org/judge", "long?", ("aa", "aaaa", "aaa"), top_n=2, truncate=True)
    assert found.results == (RankedDocument(1, 0.4, "aaaa"), RankedDocument(2, 0.3, "aaa"))
    assert found.usage == Usage(3, 0, 3)
    assert found.answered_by == AnsweredBy("org/judge", 1, "sha256:0", "factored")
    asked = {"model": "org/judge", "query": "long?", "documents": ["aa", "aaaa", "aaa"]}
    assert state.bodies == [asked | {"top_n": 2, "truncate": True}]


def test_scores_come_in_the_order_of_the_pairs(client: Client, state: State) -> None:
    assert client.score("judge", "q", ("a", "bb")).scores == (0.1, 0.2)
    assert client.score("judge", ["x"], "bbb").scores == (0.3,)
    assert state.bodies == [
        {"model": "judge", "text_1": "q", "text_2": ["a", "bb"]},
        {"model": "judge", "text_1": ["x"], "text_2": "bbb"},
    ]


def test_streams_yield_the_pieces(client: Client, state: State) -> None:
    assert [chunk.text for chunk in client.stream_complete("demo", "x")] == [
        "Hello",
        ", \x1b[31mworld",
        "",
    ]
    chunks = list(client.stream_chat("demo", USER, max_tokens=9))
    assert "".join(chunk.text for chunk in chunks) == "Hello, \x1b[31mworld"
    assert chunks[-1].usage == Usage(3, 2, 5)
    assert chunks[0].answered_by == AnsweredBy("demo", 1, "sha256:0", "factored")
    assert state.bodies[1] == {
        "model": "demo",
        "messages": USER,
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    list(client.stream_complete("demo", "x", stream_options={"include_usage": False}))
    assert state.bodies[2]["stream_options"] == {"include_usage": False}


def test_a_comparison_has_each_models_answer_or_error(client: Client, state: State) -> None:
    found = client.compare(["demo", "fails", "tiny"], "Once", max_tokens=4, seed=None)
    assert [(each.index, each.model) for each in found.answers] == [
        (0, "demo"),
        (1, "fails"),
        (2, "tiny"),
    ]
    good, failed, other = found.answers
    assert (good.text, good.error) == ("Hello, world", None)
    assert isinstance(good.answer, Completion)
    assert (failed.text, failed.answer) == ("", None)
    assert isinstance(failed.error, TooLarge)
    assert other.answer is not None
    assert other.answer.answered_by == AnsweredBy("tiny", 1, "sha256:0", "factored")
    chat = client.compare(["demo"], messages=USER)
    assert isinstance(chat.answers[0].answer, ChatCompletion)
    assert state.bodies == [
        {"models": ["demo", "fails", "tiny"], "prompt": "Once", "max_tokens": 4},
        {"models": ["demo"], "messages": USER},
    ]


def test_a_streamed_comparison_goes_on_after_one_models_error(client: Client) -> None:
    chunks = list(client.stream_compare(["demo", "fails"], messages=USER))
    assert [(each.model, each.text) for each in chunks] == [
        ("demo", "Hello"),
        ("fails", ""),
        ("demo", ", world"),
    ]
    assert isinstance(chunks[1].error, TooLarge)
    assert isinstance(chunks[0].chunk, ChatChunk)


@pytest.mark.parametrize("asked", [{}, {"prompt": "x", "messages": USER}])
def test_a_comparison_has_either_a_prompt_or_messages(client: Client, asked: Any) -> None:
    with pytest.raises(InvalidArgument, match="either a prompt or messages"):
        client.compare(["demo"], **asked)


@pytest.mark.anyio
async def test_async_comparisons_are_the_same(async_client: AsyncClient) -> None:
    found = await async_client.compare(["demo", "fails"], "Once")
    assert [each.text for each in found.answers] == ["Hello, world", ""]
    chunks = [each async for each in async_client.stream_compare(["demo", "fails"], "Once")]
    assert "".join(each.text for each in chunks) == "Hello, world"


@pytest.mark.anyio
async def test_async_answers_are_the_same(async_client: AsyncClient) -> None:
    assert (await async_client.rerank("judge", "q", ["a", "bb"])).results[0].index == 1
    assert (await async_client.score("judge", "q", ["a", "bb"])).scores == (0.1, 0.2)
    assert (await async_client.complete("demo", "x")).text == "Hello, world"
    assert (await async_client.chat("demo", USER)).text == "Hello, world"
    pieces = [chunk.text async for chunk in async_client.stream_complete("demo", "x")]
    assert pieces == ["Hello", ", \x1b[31mworld", ""]
    assert [chunk.text async for chunk in async_client.stream_chat("demo", USER)] == pieces


def test_missing_model_is_an_error_before_the_first_piece(client: Client) -> None:
    with pytest.raises(ModelNotFound, match="missing-one") as caught:
        next(client.stream_chat("missing-one", USER))
    assert caught.value.request_id == "req-1"


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("fails-midway", Overloaded),
        ("cut", ConnectionLost),
        ("ends-early", ConnectionLost),
        ("garbled", InvalidResponse),
    ],
)
def test_broken_stream_raises_after_its_first_pieces(
    client: Client, model: str, error: type[Exception]
) -> None:
    pieces = client.stream_complete(model, "x")
    assert next(pieces).text == "Hello"
    with pytest.raises(error):
        list(pieces)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("missing", ModelNotFound),
        ("fails-midway", Overloaded),
        ("cut", ConnectionLost),
        ("ends-early", ConnectionLost),
        ("garbled", InvalidResponse),
    ],
)
async def test_broken_async_stream_raises_the_same(
    url: str, model: str, error: type[Exception]
) -> None:
    async with AsyncClient(url) as client:
        with pytest.raises(error):
            [chunk async for chunk in client.stream_chat(model, USER)]


def test_error_in_mid_stream_has_the_status_of_its_code(client: Client) -> None:
    with pytest.raises(Overloaded, match="too many at once") as caught:
        list(client.stream_chat("fails-midway", USER))
    assert (caught.value.status, caught.value.code) == (429, "overloaded")


def test_closing_a_stream_cancels_it_and_leaves_the_client_usable(client: Client) -> None:
    caller_left.clear()
    pieces = client.stream_complete("hangs", "x")
    assert next(pieces).text == "Hello"
    pieces.close()
    assert caller_left.wait(10)
    assert client.complete("demo", "x").text == "Hello, world"


@pytest.mark.anyio
async def test_closing_an_async_stream_does_the_same(url: str) -> None:
    caller_left.clear()
    async with AsyncClient(url) as client:
        pieces = client.stream_complete("hangs", "x")
        assert (await anext(pieces)).text == "Hello"
        await pieces.aclose()
        assert caller_left.wait(10)  # the server runs in another thread
        assert (await client.complete("demo", "x")).text == "Hello, world"


class Endless(httpx2.SyncByteStream):
    is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b'data: {"model": "m", "choices": []}\n\n'

    def close(self) -> None:
        self.is_closed = True


def test_closing_a_stream_gives_its_connection_back() -> None:
    body = Endless()
    headers = {"content-type": "text/event-stream"}
    answer = httpx2.Response(200, stream=body, headers=headers)
    with Client(transport=httpx2.MockTransport(lambda _: answer)) as client:
        pieces = client.stream_chat("m", USER)
        next(pieces)
        assert not body.is_closed
        pieces.close()
        assert body.is_closed


def test_answer_that_is_no_stream_is_an_invalid_response() -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"choices": []}))
    with Client(transport=transport) as client, pytest.raises(InvalidResponse, match="event-str"):
        list(client.stream_chat("demo", USER))


def test_comments_and_split_lines_of_a_stream_are_understood() -> None:
    body = (
        b': ping\n\ndata: {"model": "m",\ndata: "choices": []}\r\n\r\ndata: [DONE]\n\ndata: x\n\n'
    )
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body, headers=headers))
    with Client(transport=transport) as client:
        assert [chunk.model for chunk in client.stream_chat("m", USER)] == ["m"]


@pytest.mark.parametrize("wrong", [{"stream": True}, {"temperature": float("nan")}, {"seed": {1}}])
def test_parameter_that_cannot_be_sent_is_refused(
    client: Client, state: State, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument):
        client.complete("demo", "x", **wrong)
    assert state.calls == []

"""Prompts that do not fit, over HTTP: what is refused, in which words, and at what cost."""

import threading
from typing import Any

import httpx2
import pytest

import tiny
from live import Live
from server.base.lengths import Lengths
from waiting import until

LIMIT = f"This model's maximum context length is {tiny.MAX_LENGTH} tokens. However, "


def chat(live: Live, text: str, **params: Any) -> httpx2.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], **params}
    return live.http.post("/v1/chat/completions", json=body)


def refused(answer: httpx2.Response, param: str) -> str:
    """Return what is said of a prompt that is too long."""
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert error["type"] == "invalid_request_error"
    message: str = error["message"]
    assert message.startswith(LIMIT)
    return message.removeprefix(LIMIT)


@pytest.mark.parametrize("stream", [False, True])
def test_without_max_tokens_a_completion_has_what_fits_up_to_16(live: Live, stream: bool) -> None:
    for length, count in ((1000, 16), (1012, 12), (1023, 1)):
        body = {"model": "tiny", "prompt": "a" * length, "ignore_eos": True, "temperature": 0}
        options = {"stream": stream, "stream_options": {"include_usage": True} if stream else None}
        answer = live.http.post("/v1/completions", json=body | options)
        assert answer.status_code == 200, answer.text
        assert f'"completion_tokens":{count},' in answer.text
    answer = live.http.post("/v1/completions", json={"model": "tiny", "prompt": "a" * 1024})
    said = refused(answer, "prompt")
    assert said.startswith("the prompt resulted in 1024 tokens, and an answer has one at least.")
    assert "max_tokens" not in said


def test_what_was_asked_for_is_told_with_its_own_names(live: Live) -> None:
    said = refused(live.complete("tiny", "a" * 1017, max_tokens=8), "prompt")
    assert "you requested 1025 tokens (1017 in the prompt, 8 in the completion)" in said
    said = refused(live.complete("tiny", "a" * 1025, max_tokens=8), "prompt")
    assert "the prompt resulted in 1025 tokens" in said
    said = refused(chat(live, "a" * 1100), "messages")
    assert "the messages" in said
    said = refused(chat(live, "a", max_completion_tokens=1024), "messages")
    assert "in the messages, 1024 in the completion)" in said


def test_a_chat_without_max_tokens_has_what_fits(live: Live) -> None:
    answer = chat(live, "a" * 1000, ignore_eos=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["total_tokens"] == tiny.MAX_LENGTH


def test_a_prompt_of_megabytes_is_refused_unread_and_nothing_waits(live: Live) -> None:
    """The tokenizer itself needs seconds for it."""
    whole = "word " * 1_400_000
    tokenize = live.service.text._tokenizer

    def read(*args: Any, **options: Any) -> Any:
        raise AssertionError("it was read")

    live.service.text._tokenizer = read
    try:
        said = refused(live.complete("tiny", whole), "prompt")
        assert "the prompt has 7000000 characters" in said
        refused(live.complete("tiny", ["a", whole]), "prompt")
        refused(chat(live, whole), "messages")
    finally:
        live.service.text._tokenizer = tokenize


def test_short_prompts_are_answered_while_long_ones_are_tokenized(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many long ones as the server has threads for everything else, and more."""
    go = threading.Event()
    tokenizer = live.service.text._tokenizer

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **options: Any) -> Any:
            if len(text) > 1000:
                go.wait(30)
            return tokenizer(text[:2000], **options)

    monkeypatch.setattr(live.service.text, "_tokenizer", Slow())
    monkeypatch.setattr(live.service.text, "lengths", Lengths(tiny.MAX_LENGTH, 1000))
    answers: list[httpx2.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(live.complete("tiny", "word " * 100_000)))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    try:
        until(lambda: live.service.tokenizing._num_long == 40)
        assert live.complete("tiny", "Once").status_code == 200
        assert not answers
    finally:
        go.set()
        for thread in threads:
            thread.join(30)
    assert {answer.status_code for answer in answers} == {400}


def test_a_fault_between_two_choices_leaves_nothing_open(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed, count = live.service.runtime._placed, 0

    def fails(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("a fault")
        return placed(*args)

    monkeypatch.setattr(live.service.runtime, "_placed", fails)
    asked: dict[str, Any] = {"n": 4, "max_tokens": 500, "ignore_eos": True}
    assert live.complete("tiny", **asked).status_code == 500
    monkeypatch.undo()
    until(lambda: live.num_open == 0)

    def no_text(*args: Any) -> Any:
        raise AttributeError("no way back to text")

    monkeypatch.setattr(live.service.text, "stream", no_text)
    assert live.complete("tiny", **asked).status_code == 500
    assert live.num_open == 0

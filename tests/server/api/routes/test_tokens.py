"""The base's tokenizer over HTTP says what transformers says."""

from typing import Any

import pytest

import tiny
from live import BASE, Live

TEXT = "Grüße, 世界 🌍"
MESSAGES = [{"role": "user", "content": TEXT}]

TOOL = {"type": "function", "function": {"name": "f"}}


def post(live: Live, path: str, **body: Any) -> dict[str, Any]:
    answer = live.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_prompt_has_the_tokens_that_a_completion_counts(live: Live) -> None:
    told = post(live, "/tokenize", prompt=TEXT, return_token_strs=True)
    ids = tiny.tokenizer()(TEXT)["input_ids"]
    assert told["tokens"] == ids
    assert told["token_strs"] == tiny.tokenizer().convert_ids_to_tokens(ids)
    usage = live.complete(BASE, TEXT).json()["usage"]
    assert told["count"] == usage["prompt_tokens"] == len(ids)
    assert told["max_model_len"] == live.service.max_length


def test_a_chat_has_the_tokens_that_an_answer_to_it_counts(live: Live) -> None:
    told = post(live, "/tokenize", messages=MESSAGES, model=BASE)
    body = {"model": BASE, "messages": MESSAGES, "max_tokens": 1}
    usage = live.http.post("/v1/chat/completions", json=body).json()["usage"]
    assert told["count"] == usage["prompt_tokens"]
    ended = post(live, "/tokenize", messages=MESSAGES, add_generation_prompt=False)
    assert told["tokens"][: ended["count"]] == ended["tokens"]
    assert told["count"] > ended["count"]


@pytest.mark.parametrize("text", [TEXT, "", " ", "<eos>"])
def test_tokens_become_their_text_again(live: Live, text: str) -> None:
    tokens = post(live, "/tokenize", prompt=text, add_special_tokens=False)["tokens"]
    assert post(live, "/detokenize", tokens=tokens) == {"prompt": text}


def test_the_tokenizer_is_described(live: Live) -> None:
    told = live.http.get("/tokenizer_info").json()
    assert told["eos_token"] == "<eos>"
    assert told["chat_template"] == tiny.CHAT_TEMPLATE
    assert told["bos_token"] is None


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, 400, "prompt"),
        (
            "/tokenize",
            {"messages": MESSAGES, "add_special_tokens": True},
            400,
            "add_special_tokens",
        ),
        ("/tokenize", {"messages": [{"role": "nobody", "content": ""}]}, 400, "messages[0].role"),
        ("/tokenize", {"prompt": "a", "model": "nobody"}, 404, None),
        ("/tokenize", {"prompt": "a" * 1_000_000}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "max_tokens": 3}, 400, "max_tokens"),
        ("/tokenize", {"messages": MESSAGES, "tools": [TOOL, TOOL]}, 400, "tools[1].function.name"),
        (
            "/tokenize",
            {"messages": MESSAGES, "continue_final_message": True},
            400,
            "continue_final_message",
        ),
        (
            "/tokenize",
            {"prompt": "a", "continue_final_message": True},
            400,
            "continue_final_message",
        ),
        ("/tokenize", {"prompt": "a", "tools": [TOOL]}, 400, "tools"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": True}, 400, "add_generation_prompt"),
        (
            "/tokenize",
            {"prompt": "a", "chat_template_kwargs": {"enable_thinking": False}},
            400,
            "chat_template_kwargs",
        ),
        ("/detokenize", {"tokens": [99999]}, 400, "tokens"),
        ("/detokenize", {"tokens": [1], "model": "nobody"}, 404, None),
        ("/detokenize", {"tokens": "abc"}, 400, "tokens"),
    ],
)
def test_what_is_no_request_is_refused_by_name(
    live: Live, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = live.http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)

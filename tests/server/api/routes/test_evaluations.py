"""POST /v1/evaluations: figures of served answers, and what is wrong with a request for them."""

import json
from typing import Any

import httpx2
import pytest
import torch

import tiny
from live import Live
from training_parts import file_id, jsonl

ROWS = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(30)]


def asked(server: Live, content: bytes | None = None, **more: Any) -> httpx2.Response:
    id_ = file_id(server, jsonl(*ROWS) if content is None else content)
    return server.http.post("/v1/evaluations", json={"model": "tiny", "file": id_, **more})


def test_the_bases_figures_are_transformers(live: Live) -> None:
    model, tokenizer = tiny.model("llama"), tiny.tokenizer()
    loss, count, right = 0.0, 0, 0
    for row in ROWS:
        before = tokenizer(row["prompt"]).input_ids
        ids = torch.tensor([before + tokenizer(row["completion"]).input_ids + [tiny.EOS]])
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, len(before) - 1 : -1].double()
        true = ids[0, len(before) :]
        loss += float(torch.nn.functional.cross_entropy(logits, true, reduction="sum"))
        count, right = count + len(true), right + int((logits.argmax(1) == true).sum())
    answer = asked(live)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["object"], body["model"], body["num_examples"]) == ("evaluation", "tiny", 30)
    assert body["metrics"]["eval_loss"] == pytest.approx(loss / count, rel=1e-5)
    assert body["metrics"]["accuracy"] == pytest.approx(right / count, abs=1e-9)
    assert answer.headers["X-Overtone-Adapter"] == "tiny"


def test_a_stream_says_how_far_it_is_and_ends_with_the_figures(live: Live) -> None:
    with live.http.stream("POST", "/v1/evaluations", json=streamed(live)) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    *events, end = lines
    found = [json.loads(event) for event in events]
    assert end == "[DONE]"
    assert {event["object"] for event in found[:-1]} == {"evaluation.progress"}
    assert all(0 <= event["done"] <= event["total"] == 30 for event in found[:-1])
    assert found[-1]["metrics"] == asked(live).json()["metrics"]


def streamed(server: Live) -> dict[str, Any]:
    return {"model": "tiny", "file": file_id(server, jsonl(*ROWS)), "stream": True}


def test_a_fault_in_mid_stream_is_an_event(live: Live) -> None:
    rows = [*ROWS, {"text": "x" * 2000}]
    body = {"model": "tiny", "file": file_id(live, jsonl(*rows)), "stream": True}
    text = live.http.post("/v1/evaluations", json=body).text
    assert "line 31" in text
    assert text.endswith("data: [DONE]\n\n")


def test_long_texts_are_refused_with_the_way_out_or_cut_as_in_training(live: Live) -> None:
    content = jsonl({"text": "abc " * 400})
    answer = asked(live, content)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    message = answer.json()["error"]["message"]
    assert "line 1: has 1601 tokens" in message
    assert "max_length" in message
    cut = asked(live, content, max_length=33)
    whole = asked(live, jsonl({"text": ("abc " * 400)[:33]}), max_length=33)
    assert cut.json()["metrics"] == whole.json()["metrics"]


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "nobody"}, 404, None),
        ({"file": "file-000000000000000000000000"}, 404, None),
        ({"max_length": 1}, 400, "max_length"),
        ({"stream": "yes"}, 400, "stream"),
        ({"batch": 3}, 400, "batch"),
    ],
)
def test_bad_requests_are_refused_by_name(
    live: Live, changes: dict[str, Any], status: int, param: str | None
) -> None:
    error = asked(live, **changes)
    assert error.status_code == status, error.text
    assert error.json()["error"]["param"] == param


def test_a_file_with_faults_is_refused_with_the_first(live: Live) -> None:
    answer = asked(live, jsonl(*ROWS[:2]) + b'{"nothing": 1}\n')
    assert answer.status_code == 400
    assert "line 3" in answer.json()["error"]["message"]


def test_requests_beside_an_evaluation_answer_as_without(live: Live) -> None:
    before = live.tokens("tiny")
    with live.http.stream("POST", "/v1/evaluations", json=streamed(live)) as answer:
        assert live.tokens("tiny") == before
        answer.read()
    assert live.http.get("/health/ready").status_code == 200

"""Embedders behind /v1/embeddings, asked by OpenAI's own Python client."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny_encoders as te
from live import Live, serving, settings_of

TOLERANCE = 1e-5
TEXTS = ["short", "A sentence that is a good deal longer than the other one.", "ünï"]


@dataclass(frozen=True)
class Case:
    live: Live
    folder: Path
    made: list[te.Made]
    client: openai.OpenAI


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, few_threads: None
) -> Iterator[Callable[..., Live]]:
    with ExitStack() as stack:

        def run(folder: Path, **changes: Any) -> Live:
            data = tmp_path_factory.mktemp("data")
            return stack.enter_context(serving(settings_of(folder, data, **changes)))

        yield run


@pytest.fixture(scope="module", params=("bert", "modernbert"))
def case(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    start: Callable[..., Live],
) -> Iterator[Case]:
    shape, tmp = request.param, tmp_path_factory.mktemp(request.param)
    folder = te.save(tmp / "base", shape, is_embedder=True)
    made = [
        te.make(te.reference(folder, shape, is_embedder=True), config, tmp / f"e{number}", number)
        for number, config in enumerate(te.configs(shape, "FEATURE_EXTRACTION", None))
    ]
    live = start(folder)
    for one in made:
        assert live.upload(one.name, one.files).status_code == 201
    http = httpx2.Client(trust_env=False)
    with openai.OpenAI(base_url=live.url + "/v1", api_key="any", http_client=http) as client:
        yield Case(live, folder, made, client)


@torch.inference_mode()
def mean_of(model: Any, text: str) -> Tensor:
    hidden: Tensor = model(**te.inputs_of(text)).last_hidden_state[0]
    return F.normalize(hidden.mean(0), dim=0)


def ask(live: Live, **body: Any) -> httpx2.Response:
    return live.http.post("/v1/embeddings", json={"model": "tiny"} | body)


def vectors(answer: httpx2.Response) -> list[Tensor]:
    assert answer.status_code == 200, answer.text
    return [torch.tensor(row["embedding"]) for row in answer.json()["data"]]


def test_openais_client_gets_what_peft_computes(case: Case) -> None:
    for made in case.made:
        answer = case.client.embeddings.create(model=made.name, input=TEXTS)  # base64 underneath
        assert [row.index for row in answer.data] == [0, 1, 2]
        for row, text in zip(answer.data, TEXTS, strict=True):
            want = mean_of(made.model, text)
            assert torch.allclose(torch.tensor(row.embedding), want, atol=TOLERANCE)
        count = sum(te.inputs_of(text)["input_ids"].numel() for text in TEXTS)
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (count, count)


def test_openais_client_gets_the_bases_own(case: Case) -> None:
    shape = case.live.service.base.model.config.model_type
    model = te.reference(case.folder, shape, is_embedder=True)
    answer = case.client.embeddings.create(model="tiny", input="short", encoding_format="float")
    want = mean_of(model, "short")
    assert torch.allclose(torch.tensor(answer.data[0].embedding), want, atol=TOLERANCE)


def test_base64_holds_the_same_numbers(case: Case) -> None:
    plain = vectors(ask(case.live, input=TEXTS))
    coded = ask(case.live, input=TEXTS, encoding_format="base64").json()["data"]
    for row, values in zip(coded, plain, strict=True):
        raw = bytearray(base64.b64decode(row["embedding"]))
        assert torch.equal(torch.frombuffer(raw, dtype=torch.float32), values)


def test_token_ids_are_taken_as_they_are(case: Case) -> None:
    ids = te.inputs_of("short")["input_ids"][0].tolist()
    (from_text,) = vectors(ask(case.live, input="short"))
    (from_ids,) = vectors(ask(case.live, input=ids))
    assert torch.equal(from_text, from_ids)
    assert len(vectors(ask(case.live, input=[ids, ids[:3]]))) == 2


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": []}, "invalid_request", "input"),
        ({"input": "x" * 200}, "context_length_exceeded", "input"),
        ({"input": "x", "dimensions": 12}, "invalid_request", "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "invalid_request", "encoding_format"),
        ({"input": "x", "prompt_name": "query"}, "invalid_request", "prompt_name"),
        ({"input": "x", "prompt": "query: "}, "unsupported_parameter", "prompt"),
    ],
)
def test_bad_requests_are_refused_by_name(
    case: Case, body: dict[str, Any], code: str, param: str
) -> None:
    answer = ask(case.live, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


def test_openais_client_sees_an_unknown_model_as_not_found(case: Case) -> None:
    with pytest.raises(openai.NotFoundError):
        case.client.embeddings.create(model="nobody", input="x")


def test_an_embedder_does_not_classify_and_takes_no_heads(case: Case) -> None:
    answer = case.live.http.post("/v1/classify", json={"model": "tiny", "input": "x"})
    assert answer.status_code == 400
    assert "/v1/embeddings" in answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def prompted(
    tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Live]
) -> tuple[Live, Any]:
    """A sentence-transformers folder with prompts, and lower case, and its model."""
    folder = te.save(tmp_path_factory.mktemp("st") / "base", "roberta", is_embedder=True)
    steps = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"type": f"sentence_transformers.models.{s}", "path": path} for s, path in steps]
    (folder / "1_Pooling").mkdir()
    files: dict[str, Any] = {
        "modules.json": modules,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True, "include_prompt": True},
        "sentence_bert_config.json": {"max_seq_length": 60, "do_lower_case": True},
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "5.0.0"},
            "prompts": {"query": "Query: ", "document": ""},
            "default_prompt_name": "query",
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return start(folder), te.reference(folder, "roberta", is_embedder=True)


@pytest.mark.parametrize(
    ("prompt_name", "before"), [(None, "query: "), ("query", "query: "), ("document", "")]
)
def test_prompts_and_lower_case_of_a_folder_are_followed(
    prompted: tuple[Live, Any], prompt_name: str | None, before: str
) -> None:
    live, model = prompted
    asked = {} if prompt_name is None else {"prompt_name": prompt_name}
    for text in ("Short", "  white Space around ", "ÜNÏ"):
        (got,) = vectors(ask(live, input=text, **asked))
        # sentence-transformers: the prompt in front, then strip(), then lower()
        want = mean_of(model, (before + text).strip().lower())
        assert torch.allclose(got, want, atol=TOLERANCE)
    long = ask(live, input="x" * (60 - len(before) - 1), **asked).json()["error"]
    assert long["code"] == "context_length_exceeded", "a prompt counts"


def test_a_prompt_that_cannot_be_had_is_refused_by_name(prompted: tuple[Live, Any]) -> None:
    live, _ = prompted
    told = ask(live, input="x", prompt_name="nope").json()["error"]
    assert (told["param"], told["code"]) == ("prompt_name", "invalid_request")
    assert "'query', 'document'" in told["message"]
    told = ask(live, input=[1, 2], prompt_name="query").json()["error"]
    assert "not token ids" in told["message"]
    shown = live.http.get("/v1/models/tiny").json()["overtone"]
    assert (shown["default_prompt_name"], shown["prompts"]["query"]) == ("query", "Query: ")


@pytest.mark.parametrize(
    ("flag", "normalize"),
    [("pooling_mode_cls_token", False), ("pooling_mode_max_tokens", True)],
)
def test_a_sentence_transformers_folder_is_followed(
    tmp_path: Path, start: Callable[..., Live], flag: str, normalize: bool
) -> None:
    folder = te.save(tmp_path / "base", "bert", is_embedder=True)
    steps = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{step}"}
        for i, (step, path) in enumerate(zip(steps, paths, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({flag: True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}))
    live = start(folder)
    with torch.inference_mode():
        model = te.reference(folder, "bert", is_embedder=True)
        hidden = model(**te.inputs_of("short")).last_hidden_state[0]
    pooled = hidden[0] if "cls" in flag else hidden.amax(0)
    want = F.normalize(pooled, dim=0) if normalize else pooled
    assert torch.allclose(vectors(ask(live, input="short"))[0], want, atol=TOLERANCE)
    assert "length is 40 tokens" in ask(live, input="x" * 50).json()["error"]["message"]

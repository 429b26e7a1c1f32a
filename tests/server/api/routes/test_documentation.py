"""The OpenAPI document says what the server takes and gives; its page needs no other host."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

import spectra
from api_contract import api_document, check_event, operation_of
from live import Live
from registry.access.record import SCOPES
from server.api.batch_schemas import BatchCreation
from server.api.callers import OPEN_PATHS
from server.api.chat_schemas import ChatRequest
from server.api.compare_schemas import CompareChats, CompareCompletions
from server.api.completion_schemas import AliasRequest, CompletionRequest
from server.api.describe import schema_of
from server.api.encoding_schemas import (
    ClassifyRequest,
    EmbeddingsRequest,
    RerankRequest,
    ScoreRequest,
)
from server.api.job_schemas import HyperparametersRequest, JobRequest
from server.api.key_schemas import KeyRequest
from server.api.limit_schemas import LimitsRequest
from server.api.responses.schemas import ResponsesRequest
from server.api.routes.evaluations import EvaluationRequest
from server.api.sharing_schemas import SharingRequest
from server.api.token_schemas import DetokenizeRequest, TokenizeRequest

ASSETS = ("/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/start.js")
CHROMIUM = shutil.which("chromium")
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in api_document()["paths"].items()
    for method, operation in operations.items()
]
named = pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[f"{m} {p}" for m, p, _ in OPERATIONS]
)


def references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own.union(*map(references, node.values()))


def body_of(operation_id: str) -> dict[str, Any]:
    """Return the schema of an operation's JSON body."""
    (operation,) = [op for *_, op in OPERATIONS if op["operationId"] == operation_id]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema: dict[str, Any] = api_document()["components"]["schemas"][reference.rpartition("/")[2]]
    return schema


def test_the_server_gives_the_document_that_is_checked_here(live: Live) -> None:
    assert live.http.get("/openapi.json").json() == api_document()


@named
def test_every_operation_says_what_it_does_takes_gives_and_refuses(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    assert operation["summary"].endswith((".", "?"))
    assert operation["tags"]
    assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", operation["operationId"])
    is_open = path.startswith("/health")
    scopes = [scope for way in operation["security"] for scope in way["apiKey"]]
    assert set(scopes) <= set(SCOPES)
    assert (scopes == []) == is_open == (path in OPEN_PATHS)
    codes = set(operation["responses"])
    assert codes & {"200", "201"}
    assert "500" in codes
    assert ("401" in codes) == (not is_open)
    assert ("insufficient_scope" in operation["responses"]["403"]["description"]) == (not is_open)
    for parameter in operation["parameters"]:
        assert "$ref" in parameter or parameter["description"]
    for response in operation["responses"].values():
        assert response["description"]
        assert "X-Request-Id" in response["headers"]
        for media in response["content"].values():
            assert "schema" in media or "itemSchema" in media


def test_every_operation_has_an_id_of_its_own() -> None:
    ids = [operation["operationId"] for *_, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


def test_every_reference_leads_somewhere() -> None:
    components = api_document()["components"]
    for reference in references(api_document()):
        _, _, kind, name = reference.split("/")
        assert name in components[kind]


def test_every_schema_is_a_schema_and_its_fields_are_described() -> None:
    for schema in api_document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
        assert schema["description"]
        assert "Args:" not in schema["description"]
    for name in ("CompletionRequest", "ChatRequest", "JobRequest", "HyperparametersRequest"):
        properties = api_document()["components"]["schemas"][name]["properties"]
        assert [field for field, schema in properties.items() if "description" not in schema] == []


@pytest.mark.parametrize(
    ("operation_id", "model"),
    [
        ("createCompletion", CompletionRequest),
        ("createChatCompletion", ChatRequest),
        ("createFineTuningJob", JobRequest),
    ],
)
def test_a_body_has_the_fields_of_the_model_that_checks_it(operation_id: str, model: Any) -> None:
    schema = body_of(operation_id)
    assert set(model.model_fields) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    assert schema["required"] == required


def test_every_json_body_has_an_example_that_is_taken() -> None:
    models = [
        CompletionRequest,
        ChatRequest,
        ResponsesRequest,
        CompareCompletions,
        CompareChats,
        ClassifyRequest,
        EmbeddingsRequest,
        RerankRequest,
        ScoreRequest,
        EvaluationRequest,
        BatchCreation,
        JobRequest,
        TokenizeRequest,
        DetokenizeRequest,
        AliasRequest,
        KeyRequest,
        LimitsRequest,
        SharingRequest,
    ]
    contents = [_content(op) for *_, op in OPERATIONS]
    bodies = [each["application/json"]["schema"] for each in contents if "application/json" in each]
    assert sum(len(body.get("anyOf", [body])) for body in bodies) == len(models)
    for model in models:
        assert model.example is not None
        assert model.model_validate(model.example)


def _content(operation: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    return content


def test_null_and_auto_are_in_the_schema_where_they_are_taken() -> None:
    schema = schema_of(HyperparametersRequest)["$defs"]["HyperparametersRequest"]
    validator = Draft202012Validator(schema)
    for body in ({"n_epochs": "auto"}, {"n_epochs": None}, {"n_epochs": 3}):
        validator.validate(body)
        HyperparametersRequest.model_validate(body)
    assert not validator.is_valid({"n_epochs": 0})


def test_parameters_that_change_nothing_are_in_the_schema_with_their_values() -> None:
    properties = body_of("createCompletion")["properties"]
    assert properties["suffix"]["enum"] == [None, ""]
    assert "enum" not in properties["user"]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("model", ["tiny", "evented"])
def test_the_events_of_a_stream_are_as_their_schema_says(live: Live, path: str, model: str) -> None:
    live.upload("evented", spectra.files(5))
    asked = {"prompt": "Once"} if path == "/v1/completions" else {}
    chat = {"messages": [{"role": "user", "content": "Once"}]} if not asked else {}
    options = {"stream": True, "n": 2, "logprobs": True, "return_token_ids": True, "max_tokens": 4}
    options |= {"stream_options": {"include_usage": True}, "ignore_eos": True}
    body = {"model": model, **asked, **chat, **options}
    with live.http.stream("POST", path, json=body) as answer:
        events = [event for event in httpx2.EventSource(answer) if event.data != "[DONE]"]
    assert len(events) >= 9
    for event in events:
        check_event(answer, event.json())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/adapters/B%20D", 400),
        ("DELETE", "/v1/adapters/B%20D", 400),
        ("GET", "/v1/adapters/B%20D/versions", 400),
        ("POST", "/v1/adapters/B%20D/rollback", 400),
        ("GET", "/v1/models/a%0Ab", 404),
    ],
)
def test_what_a_name_that_cannot_be_gets_is_declared(
    live: Live, method: str, path: str, status: int
) -> None:
    assert live.http.request(method, path).status_code == status


def test_an_answer_that_is_not_declared_is_noticed(live: Live) -> None:
    """The check that every test's answers pass can fail."""
    operation = operation_of("GET", "/v1/workers")
    assert operation
    declared = operation["responses"].pop("200")
    try:
        with pytest.raises(AssertionError, match="not declared"):
            live.http.get("/v1/workers")
    finally:
        operation["responses"]["200"] = declared


# The page.


def test_the_page_and_its_parts_need_no_key_and_name_no_other_host(
    serve: Callable[..., Live],
) -> None:
    server = serve(api_keys=["a-key-for-the-page"])
    page = server.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    linked = re.findall(r"(?:src|href)=\"(docs[^\"]+)\"", page.text)
    assert {f"/{path}" for path in linked} == set(ASSETS)
    assert "://" not in page.text
    for path in ("/docs", "/openapi.json", *ASSETS):
        assert server.http.get(path).status_code == 200
    start = server.http.get("/docs/start.js").text
    assert 'url: "openapi.json"' in start
    assert "validatorUrl: null" in start


@pytest.mark.parametrize("path", ["/docs", *ASSETS])
def test_the_page_may_load_from_this_server_only(live: Live, path: str) -> None:
    policy = live.http.get(path).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self';" in policy
    assert "://" not in policy


@pytest.mark.parametrize("path", ASSETS[:2])
def test_a_caller_that_cannot_unpack_gets_the_same_bytes(live: Live, path: str) -> None:
    packed = live.http.get(path)
    plain = live.http.get(path, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert len(plain.content) > 100_000


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_a_browser_shows_every_operation(live: Live, tmp_path: Path) -> None:
    assert CHROMIUM
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    profile = f"--user-data-dir={tmp_path}"
    command = [CHROMIUM, *flags, *quiet, profile, "--dump-dom", f"{live.url}/docs"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=100).stdout
    shown = set(re.findall(r'id="operations-[\w-]+-([a-z]+[A-Z]\w+)"', page))
    assert shown == {operation["operationId"] for *_, operation in OPERATIONS}
    assert 'class="btn authorize' in page

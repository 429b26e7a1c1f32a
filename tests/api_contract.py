"""Holds real answers against the OpenAPI document: status, media type, headers, body, code."""

import json
import re
from functools import cache
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

from server.api.openapi import document
from server.api.parameters import AdapterConvertor
from server.app import create_app
from server.settings import Settings
from server.telemetry.metrics import Metrics

Json = dict[str, Any]


def refused() -> Any:
    raise AssertionError("the document needs no service")


@cache
def api_document() -> Json:
    """Return the document of the application; it depends on no setting."""
    return document(create_app(Settings(base="none"), Metrics(), refused))


@cache
def paths() -> list[tuple[re.Pattern[str], Json]]:
    """Return every path's pattern with its operations; those without parameters first."""
    found = sorted(api_document()["paths"].items(), key=lambda item: item[0].count("{"))
    return [(re.compile(_pattern(path)), operations) for path, operations in found]


def _pattern(path: str) -> str:
    named = re.escape(path).replace(r"\{name\}", AdapterConvertor.regex)
    return re.sub(r"\\{(\w+)\\}", "[^/]+", named)


@cache
def operation_of(method: str, path: str) -> Json | None:
    """Return what the document says of a request; None where it has nothing there."""
    for pattern, operations in paths():
        if pattern.fullmatch(path) and method.lower() in operations:
            operation: Json = operations[method.lower()]
            return operation
    return None


@cache
def _validator(text: str) -> Draft202012Validator:
    schema = {**json.loads(text), "components": api_document()["components"]}
    return Draft202012Validator(schema)


def check_schema(schema: Json, value: Any, where: str) -> None:
    """Assert that a value is as its schema says."""
    errors = sorted(_validator(json.dumps(schema)).iter_errors(value), key=str)
    assert not errors, f"{where}: {errors[0].json_path}: {errors[0].message}"


def check_answer(response: httpx2.Response) -> None:
    """Assert that an answer is one that the document says its operation gives."""
    request = response.request
    operation = operation_of(request.method, request.url.path)
    if operation is None:
        return
    where = f"{request.method} {request.url.path} answers {response.status_code}"
    declared = operation["responses"].get(str(response.status_code))
    assert declared, f"{where}, which is not declared"
    missing = [name for name in declared["headers"] if name not in response.headers]
    assert not missing, f"{where} without {missing}"
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in declared["content"], f"{where} with {media_type}"
    if media_type == "application/json":
        response.read()
        check_schema(declared["content"][media_type]["schema"], response.json(), where)


def check_event(response: httpx2.Response, event: Json) -> None:
    """Assert that an event of a stream is one that the document says its operation sends."""
    request = response.request
    operation = operation_of(request.method, request.url.path)
    assert operation
    media = operation["responses"]["200"]["content"]["text/event-stream"]
    data = media["itemSchema"]["properties"]["data"]
    told = data["anyOf"][1] if "anyOf" in data else data
    check_schema(told["contentSchema"], event, f"an event of {request.url.path}")


def checking_client(url: str, timeout: float) -> httpx2.Client:
    """Return a client that holds every answer against the document."""
    hooks = {"response": [check_answer]}
    return httpx2.Client(base_url=url, timeout=timeout, trust_env=False, event_hooks=hooks)

"""A transport that answers any request as the OpenAPI document says, with made-up values."""

import json
import re
from typing import Any
from urllib.parse import parse_qs

import httpx2

from api_contract import api_document, check_schema, operation_of

Json = dict[str, Any]


class Watched(dict[str, Any]):
    """An object that notes which fields are read that its schema does not have."""

    def __init__(self, values: Json, known: set[str], where: str, unknown: list[str]) -> None:
        super().__init__(values)
        self.known, self._where, self._unknown = known, where, unknown

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)

    def _note(self, name: str) -> None:
        if name not in self.known:
            self._unknown.append(f"{self._where}.{name}")


class Answers:
    """A transport that answers as the document says, and checks what it is asked."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.asked: list[str] = []  # ids of operations
        self.last_event = ""  # kind of the last event of a stream
        self.overrides: dict[str, Any] = {}  # values of fields of these names
        self.pages_left: dict[str, int] = {}  # of a list, before its last one
        self._samples: dict[str, Any] = {}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        operation = operation_of(request.method, request.url.path)
        assert operation, f"the client asks for {request.method} {request.url.path}"
        self.asked.append(operation["operationId"])
        check_request(operation, request)
        status = min(code for code in operation["responses"] if code < "4")
        content = operation["responses"][status]["content"]
        own = {"content-type": "text/event-stream"}
        if request_streams(request) and own["content-type"] in content:
            events = self._events(content)
            text = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
            return httpx2.Response(int(status), text=text, headers=own)
        if "application/json" not in content or "application/octet-stream" in content:
            return httpx2.Response(int(status), content=b"bytes")
        left = self.pages_left.get(operation["operationId"], 0)
        self.pages_left[operation["operationId"]] = max(left - 1, 0)
        text = self._told(content["application/json"]["schema"], has_more=left > 0)
        headers = {"content-type": "application/json", "etag": '"1"'}
        return httpx2.Response(int(status), text=text, headers=headers)

    def sample_of(self, text: str) -> Any:
        return self._samples[text]

    def _events(self, content: Json) -> list[str]:
        """Return one event of each kind but an error; the client asks each which kind it is."""
        _, told = content["text/event-stream"]["itemSchema"]["properties"]["data"]["anyOf"]
        kinds = [one for one in told["contentSchema"]["anyOf"] if "ErrorBody" not in one["$ref"]]
        kinds.sort(key=lambda one: one["$ref"].endswith(f"/{self.last_event}"))
        events = [self._told(kind) for kind in kinds]
        for event in events:
            self._samples[event].known |= {"error"}.union(
                *(resolved(k)["properties"] for k in kinds)
            )
        return events

    def _told(self, schema: Json, has_more: bool = False) -> str:
        value = self._sample(schema, schema.get("$ref", "").rpartition("/")[2])
        if "has_more" in value:
            value |= {"has_more": has_more}
        self._samples[json.dumps(value)] = value
        return json.dumps(value)

    def _sample(self, schema: Json, where: str) -> Any:
        schema = resolved(schema)
        if "anyOf" in schema:
            return self._sample(schema["anyOf"][0], where)
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, where)
        if kind == "array":
            return [self._sample(schema["items"], f"{where}[0]")] if "items" in schema else []
        plain = {"string": "x", "integer": 1, "number": 0.5, "boolean": True, "null": None}
        return plain[kind] if kind else None

    def _object(self, schema: Json, where: str) -> Any:
        fields = schema.get("properties", {})
        values = {name: self._sample(field, f"{where}.{name}") for name, field in fields.items()}
        values |= {"has_more": False} if "has_more" in fields else {}
        values |= {name: self.overrides[name] for name in fields if name in self.overrides}
        if "properties" not in schema:  # a map, whose keys are the caller's
            inner = schema.get("additionalProperties")
            return {"key": self._sample(inner, f"{where}.*")} if isinstance(inner, dict) else {}
        return Watched(values, set(fields), where, self.unknown)


def resolved(schema: Json) -> Json:
    while "$ref" in schema:
        schema = api_document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def request_streams(request: httpx2.Request) -> bool:
    is_json = request.headers.get("content-type") == "application/json"
    asked = json.loads(request.content) if is_json else request.url.params
    return asked.get("stream") in (True, "true")


def check_request(operation: Json, request: httpx2.Request) -> None:
    parameters = [one for one in operation["parameters"] if "$ref" not in one]
    query = {one["name"] for one in parameters if one["in"] == "query"}
    assert set(parse_qs(request.url.query.decode())) <= query
    if "if-match" in request.headers:
        assert "if-match" in {one["name"] for one in parameters if one["in"] == "header"}
    media_type = request.headers.get("content-type", "").partition(";")[0]
    if not media_type:
        assert "requestBody" not in operation
        return
    media = operation["requestBody"]["content"][media_type]
    if media_type == "application/json":
        check_schema(media["schema"], json.loads(request.content), request.url.path)
    else:
        check_form(media, request.read())


def check_form(media: Json, body: bytes) -> None:
    sent = set(re.findall(rb'form-data; name="(\w+)"', body))
    fields = resolved(media["schema"])
    assert {name.decode() for name in sent} <= set(fields["properties"])
    assert set(fields["required"]) <= {name.decode() for name in sent}
    if b"Content-Digest" in body:
        assert "Content-Digest" in media["encoding"]["file"]["headers"]

"""The OpenAPI document: what FastAPI knows of the routes, and what they say of themselves."""

import re
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.api.callers import ACTING_FOR

Json = dict[str, Any]

_SUMMARY = "Thousands of tiny adapters on one resident base, behind OpenAI's API."
_DESCRIPTION = """\
Inference, files and fine-tuning jobs have OpenAI's shapes, so OpenAI's clients work unchanged.
`model` is the base's name, or an adapter by its name (`NAME`, its alias `latest`), version
(`NAME@3`), alias (`NAME@prod`) or digest (`NAME@sha256:…`); a name may have two parts, `ORG/NAME`.
An unknown or unusable adapter is an error, never the base's answer.

A server with API keys wants `Authorization: Bearer KEY`; one that was started without keys, and
whose registry never had one, wants none. A key has scopes, and every operation names those of which
it needs one; `admin` has all. A key with `admin` acts for a tenant with the header
`X-Overtone-Tenant: NAME`, on any operation that needs a key.

A parameter that is not supported is refused by name, never ignored; so is one that stands twice.
"""
_TAGS = {
    "inference": "Completions, chats, labels, vectors.",
    "models": "What can be named as `model`.",
    "adapters": "Publish adapters, and point aliases to their versions.",
    "residency": "What is in memory.",
    "files": "Files to train on, of requests for batches, and of batches' results.",
    "batches": "Many requests at once, run in the room that other requests leave.",
    "fine-tuning": "Jobs that make adapters.",
    "keys": "API keys, their tenants and scopes.",
    "tenants": "What tenants may ask, and what they use.",
    "operations": "Health, metrics, version, workers.",
}
_REQUEST_ID: Json = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "The caller's own id of the request, at most 128 printable ASCII characters.",
    "schema": {"type": "string", "maxLength": 128},
}
_ACTING_FOR: Json = {
    "name": ACTING_FOR,
    "in": "header",
    "description": "A tenant's name: the operation is done with that tenant's names and things. "
    "Needs a key with the scope `admin`; `-` stands for what belongs to callers without keys.",
    "schema": {"type": "string"},
}
_HEADERS = {
    "X-Request-Id": "The caller's own id of the request, or a new one; the server's log has it.",
    "X-Overtone-Adapter": "What answered: `NAME@VERSION sha256:…`, or the base's name.",
    "ETag": "The alias's state, for the next move's `If-Match`.",
    "Retry-After": "Seconds after which to try again.",
    "Cache-Control": "`no-store`: the answer has a secret.",
    "WWW-Authenticate": "`Bearer`.",
}
_KEY: Json = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key with one of the scopes that the operation names.",
}


def document(app: FastAPI) -> Json:
    """Return the OpenAPI document of an application's routes.

    Raises:
        ValueError: two different schemas have one name.
    """
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary=_SUMMARY,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    for operation in _operations(made):
        _tidy(operation)
    schemas: Json = {}
    made["paths"] = _hoisted(made["paths"], schemas)
    made["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "parameters": {"ActingFor": _ACTING_FOR, "RequestId": _REQUEST_ID},
        "headers": {
            name: {"description": text, "schema": {"type": "string"}, "required": True}
            for name, text in _HEADERS.items()
        },
        "securitySchemes": {"apiKey": _KEY},
    }
    return made


def _operations(made: Json) -> Iterator[Json]:
    for path in made["paths"].values():
        yield from path.values()


def _tidy(operation: Json) -> None:
    """Take the docstring's first line as summary, and leave out what no route answers."""
    summary, _, rest = operation.get("description", "").partition("\n")
    operation["summary"] = summary.strip()
    operation["description"] = rest.strip() or summary.strip()
    if "HTTPValidationError" in str(operation["responses"].get("422")):
        del operation["responses"]["422"]
    for response in operation["responses"].values():
        response["content"].get("application/json", {}).get("schema", {}).pop("title", None)
    parameters = operation.get("parameters", [])
    for parameter in parameters:
        parameter["schema"] = _plain(parameter["schema"])
    shared = [*(["ActingFor"] if operation.get("security") else []), "RequestId"]
    more = [{"$ref": f"#/components/parameters/{name}"} for name in shared]
    operation["parameters"] = [*parameters, *more]


def _plain(schema: Json) -> Json:
    """Return a parameter's schema without what is said beside it, and without null."""
    branches = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    if len(branches) == 1:
        schema = {**schema, **branches[0]}
        del schema["anyOf"]
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _hoisted(node: Any, schemas: Json) -> Any:
    """Return a part of the document with its `$defs` moved to `schemas`."""
    if isinstance(node, list):
        return [_hoisted(item, schemas) for item in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)  # FastAPI makes floats of all limits
    if not isinstance(node, dict):
        return node
    for name, schema in node.get("$defs", {}).items():
        clean = _described(_hoisted(schema, schemas))
        if schemas.setdefault(name, clean) != clean:
            raise ValueError(f"two schemas have the name {name!r}")
    if "$ref" in node:
        return {"$ref": node["$ref"]}  # what FastAPI says of an untyped answer stands beside it
    return {key: _hoisted(value, schemas) for key, value in node.items() if key != "$defs"}


def _described(schema: Json) -> Json:
    """Return an object's schema with its docstring's `Args:` as the fields' descriptions."""
    text, _, listed = schema.get("description", "").partition("\n\nArgs:\n")
    schema = {**schema, "description": text.strip()}
    properties = {name: dict(prop) for name, prop in schema.get("properties", {}).items()}
    for prop in properties.values():
        prop.pop("title", None)
    for names, meaning in re.findall(r"^(\S.*?): (.*(?:\n +.*)*)", dedent(listed), re.MULTILINE):
        for name in names.split(", "):
            properties[name]["description"] = " ".join(meaning.split())
    if properties:
        schema["properties"] = properties
    return schema

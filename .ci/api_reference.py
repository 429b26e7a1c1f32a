"""Prints docs/api.md, made from the OpenAPI document: `./run reference` writes it."""

import json
import re
import sys
from collections.abc import Iterator
from textwrap import fill
from typing import Any

from server.api.openapi import document
from server.app import create_app
from server.service import Service
from server.settings import Settings
from server.telemetry.metrics import Metrics

Json = dict[str, Any]

WIDTH = 100
#: What every answer has is said once, at the top.
EVERYWHERE = "X-Request-Id"
#: A schema's words for its least and its greatest, and what is counted.
LIMITS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
    ("minProperties", "maxProperties", " entries"),
)
#: What the description of a parameter begins with that is taken for the sake of OpenAI's clients.
NEUTRAL = "Accepted"
HEAD = """\
<!-- Made by `./run reference` from the OpenAPI document; do not edit. -->

# The API

A running server shows this as a page at `/docs`, where requests can be tried, and as a document for
programs at `/openapi.json`.

{description}
Every answer has a header `X-Request-Id`: the request's own, if it has one of at most 128 printable
ASCII characters, or a new one; the server's log has it. A field of a request that is null counts as
not given. The body of every error is an [`ErrorBody`](#errorbody); the errors of an operation are
those that it can give, beside 405 for a method that its path does not have.
"""


def main() -> None:
    """Print the page."""
    sys.stdout.write("\n".join(page(made())).rstrip() + "\n")


def made() -> Json:
    """Return the document; it depends on no setting, and needs no service."""

    def start() -> Service:
        raise RuntimeError("the document needs no service")

    return document(create_app(Settings(base="none"), Metrics(), start))


def page(api: Json) -> Iterator[str]:
    """Yield the page's lines."""
    bodies = set(_bodies(api))
    yield HEAD.format(description=api["info"]["description"])
    for tag in api["tags"]:
        yield f"## {tag['name'].capitalize()}\n"
        yield f"{tag['description']}\n"
        for path, operations in api["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    yield from _shown_operation(f"{method.upper()} {path}", operation, api)
    yield "## Error codes\n"
    yield from _table(("status", "code", "meaning"), sorted(_codes(api)))
    yield "## Objects\n"
    for name, schema in api["components"]["schemas"].items():
        if name not in bodies:  # which stand with their operations
            yield f"### {name}\n"
            yield from _wrapped(schema["description"])
            yield from _shown_fields(schema)


def _bodies(api: Json) -> Iterator[str]:
    """Yield the schemas that stand with their operations."""
    for operations in api["paths"].values():
        for operation in operations.values():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                yield media["schema"].get("$ref", "").rpartition("/")[2]


def _shown_operation(title: str, operation: Json, api: Json) -> Iterator[str]:
    yield f"### {title}\n"
    yield from _wrapped(operation["description"])
    if operation["summary"] not in operation["description"]:
        yield from _wrapped(operation["summary"])
    yield f"{_key_for(operation)}\n"
    parameters = [one for one in operation["parameters"] if "$ref" not in one]
    yield from _table(
        ("parameter", "in", "type", "default", "meaning"), map(_parameter, parameters)
    )
    for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
        yield from _shown_body(media_type, media, api)
    lines = [_success(status, r) for status, r in operation["responses"].items() if status < "4"]
    yield "\n".join(lines) + "\n"
    yield from _wrapped(f"Errors: {', '.join(_faults(operation))}.")


def _key_for(operation: Json) -> str:
    scopes = [f"`{scope}`" for way in operation["security"] for scope in way["apiKey"]]
    return f"Scope: {' or '.join(scopes)}." if scopes else "Needs no key."


def _shown_body(media_type: str, media: Json, api: Json) -> Iterator[str]:
    if "$ref" not in media["schema"]:
        yield from _wrapped(f"Body, `{media_type}`: {_type_of(media['schema'])}.")
        return
    name = media["schema"]["$ref"].rpartition("/")[2]
    schema = api["components"]["schemas"][name]
    yield from _wrapped(f"Body, `{media_type}`: {schema['description']}")
    for part, encoding in media.get("encoding", {}).items():
        for header, said in encoding["headers"].items():
            yield from _wrapped(f"Part `{part}` may have a header {header}: {said['description']}")
    yield from _shown_fields(schema)


def _shown_fields(schema: Json) -> Iterator[str]:
    fields, required = schema.get("properties", {}), schema.get("required", ())
    own = {n: f for n, f in fields.items() if not f.get("description", "").startswith(NEUTRAL)}
    rows = [
        (
            f"`{name}`" + ("" if name in required else " (optional)"),
            _type_of(field, name not in required),
            _default_of(field),
            field.get("description", ""),
        )
        for name, field in own.items()
    ]
    yield from _table(("field", "type", "default", "meaning"), rows)
    neutral = [_neutral(name, fields[name]) for name in fields if name not in own]
    if neutral:
        yield from _wrapped(f"For OpenAI's clients, and of no effect: {', '.join(neutral)}.")


def _neutral(name: str, field: Json) -> str:
    if "enum" not in field:
        return f"`{name}`"
    values = " or ".join(f"`{_shown(value)}`" for value in field["enum"] if value is not None)
    return f"`{name}` (only {values})"


def _parameter(one: Json) -> tuple[str, ...]:
    schema = one["schema"]
    name = f"`{one['name']}`" + ("" if one.get("required") else " (optional)")
    return name, one["in"], _type_of(schema), _default_of(schema), one["description"]


def _success(status: str, response: Json) -> str:
    kinds = [_content(media_type, media) for media_type, media in response["content"].items()]
    own = [f"`{name}`" for name in response["headers"] if name != EVERYWHERE]
    headers = f", with {' and '.join(own)}" if own else ""
    said = "" if response["description"] in ("OK", "Created") else f" {response['description']}"
    return fill(f"- {status}: {' or '.join(kinds)}{headers}.{said}", WIDTH, subsequent_indent="  ")


def _content(media_type: str, media: Json) -> str:
    if media_type == "application/json":
        return _type_of(media["schema"])
    if media_type != "text/event-stream":
        return f"`{media_type}`"
    data = media["itemSchema"]["properties"]["data"]
    if "anyOf" not in data:
        return f"a stream of named events, each {_type_of(data['contentSchema'])}"
    _, told = data["anyOf"]
    return f"a stream of events, each {_type_of(told['contentSchema'])}, ended by `[DONE]`"


def _faults(operation: Json) -> Iterator[str]:
    for status, response in operation["responses"].items():
        if status >= "4":
            own = [f"`{code}`" for code, _ in _meanings(response)]
            yield f"{status} {' '.join(own)}"


def _codes(api: Json) -> set[tuple[str, ...]]:
    return {
        (status, f"`{code}`", meaning)
        for operations in api["paths"].values()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if status >= "4"
        for code, meaning in _meanings(response)
    }


def _meanings(response: Json) -> list[tuple[str, str]]:
    return re.findall(r"^- `(\w+)`: (.*)$", response["description"], re.MULTILINE)


def _type_of(schema: Json, is_optional: bool = False) -> str:
    """Return a schema in a few words; of what may be missing null is not said."""
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if several := schema.get("anyOf") or schema.get("oneOf"):
        branches = [one for one in several if not (is_optional and _is_null(one))]
        return " or ".join(dict.fromkeys(_type_of(one) for one in branches))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{_shown(v)}`" for v in _values(schema))
    limits = _limits(schema)
    kind = _plain_type(schema)
    name, of, inner = kind.partition(" of ")
    return f"{name} ({', '.join(limits)}){of}{inner}" if limits else kind


def _values(schema: Json) -> list[Any]:
    values: list[Any] = schema.get("enum", [schema.get("const")])
    return values


def _limits(schema: Json) -> list[str]:
    found = [_range(schema, *words) for words in LIMITS]
    found.append(f"over {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else "")
    found.append(f"under {schema['exclusiveMaximum']}" if "exclusiveMaximum" in schema else "")
    found.append(f"`{schema['pattern']}`" if "pattern" in schema else "")
    return [text for text in found if text]


def _range(schema: Json, least: str, greatest: str, counted: str) -> str:
    low, high = schema.get(least), schema.get(greatest)
    if low is None or high is None:
        words = f"at least {low}" if low is not None else f"at most {high}"
        return "" if low is high else words + counted
    return f"{low} to {high}{counted}"


def _plain_type(schema: Json) -> str:
    kind = schema.get("type", "any value")
    if kind == "array" and schema.get("items"):
        return f"list of {_type_of(schema['items'])}"
    inner = schema.get("additionalProperties")
    if kind == "object" and isinstance(inner, dict):
        return f"object of {_type_of(inner)}"
    return "file" if schema.get("format") == "binary" else {"array": "list"}.get(kind, kind)


def _is_null(schema: Json) -> bool:
    return schema == {"type": "null"}


def _default_of(schema: Json) -> str:
    value = schema.get("default")
    return "" if value is None else f"`{_shown(value)}`"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _link(name: str) -> str:
    return f"[`{name}`](#{name.lower()})"


def _table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    """Yield a table without the columns that are empty; nothing without rows."""
    rows = list(rows)
    if not rows:
        return
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    yield f"| {' | '.join(head[i] for i in kept)} |"
    yield f"|{'---|' * len(kept)}"
    for row in rows:
        yield f"| {' | '.join(_cell(row[i]) for i in kept)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _wrapped(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph:
            yield fill(" ".join(paragraph.split()), WIDTH, break_long_words=False) + "\n"


if __name__ == "__main__":
    main()

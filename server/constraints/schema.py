"""JSON schemas: what of them is refused by name, and made exact, before they are compiled.

Most that cannot be kept llguidance refuses itself. Here are the rest: what it would get wrong,
what is no JSON Schema where a request is strict, and what is too deep to be read safely.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from server.errors import InvalidRequest, UnsupportedParameter

#: The library's own reader of JSON goes 128 levels deep; a schema's keywords are levels, too.
MAX_DEPTH = 100
#: Whole numbers up to here are the same in every reader of JSON.
_MAX_EXACT = 2**53

#: Keywords whose value is a schema, a list of schemas, or an object of schemas by names.
_ONE = ("items", "additionalItems", "additionalProperties", "contains", "propertyNames", "not")
_MORE = ("if", "then", "else", "unevaluatedItems", "unevaluatedProperties", "contentSchema")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
#: Other keywords of JSON Schema; `nullable` and `discriminator` are OpenAPI's.
_OTHERS = (
    *("type", "enum", "const", "format", "pattern", "multipleOf", "required", "uniqueItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "minContains", "maxContains", "minProperties", "maxProperties"),
    *("dependentRequired", "dependencies", "title", "description", "default", "examples"),
    *("example", "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType"),
    *("$schema", "$id", "id", "$ref", "$anchor", "$comment", "$vocabulary", "$dynamicRef"),
    *("$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "discriminator"),
)
_KNOWN = frozenset((*_ONE, *_MORE, *_LISTS, *_MAPS, *_OTHERS))


#: Formats that llguidance takes wider than most readers do: it allows a leap second in any minute,
#: and an address of any length.
_NARROWED = {
    "time": r"^[^:]*:[^:]*:[0-5]",
    "date-time": r"^[^:]*:[^:]*:[0-5]",
    "email": r"^[^@]{1,64}@.{1,180}$",
}


@dataclass(frozen=True)
class _Part:
    """A schema within a schema, and the way to it: `properties.name`."""

    value: Any
    path: str

    def within(self, *keys: str | int) -> str:
        """Return the way to what is within."""
        return ".".join([self.path, *map(str, keys)]).removeprefix(".")


def exact_schema(schema: Any, is_strict: bool, param: str) -> Any:
    """Return a schema so that answers which llguidance allows are those which it allows.

    Refuses what answers could not be held to.

    Args:
        schema: as JSON has it; changed.
        is_strict: refuse keywords that JSON Schema does not have; else they say nothing, as it
            says itself.
        param: the request's field that it comes from.

    Raises:
        InvalidRequest: it is too deep, or no schema.
        UnsupportedParameter: it has what is not supported; the message names it and where.
    """
    if schema is False:
        raise InvalidRequest(f"{param}: there is no answer that it allows", param)
    if _depth(schema) > MAX_DEPTH:
        raise InvalidRequest(f"{param}: the schema is more than {MAX_DEPTH} levels deep", param)
    for part in _parts(schema):
        for fault in _faults(part, is_strict):
            where = f" at {part.path}" if part.path else ""
            raise UnsupportedParameter(f"{param}{where}: {fault}", param)
        _narrow(part.value)
    return schema


def _narrow(schema: Any) -> None:
    """Add to a schema's format what llguidance leaves out of it."""
    named = schema.get("format") if isinstance(schema, dict) else None
    if isinstance(named, str) and named in _NARROWED and isinstance(schema.get("allOf", []), list):
        schema["allOf"] = [*schema.get("allOf", []), {"pattern": _NARROWED[named]}]


def _depth(value: Any) -> int:
    """Return how deep lists and objects go; stops counting behind `MAX_DEPTH`."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        level = [item for one in level for item in _items(one)]
        depth += 1
    return depth


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _parts(schema: Any) -> Iterator[_Part]:
    """Yield a schema and all schemas in it."""
    left = [_Part(schema, "")]
    while left:
        part = left.pop()
        yield part
        left += _inner(part)


def _inner(part: _Part) -> list[_Part]:
    """Return the schemas right within one."""
    found = []
    for key, value in part.value.items() if isinstance(part.value, dict) else ():
        if key in _MAPS and isinstance(value, dict):
            found += [_Part(one, part.within(key, name)) for name, one in value.items()]
        elif key in _LISTS and isinstance(value, list):
            found += [_Part(one, part.within(key, i)) for i, one in enumerate(value)]
        elif key in (*_ONE, *_MORE):
            found.append(_Part(value, part.within(key)))
    return found


def _faults(part: _Part, is_strict: bool) -> Iterator[str]:
    """Yield what is wrong with one schema, without those in it."""
    schema = part.value
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield "a schema must be an object or a boolean"
        return
    if "x-guidance" in schema:
        yield "keyword 'x-guidance' is not supported"
    unknown = [key for key in schema if key not in _KNOWN]
    if unknown and is_strict:
        yield f"keyword {unknown[0]!r} is none of JSON Schema: leave it out, or set strict to false"
    if schema.get("minProperties", 0) not in (0, 1) and _has_free_names(schema):
        yield (
            "keyword 'minProperties' above 1 is supported only with additionalProperties: false "
            "and without patternProperties: a name that is written twice would count once"
        )
    yield from _large_numbers(schema)


def _has_free_names(schema: dict[str, Any]) -> bool:
    return schema.get("additionalProperties") is not False or "patternProperties" in schema


def _large_numbers(schema: dict[str, Any]) -> Iterator[str]:
    """Yield numbers that are not the same in every reader of JSON."""
    left = [schema[key] for key in ("const", "enum") if key in schema]
    while left:
        value = left.pop()
        left += _items(value)
        if isinstance(value, int | float) and abs(value) > _MAX_EXACT:
            yield f"the number {value} in enum or const is not supported: it is above 2^53"

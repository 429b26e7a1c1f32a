"""JSON schemas in the manner of JSON Schema's test suite: what is kept, and what is refused."""

from collections.abc import Mapping
from typing import Any

_STRING, _INTEGER = {"type": "string"}, {"type": "integer"}


def _closed(properties: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    """Return an object with these properties, all of them required, and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
        **rest,
    }


def _pattern(pattern: str, **rest: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, **rest}


#: Schemas that every answer must keep to.
KEPT: Mapping[str, Any] = {
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "integer": _INTEGER,
    "number": {"type": "number"},
    "string": _STRING,
    "anything": {},
    "true": True,
    "several types": {"type": ["string", "null", "integer"]},
    "integer in bounds": {"type": "integer", "minimum": -17, "maximum": 423},
    "integer in open bounds": {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    "number in bounds": {"type": "number", "minimum": 0.5, "maximum": 1.25},
    "number in open bounds": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "number at most": {"type": "number", "maximum": -2.5},
    "number at least": {"type": "number", "minimum": 1.5},
    "multiple of 7": {"type": "integer", "multipleOf": 7},
    "multiple in bounds": {"type": "integer", "multipleOf": 3, "minimum": 4, "maximum": 100},
    "whole number": {"type": "number", "multipleOf": 1},
    "length": {"type": "string", "minLength": 2, "maxLength": 5},
    "no length": {"type": "string", "maxLength": 0},
    "pattern as a whole": _pattern("^[A-Z]{2}-[0-9]{3}$"),
    "pattern anywhere": _pattern("a[bc]", maxLength=12),
    "pattern at the start": _pattern("^ab", maxLength=12),
    "pattern at the end": _pattern("yz$", maxLength=12),
    "pattern with branches": _pattern("^a$|^b+c$"),
    "pattern of any characters": _pattern("^.{3}$"),
    "pattern of umlauts": _pattern("^[äöü]+é$"),
    "pattern of quotes": _pattern('^"\\\\+/$'),
    "pattern of control characters": _pattern("^a\\n\\tb$"),
    "pattern and length": _pattern("^[ab]*$", minLength=3, maxLength=6),
    "pattern of what it is not": _pattern('^[^a-z"\\\\]{2}$'),
    "pattern, lazy": _pattern("^a+?b*?$"),
    "pattern of code points": _pattern("^\\u0041\\x42$"),
    "pattern of classes": _pattern("^\\d\\w\\s\\S$"),
    "empty pattern": _pattern(""),
    "enum": {"enum": ["a", 1, 2.5, None, True, ["x", {"y": 1}], {"k": "v"}, 'ü"\n\u2028']},
    "enum with a type": {"type": "string", "enum": ["a", "b"]},
    "enum of which the type leaves some": {"type": "string", "enum": ["a", 1]},
    "enum and pattern": {"enum": ["abc", "xbc"], "pattern": "^a"},
    "const": {"const": {"a": [1, 2, {"b": None}]}},
    "const text": {"const": '日本 "q" \\ \u0001 😀'},
    "const number": {"const": 1.0},
    "large const number": {"const": 2**53},
    "object": {"type": "object"},
    "closed object": _closed({"a": _STRING, "b": _INTEGER}),
    "optional properties": _closed(
        {"a": _STRING, "b": _INTEGER, "c": {"type": "boolean"}}, required=["b"]
    ),
    "other properties": {
        "type": "object",
        "properties": {"a": _INTEGER},
        "additionalProperties": {"type": "boolean"},
    },
    "open object": {
        "type": "object",
        "properties": {"a": _INTEGER, "b": {"const": 1}},
        "required": ["a"],
    },
    "required, but no property": {
        "type": "object",
        "properties": {"a": _STRING},
        "required": ["a", "zz"],
    },
    "odd names": _closed({'a"b': _INTEGER, "ü": _INTEGER, "x\\y": _INTEGER, "": _INTEGER}),
    "names that begin others": {
        "type": "object",
        "properties": {"a": _INTEGER, "ab": _INTEGER, "abc": _INTEGER},
        "required": ["abc"],
        "additionalProperties": {"type": "null"},
    },
    "properties by pattern": {
        "type": "object",
        "patternProperties": {"^s_": _STRING, "^i_": _INTEGER},
        "additionalProperties": False,
    },
    "properties by name and pattern": {
        "type": "object",
        "properties": {"s_x": {"const": "q"}},
        "patternProperties": {"^s_": _STRING},
        "additionalProperties": {"type": "boolean"},
    },
    "at least one property": {"type": "object", "minProperties": 1},
    "at most two properties": {"type": "object", "maxProperties": 2},
    "a property that may not be": {
        "type": "object",
        "properties": {"a": False, "b": _STRING},
        "required": ["b"],
    },
    "array": {"type": "array"},
    "array of items": {"type": "array", "items": _INTEGER},
    "array of two or three": {
        "type": "array",
        "items": {"type": "boolean"},
        "minItems": 2,
        "maxItems": 3,
    },
    "first items": {"type": "array", "prefixItems": [_STRING, _INTEGER]},
    "first items alone": {"type": "array", "prefixItems": [_STRING, _INTEGER], "items": False},
    "first items and others": {
        "type": "array",
        "prefixItems": [_STRING, _INTEGER],
        "items": {"type": "null"},
        "minItems": 1,
        "maxItems": 4,
    },
    "first items in draft 7": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "array",
        "items": [_STRING, _INTEGER],
        "additionalItems": False,
    },
    "$ref": {
        "$defs": {"p": _closed({"n": _STRING})},
        "type": "array",
        "items": {"$ref": "#/$defs/p"},
        "maxItems": 3,
    },
    "$ref to definitions": {
        "definitions": {"p": {"enum": [1, 2]}},
        "$ref": "#/definitions/p",
    },
    "$ref to itself": _closed(
        {"v": _INTEGER, "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}
    ),
    "$ref beside others": {
        "$defs": {"s": {"type": "string", "minLength": 1}},
        "$ref": "#/$defs/s",
        "maxLength": 3,
    },
    "$ref by id": {
        "$id": "http://example.com/root",
        "$defs": {"a": {"$id": "other", "type": "integer"}},
        "$ref": "other",
    },
    "$ref by anchor": {"$defs": {"a": {"$anchor": "foo", "type": "integer"}}, "$ref": "#foo"},
    "$ref, escaped": {"$defs": {"a/b~c d": _INTEGER}, "$ref": "#/$defs/a~1b~0c%20d"},
    "$ref to a property": _closed({"a": _INTEGER, "b": {"$ref": "#/properties/a"}}),
    "anyOf": {"anyOf": [_STRING, {"type": "integer", "minimum": 5}]},
    "anyOf beside others": {
        "type": "object",
        "properties": {"a": _INTEGER},
        "required": ["a"],
        "anyOf": [
            {"properties": {"b": _STRING}, "required": ["b"]},
            {"properties": {"c": _STRING}, "required": ["c"]},
        ],
    },
    "anyOf of what is required": {
        "type": "object",
        "properties": {"a": _INTEGER, "b": _STRING},
        "additionalProperties": False,
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "oneOf of types": {"oneOf": [_STRING, _INTEGER]},
    "oneOf of tagged objects": {
        "discriminator": {"propertyName": "k"},
        "oneOf": [
            _closed({"k": {"const": "a"}, "x": _INTEGER}),
            _closed({"k": {"const": "b"}, "y": _STRING}),
        ],
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": _INTEGER}, "required": ["a"]},
            {"type": "object", "properties": {"b": _STRING}, "required": ["b"]},
        ]
    },
    "allOf of bounds": {
        "allOf": [{"type": "number", "minimum": 3}, {"type": "integer", "maximum": 8}]
    },
    "allOf of patterns": {"allOf": [_pattern("^a"), _pattern("z$"), {"maxLength": 5}]},
    "allOf of enums": {"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]},
    "a word that says nothing": {"type": "string", "x-order": 1, "nonsense": 2},
    "annotations": {
        "title": "t",
        "description": "d",
        "default": 1,
        "examples": [1],
        "deprecated": True,
        "readOnly": True,
        "$comment": "c",
        "type": "integer",
    },
    "properties without a type": {"properties": {"a": _INTEGER}, "required": ["a"]},
    "length without a type": {"minLength": 3},
    "items without a type": {"items": _INTEGER},
    "minimum without a type": {"minimum": 3},
    "nested": _closed(
        {
            "a": {
                "type": "array",
                "items": _closed(
                    {"b": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}}
                ),
                "maxItems": 2,
            }
        }
    ),
    "of a Pydantic model": {
        "$defs": {
            "Color": {"enum": ["red", "green"], "title": "Color", "type": "string"},
            "Item": {
                "properties": {
                    "name": {"title": "Name", "type": "string"},
                    "price": {
                        "anyOf": [{"type": "number"}, {"type": "null"}],
                        "default": None,
                        "title": "Price",
                    },
                    "color": {"$ref": "#/$defs/Color"},
                },
                "required": ["name", "color"],
                "title": "Item",
                "type": "object",
            },
        },
        "properties": {
            "items": {"items": {"$ref": "#/$defs/Item"}, "maxItems": 2, "type": "array"},
            "when": {"format": "date", "type": "string"},
        },
        "required": ["items", "when"],
        "title": "Order",
        "type": "object",
    },
    **{
        f"format {name}": {"type": "string", "format": name}
        for name in ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6")
    },
    "format uuid": {"type": "string", "format": "uuid"},
    "format uri": {"type": "string", "format": "uri"},
    "format of a number": {"type": "integer", "format": "int32"},
}

#: Schemas that are refused, and the words by which.
REFUSED: Mapping[str, tuple[Any, str]] = {
    "not": ({"not": {"type": "string"}}, '"not"'),
    "if": ({"if": {"type": "string"}, "then": {"minLength": 3}}, '"if"'),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
    "contains": ({"type": "array", "contains": {"const": 1}}, '"contains"'),
    "propertyNames": ({"type": "object", "propertyNames": {"pattern": "^a"}}, '"propertyNames"'),
    "dependentRequired": (
        {"type": "object", "dependentRequired": {"a": ["b"]}},
        '"dependentRequired"',
    ),
    "dependentSchemas": (
        {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
        '"dependentSchemas"',
    ),
    "unevaluatedProperties": (
        {"type": "object", "unevaluatedProperties": False},
        '"unevaluatedProperties"',
    ),
    "$dynamicRef": ({"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}}, r"\$dynamicAnchor"),
    "oneOf that overlaps": ({"oneOf": [_INTEGER, {"type": "number"}]}, "'oneOf'"),
    "deep inside": (_closed({"a": {"items": {"not": {}}, "type": "array"}}), '"not"'),
    "two names that may be one": ({"type": "object", "minProperties": 2}, "'minProperties'"),
    "two names by pattern": (
        {
            "type": "object",
            "patternProperties": {"^a": {}},
            "additionalProperties": False,
            "minProperties": 2,
        },
        "'minProperties'",
    ),
    "two of three names": (
        _closed({"a": _STRING, "b": _STRING, "c": _STRING}, required=[], minProperties=2),
        "only supported when all keys",
    ),
    "a number that readers round": ({"enum": ["a", [12345678901234567890]]}, "above 2\\^53"),
    "a float that readers print otherwise": ({"const": 1e100}, "above 2\\^53"),
    "options of the library": ({"x-guidance": {"lenient": True}, "not": {}}, "'x-guidance'"),
    "an unknown format": ({"type": "string", "format": "iri"}, "format 'iri' is not supported"),
    "lookahead": (_pattern("^(?=.*a).*$"), "look-around"),
    "backreference": (_pattern("^(a|b)\\1$"), "backreferences"),
    "word boundary": (_pattern("\\bword\\b"), "lookarounds"),
    "an unclosed group": (_pattern("(a"), "unclosed group"),
    "false": (False, "no answer"),
    "two types at once": ({"allOf": [{"type": "string"}, _INTEGER]}, "Unsatisfiable"),
    "required and forbidden": (_closed({"a": _STRING}, required=["zz"]), "Unsatisfiable"),
    "only itself": ({"$ref": "#"}, "no answer"),
    "a type that is none": ({"type": "text"}, "text"),
    "a $ref to nothing": ({"$ref": "#/$defs/none"}, "none"),
    "a $ref elsewhere": ({"$ref": "http://example.com/schema"}, "example.com"),
    "a list": ([{"type": "string"}], "must be an object or a boolean"),
    "a number": (_closed({"a": 3}), "must be an object or a boolean"),
}

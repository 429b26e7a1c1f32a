"""Schemas: every answer within one is one that JSON Schema's reference implementation accepts."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tiny
from schema_cases import KEPT, REFUSED
from server.constraints.compiler import Constraints
from server.constraints.spec import ConstraintSpec
from server.errors import InvalidRequest
from structured import answer_of, compiled, constraints_of, faults_of

PARAM = "response_format.json_schema.schema"
NUM_ANSWERS = 8


@pytest.fixture(scope="module")
def constraints() -> Iterator[Constraints]:
    with constraints_of(tiny.tokenizer()) as made:
        yield made


def answers(constraints: Constraints, schema: Any, count: int) -> list[str]:
    """Return the answers that came to their end."""
    constraint = compiled(constraints, ConstraintSpec.json_schema(schema, PARAM))
    tokenizer = tiny.tokenizer()
    drawn = [answer_of(constraint, tokenizer, seed) for seed in range(count)]
    return [answer for answer in drawn if answer is not None]


@pytest.mark.parametrize("name", KEPT)
def test_every_answer_validates(constraints: Constraints, name: str) -> None:
    schema = KEPT[name]
    given = answers(constraints, schema, NUM_ANSWERS)
    assert given
    for answer in given:
        assert not faults_of(answer, schema), answer


@pytest.mark.parametrize("name", REFUSED)
def test_what_answers_could_not_be_held_to_is_refused_by_name(
    constraints: Constraints, name: str
) -> None:
    schema, words = REFUSED[name]
    with pytest.raises(InvalidRequest, match=words) as refusal:
        compiled(constraints, ConstraintSpec.json_schema(schema, PARAM))
    assert refusal.value.param == PARAM


def test_where_a_request_is_strict_words_that_are_none_of_json_schema_are_refused(
    constraints: Constraints,
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "minlength": 3}}}
    spec = ConstraintSpec.json_schema(schema, PARAM, is_strict=True)
    with pytest.raises(InvalidRequest, match=r"properties\.a: keyword 'minlength'"):
        compiled(constraints, spec)
    within = {"type": "object", "properties": {"minlength": {"enum": [{"minlength": 1}]}}}
    compiled(constraints, ConstraintSpec.json_schema(within, PARAM, is_strict=True))


def test_properties_come_in_the_schemas_order(constraints: Constraints) -> None:
    names = ["zeta", "alpha", "mid"]
    schema = {
        "type": "object",
        "properties": {name: {"type": "boolean"} for name in names},
        "required": names,
        "additionalProperties": False,
    }
    for answer in answers(constraints, schema, 3):
        assert list(json.loads(answer)) == names


def test_blanks_between_parts_come_to_an_end(constraints: Constraints) -> None:
    """A base that has lost its way cannot write new lines for ever."""
    schema = {"type": "array", "items": {"const": 1}, "minItems": 2}
    constraint = compiled(constraints, ConstraintSpec.json_schema(schema, PARAM))
    matcher, blanks = constraint.begin(frozenset()), "\n" + " " * 40
    tokens = tiny.tokenizer()("[" + blanks)["input_ids"]
    assert not any(matcher.advance(token) for token in tokens)
    assert matcher.fault is None
    matcher.advance(tokens[-1])
    assert matcher.fault is not None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
_BOUND = st.integers(-50, 50)
_PATTERNS = st.lists(
    st.sampled_from(["a", "[b-d]", "\\d", "é", "(x|yz)", "."]).flatmap(
        lambda part: st.sampled_from(["", "+", "?", "{2,3}"]).map(lambda times: part + times)
    ),
    min_size=1,
    max_size=3,
).map(lambda parts: f"^{''.join(parts)}$")


@st.composite
def _numbers(draw: st.DrawFn) -> dict[str, Any]:
    low, wide = draw(_BOUND), draw(st.integers(0, 40))
    made: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    made |= draw(st.sampled_from([{}, {"minimum": low}, {"minimum": low, "maximum": low + wide}]))
    return made


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(st.text(max_size=4), inner, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    others = draw(st.sampled_from([False, {"type": "boolean"}]))
    made = {"type": "object", "properties": properties, "additionalProperties": others}
    return {**made, "required": required}


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    least = draw(st.integers(0, 2))
    return {
        "type": "array",
        "items": draw(inner),
        "minItems": least,
        "maxItems": least + draw(st.integers(0, 2)),
    }


_SCHEMAS = st.recursive(
    st.sampled_from([{"type": "null"}, {"type": "boolean"}])
    | _numbers()
    | st.integers(0, 4).map(lambda most: {"type": "string", "maxLength": most})
    | _PATTERNS.map(lambda pattern: {"type": "string", "pattern": pattern})
    | st.lists(_JSON, min_size=1, max_size=3).map(lambda values: {"enum": values})
    | _JSON.map(lambda value: {"const": value}),
    lambda inner: (
        _objects(inner)
        | _arrays(inner)
        | st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some})
    ),
    max_leaves=5,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(schema=_SCHEMAS, more=_SCHEMAS)
def test_answers_within_made_up_schemas_validate(
    constraints: Constraints, schema: Any, more: Any
) -> None:
    whole = {"$defs": {"more": more}, "type": "array", "prefixItems": [schema]}
    whole |= {"items": {"$ref": "#/$defs/more"}, "maxItems": 2}
    given = answers(constraints, whole, 3)
    assume(given)
    for answer in given:
        assert not faults_of(answer, whole), answer

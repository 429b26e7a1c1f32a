"""A grammar may refer to schemas; what is wrong with one of them is said by its own name."""

import asyncio
import json

import pytest

import tiny
from server.constraints.compiler import Constraints
from server.constraints.grammar import grammar_of
from server.constraints.spec import ConstraintSpec, SchemaPart
from server.errors import InvalidRequest

GRAMMAR = 'start: "f(" @one ")" | "g(" @two ")"'


def spec(*schemas: object) -> ConstraintSpec:
    parts = [
        SchemaPart.of(name, schema, f"param_{name}", is_strict=True)
        for name, schema in zip(("one", "two"), schemas, strict=True)
    ]
    return ConstraintSpec.with_schemas(GRAMMAR, parts, "tools")


def compiled(made: ConstraintSpec) -> None:
    async def run() -> None:
        constraints = Constraints(tiny.tokenizer(), tiny.VOCABULARY)
        try:
            await constraints.compiled(made)
        finally:
            constraints.close()

    asyncio.run(run())


def test_schemas_keep_their_own_definitions() -> None:
    own = {"$defs": {"x": {"enum": [1]}}, "$ref": "#/$defs/x"}
    other = {"$defs": {"x": {"enum": [2]}}, "$ref": "#/$defs/x"}
    compiled(spec(own, other))
    made = json.loads(
        grammar_of("parts", json.dumps({"grammar": GRAMMAR, "schemas": {"one": own}}))
    )
    assert [each.get("name") for each in made["grammars"]] == [None, "one"]


@pytest.mark.parametrize(
    ("schemas", "param"),
    [
        (({}, {"x-guidance": {}}), "param_two"),
        (({"unknown": 1}, {}), "param_one"),
        (({"type": "string", "format": "nothing"}, {}), "tools"),
    ],
)
def test_what_is_wrong_with_a_schema_is_said(schemas: tuple[object, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compiled(spec(*schemas))
    assert caught.value.param == param


def test_all_schemas_count_for_how_long_a_constraint_may_be() -> None:
    large = {"enum": ["x" * 140_000]}
    with pytest.raises(InvalidRequest, match="at most 262144 are compiled"):
        compiled(spec(large, large))

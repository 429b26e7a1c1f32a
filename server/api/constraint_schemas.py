"""The fields of completions and chat completions that say what an answer must be like.

OpenAI's `response_format`, and vLLM's extras in both of their forms: `structured_outputs`, and
`guided_json`, `guided_regex`, `guided_choice` and `guided_grammar`, which older clients send.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters_core.strict_json import UnclearJson, strict_json
from server.api.request_body import OpenAIBody
from server.constraints.schema import MAX_DEPTH
from server.constraints.spec import ConstraintSpec
from server.errors import InvalidRequest

_MAX_CHOICES = 4096

Schema = dict[str, Any] | bool
Text = Annotated[str, Field(min_length=1)]
Choices = Annotated[list[str], Field(min_length=1, max_length=_MAX_CHOICES)]


class TextFormat(BaseModel):
    """Any text: no constraint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["text"]


class JsonObjectFormat(BaseModel):
    """A JSON object.

    Args:
        schema: what it must be like, as some servers have it; OpenAI has `json_schema` for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["json_object"]
    schema_: Annotated[Schema | None, Field(alias="schema")] = None


class NamedSchema(BaseModel):
    """A JSON schema with a name.

    Args:
        name: of the schema; it changes nothing.
        description: of the schema; it changes nothing.
        schema: what the answer must be like.
        strict: refuse keywords that JSON Schema does not have, too; those that it has are never
            ignored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(max_length=256)] = ""
    description: str | None = None
    schema_: Annotated[Schema, Field(alias="schema")]
    strict: bool | None = None


class JsonSchemaFormat(BaseModel):
    """JSON that a schema accepts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StructuredOutputs(BaseModel):
    """One constraint, as vLLM's clients name it.

    Args:
        json: a JSON schema, or its text.
        regex: a regular expression that the whole answer matches.
        choice: the answers that are possible.
        grammar: a grammar of answers, in Lark's form or in GBNF.
        json_object: any JSON object.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    json_: Annotated[Schema | Text | None, Field(alias="json")] = None
    regex: Text | None = None
    choice: Choices | None = None
    grammar: Text | None = None
    json_object: bool | None = None


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class ConstraintFields(OpenAIBody):
    """What an answer must be like; at most one of these fields says it.

    Args:
        response_format: JSON, or JSON that a schema accepts.
        structured_outputs: JSON, a regular expression, a choice or a grammar.
        guided_json: a JSON schema, or its text.
        guided_regex: a regular expression that the whole answer matches.
        guided_choice: the answers that are possible.
        guided_grammar: a grammar of answers, in Lark's form or in GBNF.
    """

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | Text | None = None
    guided_regex: Text | None = None
    guided_choice: Choices | None = None
    guided_grammar: Text | None = None

    @property
    def constraint(self) -> ConstraintSpec | None:
        """Return what the answer must be like; None for anything.

        Raises:
            InvalidRequest: several fields say it, or a schema's text is no JSON.
        """
        guided = StructuredOutputs.model_construct(
            json_=self.guided_json,
            regex=self.guided_regex,
            choice=self.guided_choice,
            grammar=self.guided_grammar,
        )
        specs = _of_format(self.response_format) + _of_one(guided, "guided_")
        if self.structured_outputs is not None:
            specs += _of_one(self.structured_outputs, "structured_outputs.")
        if len(specs) > 1:
            names = " and ".join(spec.param for spec in specs)
            message = f"{names} each say what the answer must be like; one of them may"
            raise InvalidRequest(message, specs[1].param)
        return specs[0] if specs else None


def _of_format(
    given: TextFormat | JsonObjectFormat | JsonSchemaFormat | None,
) -> list[ConstraintSpec]:
    """Return the constraint of a `response_format`, if it is one."""
    if isinstance(given, JsonSchemaFormat):
        named, param = given.json_schema, "response_format.json_schema.schema"
        return [_of_schema(named.schema_, param, bool(named.strict))]
    if isinstance(given, JsonObjectFormat) and given.schema_ is not None:
        return [_of_schema(given.schema_, "response_format.schema")]
    return (
        [ConstraintSpec.json_object("response_format")]
        if isinstance(given, JsonObjectFormat)
        else []
    )


def _of_one(given: StructuredOutputs, prefix: str) -> list[ConstraintSpec]:
    """Return the constraints that are given, with their names behind `prefix`."""
    found = []
    if given.json_ is not None:
        found.append(_of_schema(given.json_, f"{prefix}json"))
    if given.regex is not None:
        found.append(ConstraintSpec.regex(given.regex, f"{prefix}regex"))
    if given.choice is not None:
        found.append(ConstraintSpec.choice(given.choice, f"{prefix}choice"))
    if given.grammar is not None:
        found.append(ConstraintSpec.grammar(given.grammar, f"{prefix}grammar"))
    if given.json_object:
        found.append(ConstraintSpec.json_object(f"{prefix}json_object"))
    return found


def _of_schema(schema: Schema | str, param: str, is_strict: bool = False) -> ConstraintSpec:
    given = _read(schema, param) if isinstance(schema, str) else schema
    return ConstraintSpec.json_schema(given, param, is_strict)


def _read(text: str, param: str) -> Any:
    try:
        return strict_json(text, MAX_DEPTH)
    except UnclearJson as error:
        raise InvalidRequest(f"{param} {error}", param) from error

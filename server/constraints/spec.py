"""What an answer must be like, as a request says it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["json_schema", "regex", "choice", "grammar", "parts"]


@dataclass(frozen=True)
class SchemaPart:
    """A JSON schema that a grammar refers to.

    Args:
        name: of the rule, which the grammar calls `@name`.
        text: the schema.
        param: the request's field that it comes from.
        is_strict: as in `ConstraintSpec`.
    """

    name: str
    text: str
    param: str
    is_strict: bool = False

    @classmethod
    def of(cls, name: str, schema: Any, param: str, is_strict: bool) -> "SchemaPart":
        """Return the part for a schema as JSON has it."""
        return cls(name, _json(schema), param, is_strict)


@dataclass(frozen=True)
class ConstraintSpec:
    """One constraint; equal ones are compiled once.

    Args:
        kind: how `text` is to be read.
        text: a JSON schema, a regular expression, a JSON list of texts, or a grammar.
        param: the request's field that it comes from, for error messages.
        is_strict: refuse keywords of a schema that JSON Schema does not have.
        parts: schemas that the grammar `text` refers to, of the kind `parts`.
    """

    kind: Kind
    text: str
    param: str
    is_strict: bool = False
    parts: tuple[SchemaPart, ...] = ()

    @property
    def num_chars(self) -> int:
        """Return how long all its texts are together."""
        return len(self.text) + sum(len(part.text) for part in self.parts)

    @classmethod
    def json_object(cls, param: str) -> "ConstraintSpec":
        """Return the constraint to any JSON object."""
        return cls("json_schema", '{"type":"object"}', param)

    @classmethod
    def json_schema(cls, schema: Any, param: str, is_strict: bool = False) -> "ConstraintSpec":
        """Return the constraint to JSON that a schema accepts.

        Args:
            schema: as JSON has it; the order of its properties is that of the answer.
            param: as above.
            is_strict: as above.
        """
        return cls("json_schema", _json(schema), param, is_strict)

    @classmethod
    def regex(cls, pattern: str, param: str) -> "ConstraintSpec":
        """Return the constraint to texts that a regular expression matches as a whole."""
        return cls("regex", pattern, param)

    @classmethod
    def choice(cls, texts: Sequence[str], param: str) -> "ConstraintSpec":
        """Return the constraint to one of some texts."""
        return cls("choice", _json(list(texts)), param)

    @classmethod
    def grammar(cls, text: str, param: str) -> "ConstraintSpec":
        """Return the constraint to a grammar's texts: in Lark's form, or in GBNF."""
        return cls("grammar", text, param)

    @classmethod
    def with_schemas(
        cls, grammar: str, parts: Sequence[SchemaPart], param: str
    ) -> "ConstraintSpec":
        """Return the constraint to the texts of a grammar in Lark's form that refers to schemas."""
        return cls("parts", grammar, param, parts=tuple(parts))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

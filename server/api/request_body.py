"""What all JSON bodies have in common: what counts as not given, and unknown fields refused."""

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from server.api.validation import unsupported


class RequestBody(BaseModel):
    """A JSON body in which null means "not given", as in OpenAI's API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    example: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def defaults_of(cls, name: str) -> list[Any]:
        """Return the values of a field that mean "not given"."""
        return [None]

    @classmethod
    def _documentation(cls) -> str:
        """Return the docstring, with the `Args:` of the classes that it builds on, too.

        What a class says of a field holds instead of what the classes below it say; a field that
        it makes a class variable is left out.
        """
        split = "\n\nArgs:\n"
        texts = [cleandoc(each.__doc__ or "") for each in cls.__mro__ if each is not BaseModel]
        listed: dict[str, str] = {}
        for text in reversed(texts):
            for entry in filter(None, re.split(r"\n(?= {4}\S)", text.partition(split)[2])):
                listed[entry.strip().partition(":")[0]] = entry
        kept = [entry for name, entry in listed.items() if name not in cls.__class_vars__]
        return split.join([texts[0].partition(split)[0], *(["\n".join(kept)] if kept else [])])

    @model_validator(mode="before")
    @classmethod
    def _drop_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value not in cls.defaults_of(name)}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema, in which every field that may be missing may be null, too."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        schema["description"] = cls._documentation()
        if cls.example is not None:
            schema["examples"] = [cls.example]
        for name, field in schema.get("properties", {}).items():
            if name not in schema.get("required", ()):
                _allow(field, cls.defaults_of(name))
        return reference


class OpenAIBody(RequestBody):
    """A body of OpenAI's API: its other parameters may have the values that change nothing.

    `neutral` maps such a parameter to those values; `...` among them is any.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            allowed = self.neutral.get(name, ())
            if ... not in allowed and value not in allowed:
                raise unsupported(name, f"parameter {name!r} is not supported")
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema with the other parameters of OpenAI's API, and no unknown ones."""
        reference = super().__get_pydantic_json_schema__(core_schema, handler)
        schema = handler.resolve_ref_schema(reference)
        schema["additionalProperties"] = False
        for name, allowed in cls.neutral.items():
            schema["properties"][name] = _neutral(allowed)
        return reference


def _allow(field: dict[str, Any], values: list[Any]) -> None:
    """Let a field's schema take some values more."""
    branches = field.pop("anyOf", None) or [_moved(field)]
    more = [{"type": "null"} if value is None else {"const": value} for value in values]
    field["anyOf"] = branches + [each for each in more if each not in branches]


def _moved(field: dict[str, Any]) -> dict[str, Any]:
    """Take what a field's schema says of its value out of it."""
    kept = ("title", "default", "description")
    return {key: field.pop(key) for key in list(field) if key not in kept}


def _neutral(allowed: tuple[Any, ...]) -> dict[str, Any]:
    if ... in allowed:
        return {"description": "Accepted; it changes nothing."}
    return {"enum": [None, *allowed], "description": "Accepted only so that it changes nothing."}

"""Tools in bodies of chats: functions, and which of them is to be called."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters_core.calls.items import NAME
from server.api.validation import wrong

MAX_TOOLS = 128

FunctionName = Annotated[str, Field(max_length=128, pattern=rf"^{NAME}$")]


class FunctionDefinition(BaseModel):
    """A function that may be called.

    Args:
        description: of what it does, for the base.
        parameters: a JSON schema of the object that its arguments are; missing: it has none.
        strict: whether arguments must be as the schema says.
    """

    model_config = ConfigDict(extra="forbid")

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        if (self.parameters or {}).get("type", "object") != "object":
            raise wrong("parameters", "Input should be the schema of an object")
        return self

    @property
    def size(self) -> int:
        """Return the characters of what the base is told of it, without blanks."""
        schema = json.dumps(self.parameters or {}, ensure_ascii=False, separators=(",", ":"))
        return len(self.name) + len(self.description or "") + len(schema)


class ToolDefinition(BaseModel):
    """A tool, which is a function."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: FunctionDefinition


class FunctionReference(BaseModel):
    """The name of a function."""

    model_config = ConfigDict(extra="forbid")

    name: FunctionName


class NamedTool(BaseModel):
    """The function that is to be called."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: FunctionReference


Tools = Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS)]
ToolChoice = Literal["none", "auto", "required"] | NamedTool

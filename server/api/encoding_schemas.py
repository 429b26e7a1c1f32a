"""Requests to classifiers and embedders, checked at the door; a caller's numbers have caps."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.api.validation import unsupported

#: Inputs of one request, as OpenAI's API has it.
MAX_INPUTS = 2048

Token = Annotated[int, Field(strict=True, ge=0)]
Tokens = Annotated[list[Token], Field(min_length=1)]
Texts = Annotated[list[str | Tokens], Field(min_length=1, max_length=MAX_INPUTS)]

#: Parameters that say who or why, not what to compute.
_NEUTRAL = frozenset({"user", "metadata", "safety_identifier"})


class EncodingRequest(BaseModel):
    """What both requests share.

    Args:
        model: who answers.
        input: a text, several, token ids, several lists of them; images as data URLs.
        truncate: cut a text that is too long instead of refusing it.
        timeout_s: what is not answered by then fails.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: str | Tokens | Texts
    truncate: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        """Take null for "not given", as OpenAI's API does."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> "EncodingRequest":
        for name in self.model_extra or {}:
            if name not in _NEUTRAL:
                raise unsupported(name, f"parameter {name!r} is not supported")
        return self

    @property
    def inputs(self) -> list[str | list[int]]:
        """Return the inputs, one or many."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [[token for token in self.input if isinstance(token, int)]]
        return [given for given in self.input if not isinstance(given, int)]


class ClassifyRequest(EncodingRequest):
    """POST /v1/classify."""


class EmbeddingsRequest(EncodingRequest):
    """POST /v1/embeddings; `dimensions` only as many as the base has.

    `prompt_name` is one of the prompts that a sentence-transformers base comes with.
    """

    prompt_name: Annotated[str, Field(max_length=256)] | None = None

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None

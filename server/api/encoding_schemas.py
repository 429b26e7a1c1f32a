"""Requests to classifiers and embedders, checked at the door; a caller's numbers have caps."""

from typing import Annotated, Any, Literal

from pydantic import Field

from server.api.request_body import OpenAIBody

#: Inputs of one request, as OpenAI's API has it.
MAX_INPUTS = 2048

Token = Annotated[int, Field(strict=True, ge=0)]
Tokens = Annotated[list[Token], Field(min_length=1)]
Texts = Annotated[list[str | Tokens], Field(min_length=1, max_length=MAX_INPUTS)]

#: Parameters about the caller; they do not change what is computed.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "user": (...,),
    "metadata": (...,),
    "safety_identifier": (...,),
}


class EncodingRequest(OpenAIBody):
    """What both requests share.

    Args:
        model: the base's name, or an adapter's: `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
        input: a text, several, token ids, several lists of them; images as data URLs.
        truncate: cut a text that is too long instead of refusing it.
        timeout_s: seconds after which the request fails; missing: the server's setting.
    """

    neutral = _NEUTRAL

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: str | Tokens | Texts
    truncate: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """Return the inputs, one or many."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [[token for token in self.input if isinstance(token, int)]]
        return [given for given in self.input if not isinstance(given, int)]


class ClassifyRequest(EncodingRequest):
    """Texts or images to label."""

    example = {"model": "NAME", "input": "What a day"}


class EmbeddingsRequest(EncodingRequest):
    """Texts to embed.

    Args:
        prompt_name: one of the prompts that a sentence-transformers base comes with.
        encoding_format: numbers, or the bytes of little-endian float32 in base64.
        dimensions: only as many as the base has.
    """

    example = {"model": "BASE", "input": ["What a day", "What a night"]}

    prompt_name: Annotated[str, Field(max_length=256)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None

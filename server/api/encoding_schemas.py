"""Requests to classifiers, cross-encoders and embedders; a caller's numbers have caps."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.api.request_body import OpenAIBody
from server.api.token_lists import Tokens

#: Inputs of one request, as OpenAI's API has it.
MAX_INPUTS = 2048

Texts = Annotated[list[str | Tokens], Field(min_length=1, max_length=MAX_INPUTS)]

Text = Annotated[str, Field(min_length=1)]
Several = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]

#: Parameters about the caller; they do not change what is computed.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "user": (...,),
    "metadata": (...,),
    "safety_identifier": (...,),
}


class EncodingRequest(OpenAIBody):
    """What all these requests share.

    Args:
        model: the base's name, or an adapter's: `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
        truncate: cut a text that is too long instead of refusing it.
        timeout_s: seconds after which the request fails; missing: the server's setting.
    """

    neutral = _NEUTRAL

    model: Annotated[str, Field(min_length=1, max_length=256)]
    truncate: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None

    @property
    def num_chars(self) -> int:
        """Return the characters of its texts."""
        raise NotImplementedError


class InputsRequest(EncodingRequest):
    """Inputs of one text or image each.

    Args:
        input: a text, several, token ids, several lists of them; images as data URLs.
    """

    input: str | Tokens | Texts

    @property
    def num_chars(self) -> int:
        """Return the characters of its texts."""
        return sum(len(one) for one in self.inputs if isinstance(one, str))

    @property
    def inputs(self) -> list[str | list[int]]:
        """Return the inputs, one or many."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [[token for token in self.input if isinstance(token, int)]]
        return [given for given in self.input if not isinstance(given, int)]


class ClassifyRequest(InputsRequest):
    """Texts or images to label."""

    example = {"model": "NAME", "input": "What a day"}


class EmbeddingsRequest(InputsRequest):
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


class Document(BaseModel):
    """A text as an object, as Cohere's and Jina's clients may send it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Text


class PairsRequest(EncodingRequest):
    """Pairs of texts for a cross-encoder.

    Args:
        use_activation: false gives the logit itself, not the sigmoid of it.
    """

    use_activation: bool = True


class RerankRequest(PairsRequest):
    """Documents to order by how well they answer a query.

    Args:
        query: what is asked.
        documents: texts, or objects with a `text`.
        top_n: only so many results; missing or 0: all.
        return_documents: give each result its document, too.
    """

    example = {"model": "NAME", "query": "What is fast?", "documents": ["A hare", "A snail"]}

    query: Text
    documents: Annotated[list[Text | Document], Field(min_length=1, max_length=MAX_INPUTS)]
    top_n: Annotated[int, Field(ge=0)] | None = None
    return_documents: bool = True

    @property
    def num_chars(self) -> int:
        """Return the characters of its texts; a query is read once."""
        return len(self.query) + sum(map(len, self.texts))

    @property
    def texts(self) -> list[str]:
        """Return the documents' texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class ScoreRequest(PairsRequest):
    """Pairs of texts to score.

    Args:
        text_1: one text for all of `text_2`, or as many as these.
        text_2: a text, or several.
    """

    example = {"model": "NAME", "text_1": "What is fast?", "text_2": ["A hare", "A snail"]}

    text_1: Text | Several
    text_2: Text | Several

    @property
    def num_chars(self) -> int:
        """Return the characters of its texts."""
        sides = (self.text_1, self.text_2)
        return sum(len(side) if isinstance(side, str) else sum(map(len, side)) for side in sides)

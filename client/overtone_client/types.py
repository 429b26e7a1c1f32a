"""What the server's answers become: frozen, typed, and tolerant of fields added later.

Where a class has `raw`, it holds the JSON object exactly as the server sent it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from .errors import APIError

Prompt: TypeAlias = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
Messages: TypeAlias = Sequence[Mapping[str, Any]]
Texts: TypeAlias = str | Sequence[str]


@dataclass(frozen=True)
class Base:
    """The base an adapter belongs to.

    Args:
        name: the base's name.
        fingerprint: the base's fingerprint, None when the record carries none.
        is_verified: False when the file carried no fingerprint and only shapes were checked.
    """

    name: str | None
    fingerprint: str | None
    is_verified: bool


@dataclass(frozen=True)
class Adapter:
    """The record of one version of an adapter.

    Args:
        name: the adapter's name.
        version: its number; a version never changes.
        digest: `sha256:` and 64 hex digits.
        method: the method's name, e.g. `fourierft`.
        method_config: the method's hyper-parameters.
        base: the base it was made for.
        target_modules: the adapted modules.
        num_coefficients: numbers the adapter owns, over all layers.
        size_bytes: bytes of the coefficient file.
        created_at: when this version was made, in UTC.
        created_by: `upload`, or the id of a training job.
        aliases: alias to version, `latest` among them.
        metadata: what the uploader said about it.
        metrics: what the trainer measured.
        residency: where its coefficients are on this server, if the key is an operator's.
        owner: the tenant; empty for the operators', None where a server does not tell.
        shared: every tenant may use it.
        shared_with: tenants that may use it beside its owner, whose key alone is told.
    """

    name: str
    version: int
    digest: str
    method: str | None
    method_config: Mapping[str, Any]
    base: Base
    target_modules: tuple[str, ...]
    num_coefficients: int | None
    size_bytes: int | None
    created_at: datetime | None
    created_by: str | None
    aliases: Mapping[str, int]
    metadata: Mapping[str, Any]
    metrics: Mapping[str, Any]
    residency: Any
    owner: str | None
    shared: bool
    shared_with: tuple[str, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Alias:
    """Where an alias points now. `etag` is what the next move takes as `if_match`."""

    adapter: str
    alias: str
    version: int
    etag: str | None


@dataclass(frozen=True)
class AdapterLayer:
    """A layer that an adapter changes.

    Args:
        target: path of the module in the base.
        method: of this layer; `replaced` layers have none of the adapter's.
        shape: `(out, in)` of its weight.
        num_coefficients: numbers of its own.
    """

    target: str
    method: str
    shape: tuple[int, ...]
    num_coefficients: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Model:
    """Something that can be named as `model`: the base (no `parent`) or an adapter."""

    id: str
    created: int | None
    owned_by: str | None
    root: str | None
    parent: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Usage:
    """How many tokens a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class AnsweredBy:
    """What answered: adapter, version, digest and `factored` or `merged`; None for the base."""

    adapter: str | None
    version: int | None
    digest: str | None
    mode: str | None


@dataclass(frozen=True)
class Choice:
    """One answer, or one piece of it, to a text prompt. `token_ids` only when asked for."""

    index: int
    text: str
    finish_reason: str | None
    token_ids: tuple[int, ...] | None
    logprobs: Any


@dataclass(frozen=True)
class ToolCall:
    """A call of a function; in a stream, the piece that is new.

    Args:
        index: of the call in its message, from 0.
        id: what its result refers to; in a stream with the first piece only, as its name.
        name: of the function.
        arguments: a JSON object as text, or the next part of it.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn of a chat; in a stream, the piece that is new."""

    role: str | None
    content: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class ChatChoice:
    """One answer, or one piece of it, to a chat."""

    index: int
    message: Message
    finish_reason: str | None
    logprobs: Any

    @property
    def text(self) -> str:
        """The message's content."""
        return self.message.content

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The functions that the message calls."""
        return self.message.tool_calls


@dataclass(frozen=True)
class _Answer:
    id: str
    model: str
    created: int | None
    usage: Usage | None
    answered_by: AnsweredBy | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Completion(_Answer):
    """The whole answer to a text prompt."""

    choices: tuple[Choice, ...]

    @property
    def text(self) -> str:
        """The first choice's text, empty if there is none."""
        return _first_text(self.choices)


@dataclass(frozen=True)
class CompletionChunk(Completion):
    """One event of a streamed completion: `choices` holds what is new; empty beside the usage."""


@dataclass(frozen=True)
class ChatCompletion(_Answer):
    """The whole answer to a chat."""

    choices: tuple[ChatChoice, ...]

    @property
    def text(self) -> str:
        """The first choice's text, empty if there is none."""
        return _first_text(self.choices)


@dataclass(frozen=True)
class ChatChunk(ChatCompletion):
    """One event of a streamed chat: `choices` holds what is new; empty beside the usage."""


@dataclass(frozen=True)
class ComparedAnswer:
    """One model's answer in a comparison; where it failed, `answer` is None and `error` says why.

    Args:
        index: of the model among those that were asked.
        model: as it was asked for.
    """

    index: int
    model: str
    answer: Completion | ChatCompletion | None
    error: APIError | None

    @property
    def text(self) -> str:
        """The first choice's text, empty if there is none."""
        return self.answer.text if self.answer else ""


@dataclass(frozen=True)
class Comparison:
    """The answers of several models to one request, in the models' order."""

    id: str
    created: int | None
    answers: tuple[ComparedAnswer, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class ComparedChunk:
    """One event of a streamed comparison: the next piece of one model's answer, or its error."""

    index: int
    model: str
    chunk: CompletionChunk | ChatChunk | None
    error: APIError | None

    @property
    def text(self) -> str:
        """The piece's text, empty if there is none."""
        return self.chunk.text if self.chunk else ""


@dataclass(frozen=True)
class RankedDocument:
    """A document of a reranking: its place in the request, its score, its text if asked for."""

    index: int
    score: float
    text: str | None


@dataclass(frozen=True)
class Reranking:
    """Documents, the best first."""

    model: str
    results: tuple[RankedDocument, ...]
    usage: Usage | None
    answered_by: AnsweredBy | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Scores:
    """The scores of pairs of texts, in their order."""

    model: str
    scores: tuple[float, ...]
    usage: Usage | None
    answered_by: AnsweredBy | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Version:
    """What runs on the server.

    Args:
        version: the server's.
        base: the base's name and fingerprint.
        max_length: tokens that a prompt and its answer may have together.
    """

    version: str
    base: Base
    max_length: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Health:
    """Whether the server takes requests; if not, `code` and `reason` say why."""

    is_ready: bool
    code: str | None
    reason: str | None


def _first_text(choices: tuple[Choice, ...] | tuple[ChatChoice, ...]) -> str:
    return choices[0].text if choices else ""

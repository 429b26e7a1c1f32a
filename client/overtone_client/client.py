"""The client for ordinary programs; async_client.py holds its twin."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from . import _activity_calls as activity_calls
from . import _comparisons as comparisons
from . import _requests as requests
from . import _responses as responses
from ._connection import DEFAULT_TIMEOUT, DEFAULT_URL, TimeoutTypes, built, options, translated
from ._stream import Decoder
from ._upload import Config, Progress, Source, opened, upload_fields
from .activity_types import Activity
from .batches import Batches
from .errors import Unavailable
from .keys import Keys
from .tenants import Tenants
from .training import Training
from .types import (
    Adapter,
    Alias,
    ChatChunk,
    ChatCompletion,
    ComparedChunk,
    Comparison,
    Completion,
    CompletionChunk,
    Health,
    Messages,
    Model,
    Prompt,
    Reranking,
    Scores,
    Texts,
)

T = TypeVar("T")


class Client:
    """A connection pool to one Overtone server; close it, or use it in a `with` block.

    Safe to use from several threads. Every method raises `OvertoneError`s only (errors.py). What is
    about training stands under `training`: `client.training.jobs()`; about batches of requests
    under `batches`, about API keys under `keys`, about limits and usage under `tenants`.

    Args:
        base_url: the server's root, with or without `/v1`.
        api_key: sent as a bearer token.
        timeout: seconds for each of connecting, reading and writing, or an `httpx2.Timeout`;
            None waits forever.
        transport: instead of the network, for tests.
        acting_for: the tenant that an operator's requests are for: its names and things.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout: TimeoutTypes = DEFAULT_TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
        acting_for: str | None = None,
    ) -> None:
        given = options(base_url, api_key, timeout, acting_for)
        self._http = httpx2.Client(**given, transport=transport)
        self.training = Training(self._send, self._stream)
        self.batches = Batches(self._send)
        self.keys = Keys(self._send)
        self.tenants = Tenants(self._send)

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._http.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the pool; the client cannot be used afterwards. Safe to call twice."""
        self._http.close()

    def upload(  # noqa: PLR0913 (the fields of the request)
        self,
        source: Source,
        name: str,
        *,
        config: Config | None = None,
        alias: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        shared: bool | None = None,
        on_progress: Progress | None = None,
    ) -> Adapter:
        """Publish an adapter and return its record; the same bytes twice give the same version.

        Args:
            source: a PEFT directory, or a coefficient file.
            name: the adapter's name; a known one gets a new version.
            config: the config's file or its content; else `adapter_config.json` beside the file.
            alias: points to this version afterwards.
            metadata: kept with the version, as JSON.
            shared: whether all tenants may use the adapter; None leaves that as it is.
            on_progress: called with the bytes sent and the bytes in all.
        """
        fields = upload_fields(name, alias, metadata, shared)
        with opened(source, fields, config, on_progress) as call:
            return responses.parse_adapter(self._send(call))

    def list_adapters(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        method: str | None = None,
        prefix: str | None = None,
    ) -> Iterator[Adapter]:
        """The newest record of each adapter, in the order of names, fetched page by page.

        Args:
            limit: at most so many in all; None: every one.
            after: only names after this one.
            method: only adapters of this method.
            prefix: only names that begin so.
        """
        left: requests.Listing | None = requests.listing(limit, after, method, prefix)
        while left:
            page = responses.parse_page(self._send(left.call()))
            yield from page.adapters
            left = left.following(page)

    def show(self, name: str) -> Adapter:
        """The record of the newest version, with all aliases of the name."""
        return responses.parse_adapter(self._send(requests.show(name)))

    def versions(self, name: str) -> list[Adapter]:
        """The records of all versions, in the server's order."""
        return self._all(requests.versions(name), responses.to_adapter)

    def content(self, name: str, version: int) -> bytes:
        """The coefficient file of one version, exactly as it was uploaded."""
        return self._send(requests.content(name, version)).content

    def delete(self, name: str, version: int | None = None) -> None:
        """Delete one version, or all of them; running requests finish on it."""
        self._send(requests.delete(name, version))

    def alias(
        self, name: str, alias: str, version: int, *, if_match: str | int | None = None
    ) -> Alias:
        """Point an alias to a version.

        Args:
            name: the adapter.
            alias: made if it is not there.
            version: where it points afterwards.
            if_match: an `Alias.etag`, or the version it must point to now; raises
                PreconditionFailed when another caller moved it first.
        """
        answer = self._send(requests.alias(name, alias, version, if_match))
        return responses.parse_alias(answer, name, alias)

    def rollback(self, name: str) -> Adapter:
        """Point `latest` back to the version before; returns that version's record."""
        return responses.parse_adapter(self._send(requests.rollback(name)))

    def share(
        self, name: str, *, shared: bool | None = None, tenants: Sequence[str] | None = None
    ) -> Adapter:
        """Say which other tenants may use an adapter, as `OWNER:NAME`; they cannot change it.

        Args:
            name: of your own.
            shared: whether all of them may; None leaves that as it is.
            tenants: those that may in any case, instead of those before; None leaves them.
        """
        return responses.parse_adapter(self._send(requests.share(name, shared, tenants)))

    def warm(self, name: str) -> None:
        """Load an adapter now, so that its first request need not wait."""
        self._send(requests.warm(name))

    def pin(self, name: str) -> None:
        """Keep an adapter in memory until it is unpinned. Safe to call twice."""
        self._send(requests.pin(name))

    def unpin(self, name: str) -> None:
        """Let an adapter leave memory when others need the room. Safe to call twice."""
        self._send(requests.unpin(name))

    def models(self, *, limit: int | None = None, after: str | None = None) -> list[Model]:
        """Everything that can be named as `model`: the base, then its adapters by name.

        Args:
            limit: at most so many; None: every one.
            after: only what comes after this one.
        """
        return self._all(requests.models(limit, after), responses.to_model)

    def health(self) -> Health:
        """Whether the server takes requests; a server that is starting or draining says why."""
        try:
            self._send(requests.health())
        except Unavailable as error:
            return Health(is_ready=False, code=error.code, reason=error.message)
        return Health(is_ready=True, code=None, reason=None)

    def activity(self, limit: int | None = None) -> Activity:
        """What the server does now, adapter by adapter; the key needs the scope `metrics`.

        Args:
            limit: of the adapters that were used last; None: the server's own.
        """
        return activity_calls.parse(self._send(activity_calls.activity(limit)))

    def complete(self, model: str, prompt: Prompt, **params: Any) -> Completion:
        """Continue a text.

        Args:
            model: the base's name, or `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
            prompt: a text, several texts, or token ids.
            params: OpenAI's, e.g. `max_tokens=32, temperature=0`; None leaves one out.
        """
        answer = self._send(requests.complete(model, prompt, params))
        return responses.parse_completion(answer)

    def chat(self, model: str, messages: Messages, **params: Any) -> ChatCompletion:
        """Answer a chat of `{"role": …, "content": …}`; the rest as in `complete`."""
        answer = self._send(requests.chat(model, messages, params))
        return responses.parse_chat(answer)

    def stream_complete(
        self, model: str, prompt: Prompt, **params: Any
    ) -> Generator[CompletionChunk, None, None]:
        """As `complete`, piece by piece; closing the generator cancels the request.

        The last piece has the usage and no choice.
        """
        call = requests.streamed(requests.complete(model, prompt, params))
        return self._stream(call, responses.to_completion_chunk)

    def stream_chat(
        self, model: str, messages: Messages, **params: Any
    ) -> Generator[ChatChunk, None, None]:
        """As `chat`, piece by piece; closing the generator cancels the request."""
        call = requests.streamed(requests.chat(model, messages, params))
        return self._stream(call, responses.to_chat_chunk)

    def compare(
        self,
        models: Sequence[str],
        prompt: Prompt | None = None,
        *,
        messages: Messages | None = None,
        **params: Any,
    ) -> Comparison:
        """Ask several models the same, side by side in one batch.

        Args:
            models: up to sixteen names as in `complete`; one that fails has an error for an answer.
            prompt: a text, several texts, or token ids.
            messages: a chat instead of a prompt.
            params: as in `complete`.
        """
        answer = self._send(comparisons.compare(models, prompt, messages, params))
        return comparisons.parse_comparison(answer)

    def stream_compare(
        self,
        models: Sequence[str],
        prompt: Prompt | None = None,
        *,
        messages: Messages | None = None,
        **params: Any,
    ) -> Generator[ComparedChunk, None, None]:
        """As `compare`, piece by piece; closing the generator cancels the request."""
        call = requests.streamed(comparisons.compare(models, prompt, messages, params))
        return self._stream(call, comparisons.to_compared_chunk)

    def rerank(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool | None = None,
    ) -> Reranking:
        """Order documents by how well they answer a query, as a cross-encoder scores them.

        Args:
            model: the base's name, or `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
            query: what is asked.
            documents: the texts.
            top_n: only so many of the best; None: all.
            truncate: cut a text that is too long instead of refusing it.
        """
        params = {"top_n": top_n, "truncate": truncate}
        answer = self._send(requests.rerank(model, query, documents, params))
        return responses.parse_reranking(answer)

    def score(
        self, model: str, text_1: Texts, text_2: Texts, *, truncate: bool | None = None
    ) -> Scores:
        """Score pairs of texts: one `text_1` with every `text_2`, or each with its own."""
        answer = self._send(requests.score(model, text_1, text_2, {"truncate": truncate}))
        return responses.parse_scores(answer)

    def _all(self, walk: requests.Walk, build: Callable[[Any], T]) -> list[T]:
        found: list[T] = []
        left: requests.Walk | None = walk
        while left:
            some, body = responses.parse_items(self._send(left.call()), build)
            found += some
            left = left.following(body)
        return found

    def _send(self, call: requests.Call) -> httpx2.Response:
        with translated(str(self._http.base_url)):
            return responses.checked(self._http.send(built(self._http, call)))

    def _stream(self, call: requests.Call, build: Callable[[Any], T]) -> Generator[T, None, None]:
        with (
            translated(str(self._http.base_url)),
            closing(self._http.send(built(self._http, call), stream=True)) as response,
        ):
            if not response.is_success:
                response.read()
            decoder = Decoder(response, build)
            for event in httpx2.EventSource(response):
                yield from decoder.values(event)
            decoder.finish()

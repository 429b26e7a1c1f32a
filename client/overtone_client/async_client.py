"""The client for asyncio programs; client.py holds its twin, with the methods described."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
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
from .async_batches import AsyncBatches
from .async_keys import AsyncKeys
from .async_tenants import AsyncTenants
from .async_training import AsyncTraining
from .errors import Unavailable
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


class AsyncClient:
    """The same as `Client`, method for method; use it in an `async with` block, or `close` it.

    An upload reads its file, a few kilobytes, in the event loop's own thread.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout: TimeoutTypes = DEFAULT_TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
        acting_for: str | None = None,
    ) -> None:
        given = options(base_url, api_key, timeout, acting_for)
        self._http = httpx2.AsyncClient(**given, transport=transport)
        self.training = AsyncTraining(self._send, self._stream)
        self.batches = AsyncBatches(self._send)
        self.keys = AsyncKeys(self._send)
        self.tenants = AsyncTenants(self._send)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def close(self) -> None:
        await self._http.aclose()

    async def upload(  # noqa: PLR0913 (the fields of the request)
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
        fields = upload_fields(name, alias, metadata, shared)
        with opened(source, fields, config, on_progress) as call:
            return responses.parse_adapter(await self._send(call))

    async def list_adapters(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        method: str | None = None,
        prefix: str | None = None,
    ) -> AsyncIterator[Adapter]:
        left: requests.Listing | None = requests.listing(limit, after, method, prefix)
        while left:
            page = responses.parse_page(await self._send(left.call()))
            for adapter in page.adapters:
                yield adapter
            left = left.following(page)

    async def show(self, name: str) -> Adapter:
        return responses.parse_adapter(await self._send(requests.show(name)))

    async def versions(self, name: str) -> list[Adapter]:
        return await self._all(requests.versions(name), responses.to_adapter)

    async def content(self, name: str, version: int) -> bytes:
        return (await self._send(requests.content(name, version))).content

    async def delete(self, name: str, version: int | None = None) -> None:
        await self._send(requests.delete(name, version))

    async def alias(
        self, name: str, alias: str, version: int, *, if_match: str | int | None = None
    ) -> Alias:
        answer = await self._send(requests.alias(name, alias, version, if_match))
        return responses.parse_alias(answer, name, alias)

    async def rollback(self, name: str) -> Adapter:
        return responses.parse_adapter(await self._send(requests.rollback(name)))

    async def share(
        self, name: str, *, shared: bool | None = None, tenants: Sequence[str] | None = None
    ) -> Adapter:
        return responses.parse_adapter(await self._send(requests.share(name, shared, tenants)))

    async def warm(self, name: str) -> None:
        await self._send(requests.warm(name))

    async def pin(self, name: str) -> None:
        await self._send(requests.pin(name))

    async def unpin(self, name: str) -> None:
        await self._send(requests.unpin(name))

    async def models(self, *, limit: int | None = None, after: str | None = None) -> list[Model]:
        return await self._all(requests.models(limit, after), responses.to_model)

    async def health(self) -> Health:
        try:
            await self._send(requests.health())
        except Unavailable as error:
            return Health(is_ready=False, code=error.code, reason=error.message)
        return Health(is_ready=True, code=None, reason=None)

    async def activity(self, limit: int | None = None) -> Activity:
        return activity_calls.parse(await self._send(activity_calls.activity(limit)))

    async def complete(self, model: str, prompt: Prompt, **params: Any) -> Completion:
        answer = await self._send(requests.complete(model, prompt, params))
        return responses.parse_completion(answer)

    async def chat(self, model: str, messages: Messages, **params: Any) -> ChatCompletion:
        answer = await self._send(requests.chat(model, messages, params))
        return responses.parse_chat(answer)

    def stream_complete(
        self, model: str, prompt: Prompt, **params: Any
    ) -> AsyncGenerator[CompletionChunk, None]:
        call = requests.streamed(requests.complete(model, prompt, params))
        return self._stream(call, responses.to_completion_chunk)

    def stream_chat(
        self, model: str, messages: Messages, **params: Any
    ) -> AsyncGenerator[ChatChunk, None]:
        call = requests.streamed(requests.chat(model, messages, params))
        return self._stream(call, responses.to_chat_chunk)

    async def compare(
        self,
        models: Sequence[str],
        prompt: Prompt | None = None,
        *,
        messages: Messages | None = None,
        **params: Any,
    ) -> Comparison:
        answer = await self._send(comparisons.compare(models, prompt, messages, params))
        return comparisons.parse_comparison(answer)

    def stream_compare(
        self,
        models: Sequence[str],
        prompt: Prompt | None = None,
        *,
        messages: Messages | None = None,
        **params: Any,
    ) -> AsyncGenerator[ComparedChunk, None]:
        call = requests.streamed(comparisons.compare(models, prompt, messages, params))
        return self._stream(call, comparisons.to_compared_chunk)

    async def rerank(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool | None = None,
    ) -> Reranking:
        params = {"top_n": top_n, "truncate": truncate}
        answer = await self._send(requests.rerank(model, query, documents, params))
        return responses.parse_reranking(answer)

    async def score(
        self, model: str, text_1: Texts, text_2: Texts, *, truncate: bool | None = None
    ) -> Scores:
        answer = await self._send(requests.score(model, text_1, text_2, {"truncate": truncate}))
        return responses.parse_scores(answer)

    async def _all(self, walk: requests.Walk, build: Callable[[Any], T]) -> list[T]:
        found: list[T] = []
        left: requests.Walk | None = walk
        while left:
            some, body = responses.parse_items(await self._send(left.call()), build)
            found += some
            left = left.following(body)
        return found

    async def _send(self, call: requests.Call) -> httpx2.Response:
        with translated(str(self._http.base_url)):
            return responses.checked(await self._http.send(built(self._http, call)))

    async def _stream(
        self, call: requests.Call, build: Callable[[Any], T]
    ) -> AsyncGenerator[T, None]:
        with translated(str(self._http.base_url)):
            request = built(self._http, call)
            async with aclosing(await self._http.send(request, stream=True)) as response:
                if not response.is_success:
                    await response.aread()
                decoder = Decoder(response, build)
                async for event in httpx2.EventSource(response):
                    for value in decoder.values(event):
                        yield value
                decoder.finish()

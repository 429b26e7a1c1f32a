"""What is said about adapters: published, listed, named, shared, kept in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from .. import _requests as requests
from .. import _responses as responses
from .._peft import PeftModelLike, taken
from .._upload import Config, Progress, Source, from_bytes, opened, upload_fields
from ..errors import BaseMismatch, InvalidAdapter, NoEffect, NonFinite, OvertoneError
from ..types import Adapter, AdapterLayer, Alias
from .sender import AsyncSender


class AsyncAdapterCalls:
    """The client's methods about adapters."""

    _sender: AsyncSender

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
            return responses.parse_adapter(await self._sender.send(call))

    async def upload_peft(  # noqa: PLR0913 (the fields of the request)
        self,
        model: PeftModelLike | Mapping[str, Any],
        name: str,
        *,
        config: Any = None,
        adapter: str | None = None,
        alias: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        shared: bool | None = None,
        on_progress: Progress | None = None,
    ) -> Adapter:
        """Publish an adapter that is in memory, as PEFT's `save_pretrained` would write it.

        Nothing is written to disk. Needs the packages that made it: peft, safetensors.

        Args:
            model: a PeftModel, or an adapter's tensors by the names that PEFT saves them under.
            name: the adapter's name on the server; a known one gets a new version.
            config: of tensors: a PeftConfig, or the content of adapter_config.json.
            adapter: which of a PeftModel's adapters; None: the active one.
            alias: points to this version afterwards.
            metadata: kept with the version, as JSON.
            shared: whether all tenants may use the adapter; None leaves that as it is.
            on_progress: called with the bytes sent and the bytes in all.

        Raises:
            BaseMismatch: the adapter was made for another base; the message names both.
        """
        data, made = taken(model, config, adapter)
        fields = upload_fields(name, alias, metadata, shared)
        call = from_bytes(data, made, fields, on_progress)
        try:
            return responses.parse_adapter(await self._sender.send(call))
        except (BaseMismatch, InvalidAdapter) as error:
            if not isinstance(error, NoEffect | NonFinite):  # those are of its values
                error.message += await self._bases(made.get("base_model_name_or_path"))
                error.args = (error.message,)
            raise

    async def _bases(self, named: str | None) -> str:
        """What to say behind the message of an adapter that does not fit."""
        try:
            served = await self._sender.all(requests.models(1, None), responses.to_model)
        except OvertoneError:  # the first error is the one to report
            served = []
        here = f"; this server's base is {served[0].id!r}" if served else ""
        return f" (made on {named!r}{here})"

    def list_adapters(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        method: str | None = None,
        prefix: str | None = None,
    ) -> AsyncIterator[Adapter]:
        """The newest record of each adapter, in the order of names, fetched page by page.

        Args:
            limit: at most so many in all; None: every one.
            after: only names after this one.
            method: only adapters of this method.
            prefix: only names that begin so.
        """
        walk = requests.listing(limit, after, method, prefix)
        return self._sender.walk(walk, responses.to_adapter)

    async def show(self, name: str) -> Adapter:
        """The record of the newest version, with all aliases of the name."""
        return responses.parse_adapter(await self._sender.send(requests.show(name)))

    async def versions(self, name: str) -> list[Adapter]:
        """The records of all versions, in the server's order."""
        return await self._sender.all(requests.versions(name), responses.to_adapter)

    async def content(self, name: str, version: int) -> bytes:
        """The coefficient file of one version, exactly as it was uploaded."""
        return (await self._sender.send(requests.content(name, version))).content

    async def layers(self, name: str, version: int) -> list[AdapterLayer]:
        """What one version of your own changes, layer by layer, in the base's order."""
        answer = await self._sender.send(requests.layers(name, version))
        found, _ = responses.parse_items(answer, responses.to_layer)
        return list(found)

    async def delete(self, name: str, version: int | None = None) -> None:
        """Delete one version, or all of them; running requests finish on it."""
        await self._sender.send(requests.delete(name, version))

    async def alias(
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
        answer = await self._sender.send(requests.alias(name, alias, version, if_match))
        return responses.parse_alias(answer, name, alias)

    async def rollback(self, name: str) -> Adapter:
        """Point `latest` back to the version before; returns that version's record."""
        return responses.parse_adapter(await self._sender.send(requests.rollback(name)))

    async def share(
        self, name: str, *, shared: bool | None = None, tenants: Sequence[str] | None = None
    ) -> Adapter:
        """Say which other tenants may use an adapter, as `OWNER:NAME`; they cannot change it.

        Args:
            name: of your own.
            shared: whether all of them may; None leaves that as it is.
            tenants: those that may in any case, instead of those before; None leaves them.
        """
        call = requests.share(name, shared, tenants)
        return responses.parse_adapter(await self._sender.send(call))

    async def warm(self, name: str) -> None:
        """Load an adapter now, so that its first request need not wait."""
        await self._sender.send(requests.warm(name))

    async def pin(self, name: str) -> None:
        """Keep an adapter in memory until it is unpinned. Safe to call twice."""
        await self._sender.send(requests.pin(name))

    async def unpin(self, name: str) -> None:
        """Let an adapter leave memory when others need the room. Safe to call twice."""
        await self._sender.send(requests.unpin(name))

"""Adapters: records, aliases, and what is in memory."""

from typing import Any, Literal

from typing_extensions import TypedDict

from server.api.bodies.files import ListPage

ResidentMode = Literal["factored", "merged"]


class AdapterBase(TypedDict):
    """The base that an adapter belongs to.

    Args:
        name: the base's name.
        fingerprint: of its architecture and shapes.
        verified: false where the file carried no fingerprint and only names and shapes fit.
    """

    name: str
    fingerprint: str
    verified: bool


class Adapter(TypedDict):
    """One version of an adapter; it never changes.

    Args:
        name: the adapter's name.
        version: counts from 1.
        digest: `sha256:` and 64 hex digits of the coefficient file and its config.
        method: such as `fourierft`.
        method_config: the method's hyper-parameters.
        base: the base that it was made for.
        target_modules: paths of the adapted modules.
        num_coefficients: numbers that the adapter owns, over all layers.
        size_bytes: of the coefficient file.
        created_at: seconds since 1970.
        created_by: `upload`, or the id of a training job; empty for another tenant's adapter.
        aliases: alias -> version, `latest` among them.
        metadata: the publisher's own; empty for another tenant's adapter.
        metrics: what evaluation measured.
        owner: the tenant; empty for the operators', whose adapters every tenant may use.
        shared: every tenant may use it.
        shared_with: tenants that may use it beside its owner; told to the owner alone.
        residency: the modes in which it is in this server's memory; told to operators alone.
    """

    object: Literal["adapter"]
    name: str
    version: int
    digest: str
    method: str
    method_config: dict[str, Any]
    base: AdapterBase
    target_modules: list[str]
    num_coefficients: int
    size_bytes: int
    created_at: int
    created_by: str
    aliases: dict[str, int]
    metadata: dict[str, Any]
    metrics: dict[str, Any]
    owner: str
    shared: bool
    shared_with: list[str]
    residency: list[ResidentMode]


class AdapterPage(ListPage):
    """The latest version of each adapter, in the order of their names.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
        first_id: name of the first entry.
        last_id: name of the last entry.
    """

    data: list[Adapter]


class AdapterVersions(ListPage):
    """The versions of one adapter, the oldest first: all, or the page that was asked for.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
        first_id: number of the first entry's version.
        last_id: number of the last entry's version.
    """

    data: list[Adapter]


class MovedAlias(TypedDict):
    """Where an alias points now."""

    object: Literal["alias"]
    name: str
    alias: str
    version: int


class DeletedAdapter(TypedDict):
    """What was deleted; `version` is null where all versions were."""

    object: Literal["adapter.deleted"]
    name: str
    version: int | None
    deleted: Literal[True]


class Residency(TypedDict):
    """What of an adapter is in memory.

    Args:
        residency: the modes in which it is in memory.
        pinned: it stays there until it is unpinned.
    """

    object: Literal["adapter.residency"]
    name: str
    version: int
    digest: str
    residency: list[ResidentMode]
    pinned: bool


class Unpinned(TypedDict):
    """An adapter that was pinned, and is no longer."""

    object: Literal["adapter.residency"]
    name: str
    pinned: Literal[False]

"""Limits of tenants, and what they have used."""

from typing import Literal

from typing_extensions import TypedDict


class OwnLimits(TypedDict, total=False):
    """The limits that were set for a tenant; those that are missing are the server's default.

    Args:
        requests_per_minute: of inference.
        tokens_per_minute: of prompts and answers.
        running_requests: of inference, open at a time.
        adapters: names of its own.
        adapter_bytes: of their coefficients, in all versions.
        files: uploaded, and results of batches.
        file_bytes: of them.
        jobs: of training, that have not ended.
    """

    requests_per_minute: int | Literal["unlimited"]
    tokens_per_minute: int | Literal["unlimited"]
    running_requests: int | Literal["unlimited"]
    adapters: int | Literal["unlimited"]
    adapter_bytes: int | Literal["unlimited"]
    files: int | Literal["unlimited"]
    file_bytes: int | Literal["unlimited"]
    jobs: int | Literal["unlimited"]


class HeldLimits(TypedDict):
    """The limits that hold; null is none.

    Args:
        requests_per_minute: of inference.
        tokens_per_minute: of prompts and answers.
        running_requests: of inference, open at a time.
        adapters: names of its own.
        adapter_bytes: of their coefficients, in all versions.
        files: uploaded, and results of batches.
        file_bytes: of them.
        jobs: of training, that have not ended.
    """

    requests_per_minute: int | None
    tokens_per_minute: int | None
    running_requests: int | None
    adapters: int | None
    adapter_bytes: int | None
    files: int | None
    file_bytes: int | None
    jobs: int | None


class TenantLimits(TypedDict):
    """What a tenant may ask of all servers of the registry together.

    Args:
        tenant: that they are for; callers that its gateway names are counted with it.
        own: those that were set for it.
        limits: those that hold: its own, else this server's default.
    """

    object: Literal["tenant.limits"]
    tenant: str
    own: OwnLimits
    limits: HeldLimits


class Use(TypedDict):
    """How much of one limit is used.

    Args:
        used: now; of a rate what has not come back yet. Null where nothing is counted.
        allowed: the limit; null for none.
    """

    used: int | None
    allowed: int | None


class Uses(TypedDict):
    """How much of each limit is used.

    Args:
        requests_per_minute: of inference.
        tokens_per_minute: of prompts and answers.
        running_requests: of inference, open at all servers.
        adapters: names of its own.
        adapter_bytes: of their coefficients, in all versions.
        files: uploaded, and results of batches.
        file_bytes: of them.
        jobs: of training, that have not ended.
    """

    requests_per_minute: Use
    tokens_per_minute: Use
    running_requests: Use
    adapters: Use
    adapter_bytes: Use
    files: Use
    file_bytes: Use
    jobs: Use


class TenantUsage(TypedDict):
    """What a tenant uses of what it may.

    Args:
        tenant: that is counted.
        usage: limit by limit, with what servers hold in advance; rates and running requests are
            counted only while there is a limit.
    """

    object: Literal["tenant.usage"]
    tenant: str
    usage: Uses

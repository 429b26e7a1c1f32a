"""What is asked of tenants' limits, and how they are answered."""

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import Field

from registry.common.limits import MAX_LIMIT, NAMES, Limits
from registry.quotas.rates import Granted
from registry.quotas.stocks import Held
from server.api.bodies.limits import OwnLimits, TenantLimits, TenantUsage
from server.api.request_body import RequestBody

UNLIMITED = "unlimited"
Limit = Annotated[int, Field(ge=0, le=MAX_LIMIT, strict=True)] | Literal["unlimited"] | None


class LimitsRequest(RequestBody):
    """A tenant's own limits, in place of those before.

    A number, `"unlimited"`, or null for the server's default.

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

    example = {"requests_per_minute": 600, "tokens_per_minute": 200000, "running_requests": 16}

    requests_per_minute: Limit = None
    tokens_per_minute: Limit = None
    running_requests: Limit = None
    adapters: Limit = None
    adapter_bytes: Limit = None
    files: Limit = None
    file_bytes: Limit = None
    jobs: Limit = None

    @property
    def given(self) -> dict[str, int | None]:
        """Return them as the registry keeps them."""
        values = {name: getattr(self, name) for name in NAMES}
        return {
            name: None if value == UNLIMITED else value
            for name, value in values.items()
            if value is not None
        }


def limits_object(tenant: str, own: dict[str, int | None], held: Limits) -> TenantLimits:
    """Return a tenant's limits as the API shows them."""
    shown: OwnLimits = {  # type: ignore[assignment]
        name: UNLIMITED if value is None else value for name, value in own.items()
    }
    return {"object": "tenant.limits", "tenant": tenant, "own": shown, "limits": held.named()}  # type: ignore[typeddict-item]


def usage_object(tenant: str, limits: Limits, rates: Granted, held: Held) -> TenantUsage:
    """Return what a tenant uses as the API shows it."""
    used: dict[str, int | None] = {**dict.fromkeys(NAMES), **asdict(held)}
    left = rates.left
    for name, remaining in (
        ("requests_per_minute", left.requests),
        ("tokens_per_minute", left.tokens),
    ):
        limit = getattr(limits, name)
        used[name] = None if limit is None else max(0, round(limit - remaining))
    used["running_requests"] = None if limits.running_requests is None else rates.permits
    uses = {name: {"used": used[name], "allowed": getattr(limits, name)} for name in NAMES}
    return {"object": "tenant.usage", "tenant": tenant, "usage": uses}  # type: ignore[typeddict-item]

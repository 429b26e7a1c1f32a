"""What is asked of the sharing of an adapter."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from registry import Sharing
from registry.access.record import TENANT
from registry.adapters.sharing import MAX_TENANTS
from server.api.request_body import RequestBody

#: A key's tenant, or a caller of its gateway.
_Tenant = Annotated[str, Field(pattern=rf"^{TENANT.pattern}(/.{{1,128}})?$")]


class SharingRequest(RequestBody):
    """Which other tenants may use an adapter.

    Args:
        shared: whether all of them may; missing: as before.
        shared_with: those that may in any case, instead of those before; missing: as before.
    """

    example = {"shared": False, "shared_with": ["bob"]}

    shared: Annotated[bool, Field(strict=True)] | None = None
    shared_with: Annotated[list[_Tenant], Field(max_length=MAX_TENANTS)] | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.shared is None and self.shared_with is None:
            raise ValueError("give shared, or shared_with, or both")
        return self

    def changed(self, before: Sharing) -> Sharing:
        """Return the sharing that is asked for."""
        everyone = before.everyone if self.shared is None else self.shared
        tenants = before.tenants if self.shared_with is None else self.shared_with
        return Sharing.of(everyone, tenants)

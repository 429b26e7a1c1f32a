"""With which tenants an adapter is shared: they may use it, and not change it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from registry.errors import InvalidArgument

#: Stands for all tenants; no tenant is called so.
EVERYONE = "*"
MAX_TENANTS = 256
MAX_TENANT_CHARS = 200


@dataclass(frozen=True)
class Sharing:
    """The tenants that may use an adapter beside its owner.

    Args:
        everyone: all of them.
        tenants: these, in their order.

    Raises:
        InvalidArgument: there are too many, or one cannot be a tenant.
    """

    everyone: bool = False
    tenants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.tenants) > MAX_TENANTS:
            raise InvalidArgument(
                f"an adapter is shared with up to {MAX_TENANTS} tenants, not {len(self.tenants)}: "
                "share it with all"
            )
        for tenant in self.tenants:
            if not 0 < len(tenant) <= MAX_TENANT_CHARS or tenant == EVERYONE or "\n" in tenant:
                raise InvalidArgument(f"no tenant is called {ascii(tenant[:80])}")

    @classmethod
    def of(cls, everyone: bool, tenants: Collection[str]) -> Self:
        """Return a sharing with these tenants, each of them once."""
        return cls(everyone, tuple(sorted(set(tenants))))

    @classmethod
    def read(cls, stored: bytes | None) -> Self:
        """Read what `stored` wrote; None for nothing."""
        words = (stored or b"").decode().split("\n")
        return cls.of(EVERYONE in words, [word for word in words if word not in ("", EVERYONE)])

    @property
    def words(self) -> tuple[str, ...]:
        """Return those with which it is shared, one of them perhaps `EVERYONE`."""
        return (*((EVERYONE,) if self.everyone else ()), *self.tenants)

    @property
    def stored(self) -> str:
        """Return it as it is stored, one word a line."""
        return "\n".join(self.words)

    def lets(self, tenant: str) -> bool:
        """Return whether a tenant may use the adapter."""
        return self.everyone or tenant in self.tenants

"""Packed rows of evicted adapters in host memory: restored without reading or checking a file.

Bounded in bytes; the oldest copies are dropped first. The caller guards it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from torch import Tensor

from adapters_core.base.heads import Head, bytes_of
from adapters_core.layers.bank import Layout


@dataclass(frozen=True)
class HostCopy:
    """An adapter as its bank holds it: `row` float32 `[layout.width]` in host memory."""

    layout: Layout
    row: Tensor
    method: str
    head: Head | None = None

    @property
    def size_bytes(self) -> int:
        """Return the bytes of the row and the head."""
        return self.row.numel() * self.row.element_size() + bytes_of(self.head)

    @property
    def needs_layers(self) -> bool:
        """Return whether a new bank of its layout can only be made from an adapter's file."""
        return any(part.method.needs_base for part in self.layout.parts.values())


@dataclass
class HostCache:
    """Copies by digest; a copy that is taken out goes back to the device and is forgotten here."""

    capacity_bytes: int
    used_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    copies: "OrderedDict[str, HostCopy]" = field(default_factory=OrderedDict)

    def put(self, digest: str, copy: HostCopy) -> None:
        """Keep a copy; older ones make room, and one that is too large is not kept."""
        self._forget(digest)
        if copy.size_bytes > self.capacity_bytes:
            return
        while self.used_bytes + copy.size_bytes > self.capacity_bytes:
            self._forget(next(iter(self.copies)))
            self.evictions += 1
        self.copies[digest] = copy
        self.used_bytes += copy.size_bytes

    def take(self, digest: str) -> HostCopy | None:
        """Return the copy of `digest` and forget it; None if there is none."""
        copy = self.copies.get(digest)
        self._forget(digest)
        self.hits += copy is not None
        self.misses += copy is None
        return copy

    def _forget(self, digest: str) -> None:
        copy = self.copies.pop(digest, None)
        self.used_bytes -= copy.size_bytes if copy else 0

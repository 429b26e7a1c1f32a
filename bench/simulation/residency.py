"""Adapters in one replica's memory: the least recently used that is not in use makes room."""

from collections import OrderedDict
from collections.abc import Iterable


class Residency:
    """Holds adapters of one size.

    Args:
        memory: bytes.
        size: bytes of one adapter, at most the memory.
    """

    def __init__(self, memory: int, size: int) -> None:
        self._slots, self._size = memory // size, size
        self._used: dict[int, int] = {}  # users of each
        self._unused: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, adapter: int) -> bool:
        return adapter in self._used or adapter in self._unused

    @property
    def num_bytes(self) -> int:
        """Return the bytes of what is resident."""
        return self._size * (len(self._used) + len(self._unused))

    def acquire(self, adapter: int) -> bool:
        """Mark an adapter as used once more, in memory or brought in; False if all are used."""
        users = self._used.get(adapter, 0)
        if not users:
            if adapter in self._unused:
                del self._unused[adapter]
            elif not self._make_room():
                return False
        self._used[adapter] = users + 1
        return True

    def release(self, adapter: int) -> None:
        """Undo one `acquire`; an adapter that is not used any more stays until room is needed."""
        self._used[adapter] -= 1
        if not self._used[adapter]:
            del self._used[adapter]
            self._unused[adapter] = None

    def fill(self, adapters: Iterable[int]) -> None:
        """Bring adapters in one after the other, where not all of the memory is in use."""
        for adapter in adapters:
            if adapter in self._unused:
                self._unused.move_to_end(adapter)
            elif adapter not in self._used and self._make_room():
                self._unused[adapter] = None

    def _make_room(self) -> bool:
        if len(self._used) + len(self._unused) < self._slots:
            return True
        if not self._unused:
            return False
        self._unused.popitem(last=False)
        return True

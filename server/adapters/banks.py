"""The banks of one device by layout, and the bound on what their bases take together.

A file of two kilobytes may name a seed that gives megabytes: what adapters of one layout share is
counted for the whole server, and adapters are evicted until whole banks are gone.
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager

from adapters_core.bank import Bank, Layout
from adapters_core.bases import Bases
from adapters_core.method import Coefficients
from server.errors import AdapterTooLarge


class Banks:
    """Makes a bank when its first adapter comes and drops it with its last one.

    Args:
        bases: where the banks' bases come from.
        basis_bytes: what the bases of all banks may take together.
        room: guards everything here; the caller of `drop_if_empty` holds it.
        make_room: evicts an adapter of some bank, or waits until one may be; called under `room`
            and told whether another load holds a bank, which makes room sooner or later.
    """

    def __init__(
        self,
        bases: Bases,
        basis_bytes: int,
        room: threading.Condition,
        make_room: Callable[[bool], None],
    ) -> None:
        self._bases = bases
        self._basis_bytes = basis_bytes
        self._room = room
        self._make_room = make_room
        self._by_layout: dict[Hashable, Bank] = {}
        self._loads: Counter[Hashable] = Counter()
        # One new bank at a time: two that are both counted would wait for each other's room.
        self._making = threading.Lock()

    def __iter__(self) -> Iterator[Bank]:
        return iter(self._by_layout.values())

    @contextmanager
    def held(
        self, layout: Layout, layers: Mapping[str, Coefficients] | None = None
    ) -> Iterator[Bank]:
        """Give a load the bank of `layout`; it is kept, empty or not, until the block ends.

        Raises:
            AdapterTooLarge: its bases alone are over the bound.
        """
        bank = self._known(layout)
        if bank is None:
            with self._making:
                bank = self._known(layout) or self._made(layout, layers)
        try:
            yield bank
        finally:
            with self._room:
                self._loads[layout.key] -= 1
                self._loads += Counter()  # drops zeros
                self.drop_if_empty(bank)
                self._room.notify_all()

    def drop_if_empty(self, bank: Bank) -> None:
        """Forget a bank that no adapter is in and no load holds."""
        key = bank.layout.key
        if bank.is_empty and not self._loads[key] and self._by_layout.get(key) is bank:
            del self._by_layout[key]

    def _known(self, layout: Layout) -> Bank | None:
        with self._room:
            bank = self._by_layout.get(layout.key)
            if bank is not None:
                self._loads[layout.key] += 1
            return bank

    def _made(self, layout: Layout, layers: Mapping[str, Coefficients] | None) -> Bank:
        bank = Bank(layout, self._bases, layers=layers)
        alone = sum(bank.basis_memory.values())
        if alone > self._basis_bytes:
            raise AdapterTooLarge(
                f"the adapter's bases take {alone} bytes; {self._basis_bytes} are set aside"
            )
        with self._room:
            while self._bytes_with(bank) > self._basis_bytes:
                self._make_room(bool(self._loads))
            self._by_layout[layout.key] = bank
            self._loads[layout.key] += 1
        return bank

    def _bytes_with(self, newest: Bank) -> int:
        memory = dict(newest.basis_memory)
        for bank in self._by_layout.values():
            memory |= bank.basis_memory
        return sum(memory.values())

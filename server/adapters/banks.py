"""The banks of one device by layout, and the bound on what their bases take together.

A file of two kilobytes may name a seed that gives megabytes: what adapters of one layout share is
counted for the whole server, and adapters are evicted until whole banks are gone.
"""

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from adapters_core.layers.bank import Bank, Layout
from server.errors import AdapterTooLarge


@dataclass
class Banks:
    """The banks, and how many loads hold each; an empty one is kept while a load holds it.

    Guarded by the caller.

    Args:
        basis_bytes: what the bases of all banks may take together.
    """

    basis_bytes: int
    _by_layout: dict[Hashable, Bank] = field(default_factory=dict)
    _loads: Counter[Hashable] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Bank]:
        return iter(self._by_layout.values())

    @property
    def are_held(self) -> bool:
        """Return whether a load holds any bank; it fills the bank, or lets it go."""
        return bool(self._loads)

    def hold(self, layout: Layout) -> Bank | None:
        """Return the bank of `layout`, held by one more load; None if there is none."""
        bank = self._by_layout.get(layout.key)
        if bank is not None:
            self._loads[layout.key] += 1
        return bank

    def add(self, bank: Bank) -> None:
        """Add a new bank, held by one load."""
        self._by_layout[bank.layout.key] = bank
        self._loads[bank.layout.key] += 1

    def let_go(self, bank: Bank) -> None:
        """Note that a load holds the bank no longer."""
        self._loads[bank.layout.key] -= 1
        self._loads += Counter()  # drops zeros
        self.drop_if_empty(bank)

    def drop_if_empty(self, bank: Bank) -> None:
        """Forget a bank that holds no adapter and that no load holds."""
        key = bank.layout.key
        if bank.is_empty and not self._loads[key] and self._by_layout.get(key) is bank:
            del self._by_layout[key]

    def check_size(self, bank: Bank) -> None:
        """Check that a bank's bases fit when there is no other bank.

        Raises:
            AdapterTooLarge: they do not.
        """
        alone = sum(bank.basis_memory.values())
        if alone > self.basis_bytes:
            raise AdapterTooLarge(
                f"the adapter's bases take {alone} bytes; {self.basis_bytes} are set aside"
            )

    def has_room(self, newest: Bank) -> bool:
        """Return whether the bases of a new bank fit beside those of all others."""
        memory = dict(newest.basis_memory)
        for bank in self:
            memory |= bank.basis_memory
        return sum(memory.values()) <= self.basis_bytes

"""A loader with room for so many adapters, what it told, and a check of its books."""

import queue
from dataclasses import dataclass, field

from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection
from adapters_core.methods import FourierFT
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.adapters.modes import Mode
from server.adapters.payload import Factored
from server.adapters.residency import Entry
from server.base.resident import ResidentBase
from server.telemetry.observer import CacheStats, LoadStats, Observer
from server_parts import CPU, FOURIERFT, QUERY_VALUE, Store, eventually


@dataclass
class Remembering(Observer):
    """Keeps what it was told."""

    loads: list[LoadStats] = field(default_factory=list)
    caches: list[CacheStats] = field(default_factory=list)

    def on_load(self, stats: LoadStats) -> None:
        self.loads.append(stats)

    def on_cache(self, stats: CacheStats) -> None:
        self.caches.append(stats)


class Place:
    """A loader with room for so many adapters of each mode, and the entries it reported."""

    def __init__(
        self,
        store: Store,
        injection: Injection,
        factored: int,
        merged: int,
        basis_bytes: int = 1 << 30,
        host: int = 0,
    ) -> None:
        spec = store.spec
        targets = [t for t in spec.targets if t.endswith(QUERY_VALUE)]
        layout = Layout.of(dict.fromkeys(targets, FOURIERFT), spec.targets)
        self.row_bytes = 4 * layout.width
        self.merged_bytes = sum(4 * spec.targets[t].out * spec.targets[t].in_ for t in targets)
        self.changed: queue.Queue[Entry] = queue.Queue()
        self.num_asked = 0
        self.observer = Remembering()
        self.loader = Loader(
            store.open,
            ResidentBase(spec, injection, BasisCache(CPU)),
            Capacities(
                factored * self.row_bytes,
                basis_bytes,
                merged * self.merged_bytes,
                host * self.row_bytes,
            ),
            self.observer,
            self.changed.put,
            self.is_idle,
        )

    def is_idle(self) -> bool:
        """Say that a step runs, and note that a merge has asked."""
        self.num_asked += 1
        return False

    def load(self, digest: str, mode: Mode = "factored") -> Entry:
        """Return a lease once it is ready or has failed."""
        entry = self.loader.acquire(digest, mode)
        eventually(lambda: entry.is_ready or entry.error is not None)
        return entry

    def next(self) -> Entry:
        """Return the entry that is reported next."""
        return self.changed.get(timeout=30)

    def check_integrity(self, settled: bool = True) -> None:
        """Check the books; unless `settled`, a load may stand between its slot and its entry."""
        with self.loader.memory._room:
            for cache in self.loader.memory._caches.values():
                cache.check_integrity()
            entries = self.loader.memory._caches["factored"].entries.values()
            used = [
                (id(e.payload.bank), e.payload.slot)
                for e in entries
                if isinstance(e.payload, Factored)
            ]
            assert len(set(used)) == len(used), "two adapters in one slot"
            for bank in self.loader.memory._banks:
                own = {slot for owner, slot in used if owner == id(bank)}
                assert not set(bank._free) & own
                known = len(bank._free) + len(own)
                assert known <= bank._buffer.shape[0]
                assert not settled or known == bank._buffer.shape[0] - 1, "a slot is lost"


def bytes_of_basis(store: Store, method: FourierFT) -> int:
    targets = [t for t in store.spec.targets if t.endswith(QUERY_VALUE)]
    bank = Bank(Layout.of(dict.fromkeys(targets, method), store.spec.targets), BasisCache(CPU))
    return sum(bank.basis_memory.values())


def bytes_of_bases(p: "Place") -> int:
    memory: dict[int, int] = {}
    for bank in p.loader.memory._banks:
        memory |= bank.basis_memory
    return sum(memory.values())

"""From an adapter's blob, or its copy in host memory, to what an engine's step reads."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from adapters_core.base.heads import Head, bytes_of
from adapters_core.contract.method import Method
from adapters_core.format.read import Adapter
from adapters_core.layers.bank import Layout
from adapters_core.layers.merge import materialise, merged_bytes
from adapters_core.layers.merge_threads import MergeThreads
from adapters_core.layers.uploads import uploaded
from registry import BlobPaths
from server.adapters.memory import DeviceMemory
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.base.resident import ResidentBase


@dataclass(frozen=True)
class Materialized:
    """An adapter in memory; `materialise_s` is None in factored mode."""

    payload: Factored | Merged
    method: str
    materialise_s: float | None = None


class Materializer:
    """Makes payloads; safe from many threads.

    Args:
        open_blob: digest -> paths of its files, held against it; raises if the blob is gone.
        base: that the adapters are for.
        memory: where their bytes are charged, and factored ones go.
        merge_threads: that share merges.
    """

    def __init__(
        self,
        open_blob: Callable[[str], BlobPaths],
        base: ResidentBase,
        memory: DeviceMemory,
        merge_threads: MergeThreads,
    ) -> None:
        self._open_blob = open_blob
        self._base = base
        self._memory = memory
        self._merge_threads = merge_threads

    def materialize(self, entry: Entry) -> Materialized:
        """Return what an entry holds; its bytes are charged before anything is allocated.

        Raises:
            AdapterError: the file is damaged or does not fit the base.
            AdapterTooLarge: it can never fit.
            BasisPending: what it needs of the base is computed beside the server.
            Abandoned, Draining: as `DeviceMemory.charge`.
        """
        if entry.mode == "merged":
            return self._merged(entry, self._read(entry.digest))
        return self._restored(entry) or self._factored(entry, self._read(entry.digest))

    def _read(self, digest: str) -> Adapter:
        try:
            blob = self._open_blob(digest)
            config = blob.config.read_bytes()
            adapter = self._base.reader.read(blob.file, config, digest=digest)
        except FileNotFoundError:  # deleted between opening and reading: the store says so
            self._open_blob(digest)
            raise
        self._base.basis_cache.check(adapter.methods, adapter.layers)
        return adapter

    def _merged(self, entry: Entry, adapter: Adapter) -> Materialized:
        head = self._on_device(adapter.head)
        size_bytes = merged_bytes(adapter.methods, self._base.injection.layers) + bytes_of(head)
        old = self._memory.charge(entry, size_bytes)
        begun = time.perf_counter()
        weights = self._weights(adapter.methods, adapter, old)
        seconds = time.perf_counter() - begun
        return Materialized(Merged(weights, head), adapter.description.method, seconds)

    def _factored(self, entry: Entry, adapter: Adapter) -> Materialized:
        """Pack an adapter into the bank of its layout; layers with no factored form are merged."""
        layout = Layout.of(adapter.methods, self._base.spec.layers)
        whole = {t: method for t, method in adapter.methods.items() if not method.is_factored}
        with self._memory.bank(layout, adapter.layers) as bank:
            head = self._on_device(adapter.head)
            weight_bytes = merged_bytes(whole, self._base.injection.layers)
            old = self._memory.charge(entry, bank.row_bytes + bytes_of(head) + weight_bytes)
            weights = self._weights(whole, adapter, old)
            slot = bank.add(bank.pack(adapter.methods, adapter.layers))
            return Materialized(Factored(bank, slot, head, weights), adapter.description.method)

    def _weights(
        self, methods: Mapping[str, Method], adapter: Adapter, old: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the merged weights of the layers that have these methods."""
        if not methods:
            return {}
        layers = {target: adapter.layers[target] for target in methods}
        linears, basis_cache = self._base.injection.layers, self._base.basis_cache
        return materialise(methods, layers, linears, basis_cache, old, self._merge_threads)

    def _restored(self, entry: Entry) -> Materialized | None:
        """Return an adapter from its copy in the host's memory; None if there is none."""
        copy = self._memory.take_copy(entry.digest)
        if copy is None or copy.needs_layers:
            return None
        with self._memory.bank(copy.layout) as bank:
            head = self._on_device(copy.head)
            self._memory.charge(entry, bank.row_bytes + bytes_of(head))
            return Materialized(Factored(bank, bank.add(copy.row), head), copy.method)

    def _on_device(self, head: Head | None) -> Head | None:
        """Return a head where the base computes, in its dtype; its copy may still run."""
        if head is None:
            return None
        weight = next(iter(self._base.injection.linears.values())).golden()
        own = {name: tensor.to(weight.dtype) for name, tensor in head.tensors.items()}
        return Head(uploaded({"": own}, weight.device)[""], head.num_labels)

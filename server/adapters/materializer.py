"""From an adapter's blob, or its copy in host memory, to what an engine's step reads."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from adapters_core.adapter import Adapter, read_adapter
from adapters_core.bank import Layout
from adapters_core.base import BaseSpec
from adapters_core.bases import Bases
from adapters_core.heads import Head, bytes_of
from adapters_core.inject import Injection
from adapters_core.merge import materialise, merged_bytes
from server.adapters.banks import Banks
from server.adapters.host_cache import HostCopy
from server.adapters.modes import Mode
from server.adapters.payload import Factored, Merged

#: Accounts for so many bytes, waiting for room; returns merged weights that may be written over.
Charge = Callable[[int], dict[str, Tensor]]


class BlobPaths(Protocol):
    """Where a blob's two files lie."""

    @property
    def file(self) -> Path:
        """Return the path of the coefficient file."""

    @property
    def config(self) -> Path:
        """Return the path of its config."""


@dataclass(frozen=True)
class Brought:
    """An adapter in memory; `materialise_s` is None in factored mode."""

    payload: Factored | Merged
    method: str
    materialise_s: float | None = None


class Bringer:
    """Makes payloads; safe from many threads.

    Args:
        open_blob: digest -> paths of its files; raises if the blob is gone.
        spec, injection, bases: the resident base.
        banks: where factored adapters go.
        take_copy: digest -> its copy in host memory, which is then forgotten, or None.
    """

    def __init__(
        self,
        open_blob: Callable[[str], BlobPaths],
        spec: BaseSpec,
        injection: Injection,
        bases: Bases,
        banks: Banks,
        take_copy: Callable[[str], HostCopy | None],
    ) -> None:
        self._open_blob = open_blob
        self._spec = spec
        self._injection = injection
        self._bases = bases
        self._banks = banks
        self._take_copy = take_copy

    def bring(self, digest: str, mode: Mode, charge: Charge) -> Brought:
        """Return the adapter in memory; `charge` is asked before anything is allocated.

        Raises:
            AdapterError: the file is damaged or does not fit the base.
            AdapterTooLarge: it can never fit.
        """
        if mode == "merged":
            return self._merge(self._read(digest), charge)
        return self._return(digest, charge) or self._place(self._read(digest), charge)

    def _read(self, digest: str) -> Adapter:
        try:
            blob = self._open_blob(digest)
            return read_adapter(blob.file, blob.config.read_bytes(), self._spec)
        except FileNotFoundError:  # deleted between opening and reading: the store says so
            self._open_blob(digest)
            raise

    def _merge(self, adapter: Adapter, charge: Charge) -> Brought:
        linears, head = self._injection.linears, self._placed(adapter.head)
        old = charge(merged_bytes(adapter.methods, linears) + bytes_of(head))
        begun = time.perf_counter()
        weights = materialise(adapter.methods, adapter.layers, linears, self._bases, old)
        seconds = time.perf_counter() - begun
        return Brought(Merged(weights, head), adapter.description.method, seconds)

    def _place(self, adapter: Adapter, charge: Charge) -> Brought:
        """Pack an adapter into its bank."""
        layout = Layout.of(adapter.methods, self._spec.layers)
        with self._banks.held(layout, adapter.layers) as bank:
            head = self._placed(adapter.head)
            charge(bank.row_bytes + bytes_of(head))
            slot = bank.add(bank.pack(adapter.methods, adapter.layers))
            return Brought(Factored(bank, slot, head), adapter.description.method)

    def _return(self, digest: str, charge: Charge) -> Brought | None:
        """Bring an adapter back from the host's memory; None if it is not there."""
        copy = self._take_copy(digest)
        if copy is None or copy.needs_layers:
            return None
        with self._banks.held(copy.layout) as bank:
            head = self._placed(copy.head)
            charge(bank.row_bytes + bytes_of(head))
            return Brought(Factored(bank, bank.add(copy.row), head), copy.method)

    def _placed(self, head: Head | None) -> Head | None:
        """Return a head where the base computes, in its dtype."""
        if head is None:
            return None
        return head.like(next(iter(self._injection.linears.values())).golden())

"""A bounded cache of what adapters share: one basis per method signature and shape."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch

from adapters_core.method import Method, Shape


class Bases:
    """Computes a basis once and keeps the most recently used ones; safe from many threads.

    Args:
        device: where bases live.
        max_entries: uploads may name any seed, so the cache is bounded.
    """

    def __init__(self, device: torch.device, max_entries: int = 1024) -> None:
        self.device = device
        self._max_entries = max_entries
        self._entries: OrderedDict[tuple[Hashable, Shape], Any] = OrderedDict()
        self._dtypes: dict[tuple[str, Shape], torch.dtype] = {}
        self._lock = threading.Lock()

    def get(self, method: Method, shape: Shape) -> Any:
        """Return the basis of `method` for layers of `shape`."""
        key = (method.signature(shape), shape)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        dtype = self._dtypes.get((method.name, shape), torch.float32)
        basis = method.basis(shape, self.device, dtype)
        with self._lock:
            self._entries[key] = basis
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        return basis

    def use_float64(self, name: str, shape: Shape) -> None:
        """Route this method's transforms for this shape through float64 (the canary's order)."""
        with self._lock:
            self._dtypes[name, shape] = torch.float64
            self._entries = OrderedDict(
                (key, basis) for key, basis in self._entries.items() if key[1] != shape
            )

"""A bounded cache of what adapters share: one basis per method signature and shape.

A basis that is made from the base's weights is one per layer.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients, Shape, Site, Weights
from adapters_core.contract.method import Method
from adapters_core.errors import BasisPending


@dataclass(frozen=True)
class _Entry:
    basis: Any
    size_bytes: int


class BasisCache:
    """Computes a basis once and keeps the most recently used ones; safe from many threads.

    Args:
        device: where bases live.
        weights: the base's weights, for methods that need them; None where none are served.
        max_entries, max_bytes: uploads may name any seed, so the cache is bounded. What a bank
            uses stays in memory as long as the bank does.
        base_dtype: of the base's weights; banks on a device follow it.
    """

    def __init__(
        self,
        device: torch.device,
        weights: Weights | None = None,
        max_entries: int = 1024,
        max_bytes: int = 4 << 30,
        base_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.base_dtype = device, base_dtype
        self._weights = weights
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._used_bytes = 0
        self._entries: OrderedDict[tuple[Hashable, Shape, str], _Entry] = OrderedDict()
        self._dtypes: dict[tuple[str, Shape], torch.dtype] = {}
        self._lock = threading.Lock()
        # What is made from the base's weights takes long: two loads do not make it twice.
        self._making = threading.RLock()

    def get(
        self, method: Method, shape: Shape, path: str = "", layer: Coefficients | None = None
    ) -> Any:
        """Return the basis of `method` for a layer of `shape`.

        Args:
            method: of the layer.
            shape: of the layer.
            path: the layer's path in the base.
            layer: coefficients of an adapter that has the layer.

        Raises:
            InvalidAdapter: the base does not give the basis that the file was trained on.
            BasisPending: it is being computed beside this process.
        """
        key = (method.signature(shape), shape, path if method.needs_base else "")
        found = self._found(key)
        if found is not None:
            return found.basis
        dtype = self._dtypes.get((method.name, shape), torch.float32)
        if not method.needs_base:
            return self._kept(key, method.basis(shape, self.device, dtype))
        assert self._weights is not None, f"{method.name} needs the base's weights"
        site = Site(path, self._weights, layer or {})
        with self._making:
            found = self._found(key)
            if found is not None:
                return found.basis
            return self._kept(key, method.basis(shape, self.device, dtype, site))

    def check(self, methods: Mapping[str, Method], layers: Mapping[str, Coefficients]) -> None:
        """Make the bases that come from the base's weights: does it give what a file needs?

        Raises:
            InvalidAdapter: it does not.
            BasisPending: some are being computed; so are all others that are not there by now.
        """
        pending = None
        for target, method in methods.items():
            if method.needs_base:
                assert self._weights is not None, f"{method.name} needs the base's weights"
                try:
                    self.get(method, self._weights.shapes[target], target, layers[target])
                except BasisPending as error:
                    pending = error
        if pending is not None:
            raise pending

    def use_float64(self, name: str, shape: Shape) -> None:
        """Route this method's transforms for this shape through float64 (the canary's order)."""
        with self._lock:
            self._dtypes[name, shape] = torch.float64
            for key in [key for key in self._entries if key[1] == shape]:
                self._used_bytes -= self._entries.pop(key).size_bytes

    def _found(self, key: tuple[Hashable, Shape, str]) -> _Entry | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def _kept(self, key: tuple[Hashable, Shape, str], basis: Any) -> Any:
        size_bytes = sum(memory_of(basis).values())
        with self._lock:
            if key in self._entries:  # another thread was faster
                return self._entries[key].basis
            self._entries[key] = _Entry(basis, size_bytes)
            self._used_bytes += size_bytes
            while len(self._entries) > 1 and (
                len(self._entries) > self._max_entries or self._used_bytes > self._max_bytes
            ):
                _, oldest = self._entries.popitem(last=False)
                self._used_bytes -= oldest.size_bytes
        return basis


def memory_of(basis: Any) -> dict[int, int]:
    """Return address -> bytes of what a basis holds, so that shared parts count once."""
    if isinstance(basis, Tensor):
        return {basis.data_ptr(): basis.numel() * basis.element_size()}
    if isinstance(basis, np.ndarray):
        return {basis.ctypes.data: basis.nbytes}
    found: dict[int, int] = {}
    if is_dataclass(basis):
        for field in fields(basis):
            found |= memory_of(getattr(basis, field.name))
    return found

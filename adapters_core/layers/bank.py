"""Banks: the packed coefficients of many adapters side by side, one row each.

Adapters that change the same layers with methods of the same signatures share a layout, and with
it a bank. A batch may then hold rows of any of them in one call per layer.
"""

import mmap
import threading
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters_core.contract.half_rows import half_width, halved
from adapters_core.contract.method import (
    BankPart,
    Coefficients,
    KernelGroup,
    Method,
    PackedLayer,
    Rows,
    Shape,
)
from adapters_core.gpu_kernels.running import runs_on
from adapters_core.layers.basis_cache import BasisCache, memory_of
from adapters_core.layers.load_stream import loading
from adapters_core.layers.uploads import staged


@dataclass(frozen=True)
class Part:
    """Where one layer lies in a bank's row, and how it is applied."""

    method: Method
    shape: Shape
    offset: int
    length: int


@dataclass(frozen=True)
class Layout:
    """The order of the layers in a row. `key` is equal for adapters that may share a bank."""

    key: Hashable
    parts: Mapping[str, Part]
    width: int

    @classmethod
    def of(cls, methods: Mapping[str, Method], shapes: Mapping[str, Shape]) -> "Layout":
        """Return the layout of an adapter with these methods by target.

        Layers of methods without a factored form are not in it.
        """
        parts, offset = {}, 0
        for target, method in methods.items():
            if not method.is_factored:
                continue
            length = method.packed_length(shapes[target])
            parts[target] = Part(method, shapes[target], offset, length)
            offset += length
        key = tuple((t, p.method.signature(p.shape)) for t, p in parts.items())
        return cls(key, parts, offset)


#: Holds zeros in every bank and is never handed out: a row that uses it gets no update.
EMPTY_SLOT = 0
#: On a GPU a buffer doubles up to so many bytes; from there on it grows by a quarter.
_DOUBLED_BYTES = 256 << 20


class Bank:
    """Rows of packed coefficients on one device, `[slots, width]`, growing as needed.

    They are float32; or, where kernels read them beside a base in half precision, float16 in the
    form of half_rows.py.

    A slot's row is written before its number is returned, and not again before it is freed;
    growth copies rows and leaves running readers on the buffer they hold.

    Args:
        layout: of every row.
        bases: where the layers' bases come from.
        slots: to begin with, beside the empty one.
        layers: coefficients of one adapter of this layout; methods that need the base look at
            what they share.
    """

    def __init__(
        self,
        layout: Layout,
        bases: BasisCache,
        slots: int = 4,
        layers: Mapping[str, Coefficients] | None = None,
    ) -> None:
        self.layout = layout
        self._bases = {
            target: bases.get(part.method, part.shape, target, (layers or {}).get(target))
            for target, part in layout.parts.items()
        }
        #: Address -> bytes of what its layers share with other banks and adapters.
        self.basis_memory: dict[int, int] = {}
        for basis in self._bases.values():
            self.basis_memory |= memory_of(basis)
        self._keys = {target: self._key_of(target) for target in layout.parts}
        self._kernels = self._grouped_kernels(bases.device) if runs_on(bases.device) else {}
        self._is_half = bases.base_dtype.itemsize == 2 and self._may_be_half()
        width = half_width(layout.width) if self._is_half else layout.width
        dtype = torch.float16 if self._is_half else torch.float32
        self._buffer = torch.zeros(slots + 1, width, dtype=dtype, device=bases.device)
        self._free = list(range(slots, EMPTY_SLOT, -1))
        self._taken: set[int] = set()
        self._lock = threading.Lock()  # guards the two above
        self._writing = threading.Lock()

    @property
    def row_bytes(self) -> int:
        """Return the bytes one more adapter takes."""
        return self._buffer.shape[1] * self._buffer.element_size()

    @property
    def is_empty(self) -> bool:
        """Return whether no slot is taken."""
        return not self._taken

    @property
    def buffer(self) -> Tensor:
        """Return what `apply` reads now, `[slots, width]`; growth puts another in its place."""
        return self._buffer

    def pack(self, methods: Mapping[str, Method], layers: Mapping[str, Coefficients]) -> Tensor:
        """Return the row `[width]` of an adapter of this layout, target -> method and coefficients.

        It is in host memory, as the coefficients are, where no method packs on the device.

        The adapter's own methods pack it: what is not in their signature, such as the scale, may
        differ from adapter to adapter of one bank.
        """
        packed = [
            methods[target].pack(layers[target], part.shape, self._bases[target])
            for target, part in self.layout.parts.items()
        ]
        if len({piece.device for piece in packed}) > 1:
            packed = [piece.to(self._buffer.device) for piece in packed]
        return torch.cat(packed) if packed else torch.zeros(0)

    @torch.inference_mode()
    def add(self, row: Tensor) -> int:
        """Write a row and return its slot; others' slots may be given back meanwhile."""
        with self._writing:
            if not self._free:
                self._grow()
            with self._lock:
                slot = self._free.pop()
                self._taken.add(slot)
            try:
                self._write(slot, row)
            except BaseException:  # no memory to stage it in, or a row of another layout
                self.remove(slot)
                raise
            return slot

    def _write(self, slot: int, row: Tensor) -> None:
        own = halved(row) if self._is_half else row
        with loading(self._buffer.device):
            self._buffer[slot].copy_(staged(own, self._buffer.device), non_blocking=True)

    @torch.inference_mode()
    def row(self, slot: int) -> Tensor:
        """Return a copy of a taken slot's row, float32 `[width]`, in host memory."""
        with loading(self._buffer.device, behind_steps=False):
            return PackedLayer(self._buffer, 0, self.layout.width).of(slot).clone().cpu()

    def remove(self, slot: int) -> None:
        """Give a slot back; the caller knows that no running row uses it."""
        with self._lock:
            assert slot in self._taken, "a slot was freed twice"
            self._taken.remove(slot)
            self._free.append(slot)

    def analysis_key(self, target: str) -> Hashable | None:
        """Return what `target` shares its analysis by; layers with equal keys have the same one.

        Only layers under one parent have equal keys: nothing can change their input in between.
        """
        return self._keys[target]

    def _key_of(self, target: str) -> Hashable | None:
        part = self.layout.parts[target]
        key = part.method.analysis_key(part.shape)
        # The canary may have routed one of two shapes through float64.
        dtype = getattr(self._bases[target], "dtype", None)
        return None if key is None else (target.rpartition(".")[0], key, dtype)

    @property
    def has_kernels(self) -> bool:
        """Return whether kernels add the update of any layer."""
        return bool(self._kernels)

    def kernels_of(self, target: str) -> tuple[KernelGroup, int] | None:
        """Return the kernels that add the update of `target`, and which of theirs it is, if any."""
        return self._kernels.get(target)

    def _may_be_half(self) -> bool:
        parts = self.layout.parts
        has_all = bool(parts) and self._kernels.keys() == parts.keys()
        return has_all and all(part.method.may_be_half for part in parts.values())

    def _grouped_kernels(self, device: torch.device) -> dict[str, tuple[KernelGroup, int]]:
        groups: defaultdict[Hashable, list[str]] = defaultdict(list)
        for target, part in self.layout.parts.items():
            groups[type(part.method), self._keys[target] or target].append(target)
        found: dict[str, tuple[KernelGroup, int]] = {}
        for targets in groups.values():
            parts = [
                BankPart(p.method, p.shape, p.offset, p.length, self._bases[target], device)
                for target in targets
                for p in [self.layout.parts[target]]
            ]
            kernels = parts[0].method.kernels(parts)
            if kernels is not None:
                found |= {target: (kernels, number) for number, target in enumerate(targets)}
        return found

    def analyse(self, target: str, x: Tensor) -> Any:
        """Return x `[T, in_]` as `apply_analysed` reads it."""
        part = self.layout.parts[target]
        return part.method.analyse(x, part.shape, self._bases[target])

    def apply_analysed(self, target: str, analysed: Any, rows: Rows) -> Tensor:
        """Return the update `[T, out]` of analysed rows."""
        part = self.layout.parts[target]
        layer = PackedLayer(self._buffer, part.offset, part.length)
        basis: Any = self._bases[target]
        return part.method.apply(analysed, layer, rows, part.shape, basis)

    def apply(self, target: str, x: Tensor, rows: Rows) -> Tensor | None:
        """Return the update `[T, out]` of the rows of x, or None if `target` is not adapted."""
        if target not in self.layout.parts:
            return None
        return self.apply_analysed(target, self.analyse(target, x), rows).to(x.dtype)

    def _grow(self) -> None:
        """Copy all rows into a larger buffer; takes long, and holds up only calls that add."""
        old = self._buffer
        slots = old.shape[0]
        is_small = old.device.type == "cpu" or old.nbytes < _DOUBLED_BYTES
        more = slots if is_small else slots // 4
        larger = _unwritten(slots + more, old)
        with loading(old.device):
            larger[:slots] = old
        with self._lock:
            self._buffer = larger
            self._free.extend(range(slots + more - 1, slots - 1, -1))


def _unwritten(slots: int, old: Tensor) -> Tensor:
    """Return a buffer of so many slots like an old one; a slot is read once its row is written.

    On a CPU it comes from the system itself, not from the process's heap: what is not written yet
    is not memory yet, and what is given up is given back.
    """
    width = old.shape[1]
    if old.device.type != "cpu" or not width:
        return old.new_empty(slots, width)
    pages = mmap.mmap(-1, old.element_size() * slots * width)
    return torch.frombuffer(pages, dtype=old.dtype).view(slots, width)

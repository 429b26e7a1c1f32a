"""Launches, bytes and waits of code for a GPU, counted over tensors without values ("meta").

On that device torch computes shapes alone, so a base of any size takes no memory and no time. What
a GPU would do is counted operation by operation:

- a launch for each operation that computes, and for each of Triton's kernels; none for views and
  for memory that is only reserved. Some operations of torch are several kernels (sort, FFT);
- bytes that a launch reads and writes, each once: of what is gathered or scattered the cells that
  are touched, of what is expanded the cells that there are;
- copies from host memory, and waits: the host stands still where it reads from the device, and
  where it copies to it from memory that it may change at once.

Attention is one launch, as on a GPU. What is read back alone is zero, or true.

Two clocks tell by how much work on a side stream takes longer than what it runs beside. Their
constants are assumptions for a Hopper card and a recorded step; `BANDWIDTH` was measured on one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adapters_core.gpu_kernels.running import Launch, listening
from adapters_core.layers import last_rows
from adapters_core.layers.side_stream import SideStream

#: Bytes a second of a Hopper card's memory.
BANDWIDTH = 4.3e12
#: Seconds of a recorded launch beside its bytes: of the base, and of an adapter's own kernel.
KERNEL_S, OWN_KERNEL_S = 2.2e-6, 3e-6

_ATEN = torch.ops.aten
_VIEWS = frozenset({"_unsafe_view", "_reshape_alias", "detach", "alias", "lift_fresh"})
_RESERVING = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
_GATHERING = frozenset({"index", "index_select", "gather", "embedding", "take", "_unsafe_index"})
#: Operation -> times that each number of the source is read or written.
_SCATTERING = {
    "index_copy_": 2,
    "index_copy": 2,
    "scatter_": 2,
    "index_put_": 2,
    "_index_put_impl_": 2,
    "index_add_": 3,
    "scatter_add_": 3,
    "index_fill_": 1,
}
_FILLING = frozenset({"fill_", "zero_"})


@dataclass(frozen=True)
class Cost:
    """What something does on a GPU.

    Args:
        launches: of kernels.
        own: those of Triton's kernels among them.
        num_bytes: that the launches read and write.
        waits: of the host for the device.
        uploads: copies from host memory.
        upload_bytes: of these.
    """

    launches: int = 0
    own: int = 0
    num_bytes: int = 0
    waits: int = 0
    uploads: int = 0
    upload_bytes: int = 0

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """Return both together, the other one so many times."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Cost(*(own + times * more for own, more in pairs))

    @property
    def seconds(self) -> float:
        """Return an estimate of its launches one behind the other, kernels of adapters among them.

        The base has kernels of its own, too, which `base_seconds` takes as torch's.
        """
        launched = (self.launches - self.own) * KERNEL_S + self.own * OWN_KERNEL_S
        return launched + self.num_bytes / BANDWIDTH

    @property
    def base_seconds(self) -> float:
        """Return an estimate of the base's launches, all of which take as long as torch's."""
        return self.launches * KERNEL_S + self.num_bytes / BANDWIDTH


@dataclass
class Tally:
    """What was counted.

    Args:
        cost: of all launches.
        beside: the part of it on a side stream.
        names: launches by the operation's or the kernel's name.
        heard: launches of Triton's kernels.
        late_s: seconds that the main stream waits for a side stream, an estimate.
    """

    cost: Cost = Cost()
    beside: Cost = Cost()
    names: Counter[str] = field(default_factory=Counter)
    heard: list[Launch] = field(default_factory=list)
    late_s: float = 0.0
    _is_beside: bool = False
    _main_s: float = 0.0
    _side_s: float = 0.0

    def launched(self, name: str, num_bytes: int, own: int = 0) -> None:
        """Enter a launch."""
        self.names[name] += 1
        one = Cost(1, own, num_bytes)
        self.cost = self.cost.plus(one)
        if self._is_beside:
            self.beside = self.beside.plus(one)
            self._side_s += one.seconds
        else:
            self._main_s += one.base_seconds

    def hear(self, launch: Launch) -> None:
        """Enter a launch of a kernel of Triton's."""
        self.heard.append(launch)
        self.launched(launch.kernel.fn.__name__, launch.num_bytes, own=1)

    def uploaded(self, num_bytes: int, waits: bool) -> None:
        """Enter a copy from host memory."""
        self.cost = self.cost.plus(Cost(waits=int(waits), uploads=1, upload_bytes=num_bytes))

    def waited(self) -> None:
        """Enter a wait of the host."""
        self.cost = self.cost.plus(Cost(waits=1))

    @contextmanager
    def forked(self) -> Iterator[None]:
        """Enter what the block launches as work on a side stream."""
        before, self._is_beside = self._is_beside, True
        self._side_s = max(self._side_s, self._main_s)
        try:
            yield
        finally:
            self._is_beside = before

    def joined(self) -> None:
        """Enter that the main stream waits for what is on the side stream."""
        late = max(0.0, self._side_s - self._main_s)
        self.late_s += late
        self._main_s += late


@contextmanager
def counted() -> Iterator[Tally]:
    """Count what the block does over tensors on device "meta"."""
    tally = Tally()

    with (
        # All tensors without values have one address.
        patch.object(last_rows, "_same_memory", _same_memory),
        patch.object(SideStream, "forked", lambda stream, device: tally.forked()),
        patch.object(SideStream, "join", lambda stream: tally.joined()),
        listening(tally.hear),
        _Functions(tally),
        _Operations(tally),
    ):
        yield tally


class _Operations(TorchDispatchMode):
    """Enters every operation of torch into a tally."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode operations that others are made of come as a whole
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        name = func._schema.name.partition("::")[2]
        read = _tensors((args, kwargs))
        if name == "_local_scalar_dense" and read[0].is_meta:
            self._tally.waited()
            return read[0].dtype == torch.bool
        if name in ("_to_copy", "copy_"):
            return self._copied(func, name, args, kwargs)
        if name == "_unique2" and read[0].is_meta:
            return self._unique(read[0])
        made = func(*args, **kwargs)
        written = _tensors(made)
        if any(tensor.is_meta for tensor in read + written) and not _is_free(func, name):
            self._tally.launched(name, _moved(func, name, read, written))
        return made

    def _unique(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take all numbers as different ones; the host waits for how many there are."""
        self._tally.launched("_unique2", 3 * _size(numbers))
        self._tally.waited()
        places = torch.empty(numbers.shape, dtype=torch.int64, device=numbers.device)
        return torch.empty_like(numbers).flatten(), places, torch.empty_like(places).flatten()

    def _copied(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Do a copy, from or to host memory or within the device."""
        is_within = name == "copy_"
        source: Tensor = args[1] if is_within else args[0]
        target = args[0].device if is_within else kwargs.get("device") or source.device
        waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if source.is_meta and target.type == "cpu":
            self._tally.waited()
            dtype = kwargs.get("dtype") or source.dtype
            return args[0].zero_() if is_within else torch.zeros(source.shape, dtype=dtype)
        made: Tensor = func(*args, **kwargs)
        if not made.is_meta:
            return made
        if source.is_meta:
            self._tally.launched(name, _size(source) + _size(made))
        elif source.device.type == "cpu":
            self._tally.uploaded(source.nbytes, waits)
        return made


class _Functions(TorchFunctionMode):
    """Enters what operations do not show: attention, and tensors of Python's numbers."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention and args[0].is_meta:
            return self._attended(*args[:3])
        made = func(*args, **(kwargs or {}))
        if func is torch.tensor and made.is_meta:
            self._tally.uploaded(made.nbytes, waits=True)
        return made

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        self._tally.launched("attention", sum(map(_size, (q, k, v, out))))
        return out


def _same_memory(a: Tensor, b: Tensor) -> bool:
    def key(x: Tensor) -> tuple[Any, ...]:
        return (x.untyped_storage()._cdata, x.storage_offset(), x.shape, x.stride())

    return key(a) == key(b)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _is_free(func: Any, name: str) -> bool:
    """Return whether an operation starts no kernel."""
    if name in _VIEWS or name in _RESERVING:
        return True
    changes = any(
        a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments
    )
    return not changes and any(r.alias_info is not None for r in func._schema.returns)


def _moved(func: Any, name: str, read: Sequence[Tensor], written: Sequence[Tensor]) -> int:
    """Return the bytes that an operation reads and writes."""
    if name in _GATHERING:
        return 2 * sum(map(_size, written)) + sum(map(_size, read[1:]))
    if name in _SCATTERING:
        return _SCATTERING[name] * _size(read[-1]) + sum(map(_size, read[1:-1]))
    if name in _FILLING:
        return _size(written[0])
    is_out = any(a.is_out for a in func._schema.arguments)
    return sum(map(_size, read)) + (0 if is_out else sum(map(_size, written)))


def _size(tensor: Tensor) -> int:
    """Return the bytes that a tensor stands for; what is expanded is there once."""
    numbers = 1
    for count, step in zip(tensor.shape, tensor.stride(), strict=True):
        numbers *= count if step or not count else 1
    return numbers * tensor.element_size()


#: What is counted of something that can be called.
Counted = Callable[[], object]


def cost_of(run: Counted) -> Tally:
    """Return what a call does the second time: the first one makes tables that are kept."""
    with torch.inference_mode():
        with counted():
            run()
        with counted() as tally:
            run()
    return tally

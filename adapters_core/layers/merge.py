"""Batched materialisation onto golden weights: a merged copy is always golden + delta.

Nothing is ever subtracted and nothing is written into the base: in bfloat16 a thousand cycles of
adding and subtracting leave two thirds of the mean weight behind as error.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Coefficients, Method
from adapters_core.gpu_kernels.merge_plans import can_merge
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.load_stream import loading
from adapters_core.layers.merge_threads import MergeThreads, Part
from adapters_core.layers.uploads import uploaded


class BaseLayer(Protocol):
    """What merging needs to know of a base's layer."""

    @property
    def shape(self) -> Shape:
        """Return the shape of its weight as a map."""

    @property
    def is_looked_up(self) -> bool:
        """Return whether columns of the map are looked up, as an embedding does."""

    def golden(self) -> Tensor:
        """Return its own weight as a view `[out, in]`."""


#: Float32 numbers of deltas built at once. On a CPU one 1024 x 1024 layer: more at a time only
#: means fresh pages from the system, which cost five times what the transforms do.
_CHUNK_CPU = 1 << 20
_CHUNK_GPU = 1 << 27


@torch.inference_mode()
def materialise(
    methods: Mapping[str, Method],
    layers: Mapping[str, Coefficients],
    linears: Mapping[str, BaseLayer],
    bases: BasisCache,
    reuse: Mapping[str, Tensor] | None = None,
    threads: MergeThreads | None = None,
) -> dict[str, Tensor]:
    """Return target -> merged weight `[out, in]` in the base's dtype.

    Layers of one method and shape are transformed together. A GPU has done it all on return.

    Args:
        methods: of the adapter, by target.
        layers: its coefficients, by target.
        linears: the base's layers.
        bases: what adapters share.
        reuse: merged weights that are no longer read; they are written over. Fresh pages from
            the system cost more than a transform.
        threads: that take parts of the merge over, where it has parts; None: this one does all.
    """
    merged: dict[str, Tensor] = {}
    parts: list[Part] = []
    with loading(bases.device):
        there = uploaded({target: layers[target] for target in methods}, bases.device)
    chunk_numbers = _CHUNK_CPU if bases.device.type == "cpu" else _CHUNK_GPU
    for group in _groups(methods, linears):
        method, shape = methods[group[0]], linears[group[0]].shape
        at_once = max(1, chunk_numbers // (shape.out * shape.in_))
        for start in range(0, len(group), at_once):
            chunk = group[start : start + at_once]
            golden = [linears[target].golden() for target in chunk]
            basis = bases.get(method, shape, chunk[0], layers[chunk[0]])
            out = [
                _room(weight, linears[target].is_looked_up, (reuse or {}).get(target))
                for target, weight in zip(chunk, golden, strict=True)
            ]
            with loading(bases.device):
                coefficients = [there[target] for target in chunk]
                parts += begun_merge(method, coefficients, golden, out, shape, basis)
            merged.update(zip(chunk, out, strict=True))
    _run(parts, threads)
    return merged


def begun_merge(
    method: Method,
    layers: Sequence[Coefficients],
    golden: Sequence[Tensor],
    out: Sequence[Tensor],
    shape: Shape,
    basis: Any,
) -> Sequence[Part]:
    """Merge some layers of one method and shape as far as it goes in one piece; return the rest."""
    in_kernels = can_merge(golden)  # which have a device's threads, or are interpreted
    parts = None if in_kernels else method.merge_parts(layers, golden, out, shape, basis)
    if parts is None:
        method.merge_many(layers, golden, out, shape, basis)
    return parts or ()


def _run(parts: Sequence[Part], threads: MergeThreads | None) -> None:
    if threads is not None:
        threads.run(parts)
        return
    for part in parts:
        part()


def _room(golden: Tensor, is_looked_up: bool, old: Tensor | None) -> Tensor:
    """Return memory for a merged weight: the old one's if that fits."""
    if old is not None and old.shape == golden.shape and old.dtype == golden.dtype:
        return old
    # What is looked up lies in one piece: a column of the map, a row of the embedding.
    layout = torch.preserve_format if is_looked_up else torch.contiguous_format
    return torch.empty_like(golden, memory_format=layout)


def _groups(methods: Mapping[str, Method], linears: Mapping[str, BaseLayer]) -> list[list[str]]:
    """Return the targets grouped by equal method and shape; alone where bases are a layer's own."""
    groups: defaultdict[Hashable, list[str]] = defaultdict(list)
    for target, method in methods.items():
        own = target if method.needs_base else ""
        groups[method, linears[target].shape, own].append(target)
    return list(groups.values())


def merged_bytes(methods: Mapping[str, Method], linears: Mapping[str, BaseLayer]) -> int:
    """Return what `materialise` would allocate, known before anything is allocated."""
    return sum(linears[t].golden().element_size() * linears[t].golden().numel() for t in methods)

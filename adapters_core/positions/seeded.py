"""Seeded positions: which cells of a matrix hold the coefficients of a layer.

PEFT draws them as the first n of `torch.randperm(out * in)` with a CPU generator. That costs
seconds for a large layer; the first n of a forward Fisher-Yates shuffle need only n draws and a
map of the touched cells. torch's generator is mt19937, and so is numpy's RandomState.
"""

import hashlib
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

#: From this size on torch's randperm draws 64-bit words in another order (ATen TensorFactories).
LARGE = (2**32 - 1) // 20
_MT19937_SEEDS = 2**32
#: Adapters of one seed ask for the same positions again and again; larger sets are drawn anew.
_KEPT_POSITIONS = 4096
_NUM_KEPT = 64


def flat_positions(seed: int, n: int, size: int, skip: int = 0) -> Tensor:
    """Return the first n of `torch.randperm(size)` under `seed`: int64 `[n]`, all different.

    O(n) time and memory below `LARGE`; at and above it torch itself makes the permutation.
    `skip` 32-bit words of the generator are passed over first; only below `LARGE`.

    Raises:
        ValueError: n is not in 1..size, or words are to be skipped for a large size or seed.
    """
    if not 1 <= n <= size:
        raise ValueError(f"n = {n} is not in 1..{size}")
    return (_kept if n <= _KEPT_POSITIONS else _drawn)(seed, n, size, skip).clone()


def _drawn(seed: int, n: int, size: int, skip: int) -> Tensor:
    if size >= LARGE or not 0 <= seed < _MT19937_SEEDS:
        if skip:
            raise ValueError(f"skip = {skip} for size {size} and seed {seed}")
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randperm(size, generator=generator)[:n].clone()
    words_of = np.random.RandomState(seed)._bit_generator.random_raw
    words_of(skip, output=False)
    words = words_of(n)
    return torch.from_numpy(_first_of_shuffle(words, n, size))


_kept = lru_cache(_NUM_KEPT)(_drawn)


def _first_of_shuffle(words: np.ndarray, n: int, size: int) -> np.ndarray:
    """Run the first n steps of a forward Fisher-Yates shuffle of 0..size on a sparse array."""
    steps = np.arange(n, dtype=np.int64)
    swaps = (steps + words.astype(np.int64) % (size - steps)).tolist()
    touched: dict[int, int] = {}
    first = np.empty(n, dtype=np.int64)
    for i, j in enumerate(swaps):
        here = touched.get(i, i)
        first[i] = touched.get(j, j)
        touched[j] = here
    return first


def positions_digest(flat: Tensor) -> str:
    """Return `sha256:…` over the positions as little-endian int64, for a file's header."""
    return "sha256:" + hashlib.sha256(flat.cpu().numpy().astype("<i8").tobytes()).hexdigest()

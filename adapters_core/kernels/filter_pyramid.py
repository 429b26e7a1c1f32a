"""Several levels of a filter bank along a line: the low half of each level is split again.

    line of `size` -> [L1 | H1],   L1 -> [L2 | H2],   ...,   LJ-1 -> [LJ | HJ]

Every level follows the rule of one (wavelet_filters.py) on the line that it splits: that line is
padded by taps - 2 and then to an even size, and what an edge cuts is cut. The atoms of a line are
all of these entries in this order, those that a deeper level splits again included: in two
dimensions a low-pass atom of one side meets a high-pass atom of its own level on the other side.

An atom of level j is one filter of `taps(j)` numbers moved by multiples of 2^j. Cutting at the end
is cutting at each level: what lies outside a level's line reaches nothing inside the line above.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from adapters_core.kernels.wavelet_filters import FilterBank


def deepest(size: int, taps: int) -> int:
    """Return how many levels a line of `size` may have: one, or while it holds a whole filter.

    As `pywt.dwt_max_level`, but that one level always goes.
    """
    return max(1, (size // max(1, taps - 1)).bit_length() - 1)


@dataclass(frozen=True)
class Pyramid:
    """`num_levels` of synthesis along a line; with no filters at all it changes nothing."""

    bank: FilterBank
    num_levels: int = 1

    def sizes(self, size: int) -> list[int]:
        """Return the size of the line that each level splits, the first being `size`."""
        sizes = [size]
        for _ in range(self.num_levels - 1):
            sizes.append(self.bank.num_atoms(sizes[-1]) // 2)
        return sizes

    def starts(self, size: int) -> list[int]:
        """Return the first atom of each level, and at last the number of all atoms."""
        starts = [0]
        for line in self.sizes(size):
            starts.append(starts[-1] + self.bank.num_atoms(line))
        return starts

    def num_atoms(self, size: int) -> int:
        """Return how many atoms a line of `size` has on all levels."""
        return self.starts(size)[-1]

    def analyse(self, x: Tensor) -> Tensor:
        """Return every atom's inner product with x `[..., size]`: `[..., num_atoms]`."""
        levels = []
        for size in self.sizes(x.shape[-1]):
            x = self.bank.analyse(x)
            levels.append(x)
            x = x[..., : self.bank.num_atoms(size) // 2]
        return levels[0] if self.num_levels == 1 else torch.cat(levels, dim=-1)

    def synthesise(self, z: Tensor, size: int) -> Tensor:
        """Return the sum of the atoms times z `[..., num_atoms]`: `[..., size]`."""
        sizes, starts = self.sizes(size), self.starts(size)
        line = z[..., starts[-2] :]
        for level in reversed(range(self.num_levels)):
            line = self.bank.synthesise(line, sizes[level])
            if level:
                above = z[..., starts[level - 1] : starts[level]]
                low, high = above.chunk(2, dim=-1)
                line = torch.cat([low + line, high], dim=-1)
        return line

    @cached_property
    def filters(self) -> list[np.ndarray]:
        """Return the atoms' numbers by level, float64 `[2, taps]`: low-pass, then high-pass."""
        if not self.bank.low:
            return [np.ones((2, 1))]
        steps = np.array([self.bank.low, self.bank.high])
        filters = [steps]
        for level in range(1, self.num_levels):
            spread = np.zeros((2, (self.bank.taps - 1) * 2**level + 1))
            spread[:, :: 2**level] = steps
            filters.append(np.array([np.convolve(one, filters[-1][0]) for one in spread]))
        return filters

    def span(self, level: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first cell of an atom and the one behind its last; edges may cut both.

        Args:
            level: int64 `[n]`, from 0.
            index: int64 `[n]`, the atom's position in its half of the level.
        """
        step, back = 1 << (level + 1), self.bank.taps - 2
        if not self.bank.low:
            return index, index + 1
        first = step * index - (step - 1) * back
        return first, first + (step - 1) * (self.bank.taps - 1) + 1

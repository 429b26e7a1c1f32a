"""The free pages of the key-value cache, as numbers; no tensors."""

from bisect import bisect_left
from itertools import islice
from operator import lt


class PagePool:
    """Hands out pages `1..num_pages`; page 0 takes the writes of padding rows.

    A run of neighbouring pages is preferred: attention then reads a slice and copies nothing.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = list(range(1, num_pages + 1))  # always sorted

    @property
    def num_free(self) -> int:
        """Return how many pages are free."""
        return len(self._free)

    def pages_for(self, num_tokens: int) -> int:
        """Return how many pages hold `num_tokens` tokens."""
        return -(-num_tokens // self.page_size)

    def allocate(self, count: int) -> list[int] | None:
        """Return `count` pages in ascending order, or None if there are not enough."""
        if count > len(self._free):
            return None
        start = self._run_of(count)
        taken = self._free[start : start + count]
        del self._free[start : start + count]
        return taken

    def allocate_after(self, page: int) -> int | None:
        """Return one page, the next neighbour of `page` if it is free; None if none is."""
        if not self._free:
            return None
        i = bisect_left(self._free, page + 1)
        is_free = i < len(self._free) and self._free[i] == page + 1
        return self._free.pop(i if is_free else 0)

    def release(self, pages: list[int]) -> None:
        """Take pages back."""
        self._free = sorted(self._free + pages)
        assert all(map(lt, self._free, islice(self._free, 1, None))), "a page was freed twice"

    def has_run(self, count: int) -> bool:
        """Return whether `count` free pages are neighbours."""
        start = self._run_of(count)
        taken = self._free[start : start + count]
        return len(taken) == count and (not count or taken[-1] - taken[0] == count - 1)

    def _run_of(self, count: int) -> int:
        """Return where `count` neighbouring pages begin in the free list; 0 if nowhere."""
        start = 0
        for i in range(len(self._free)):
            if i > start and self._free[i] != self._free[i - 1] + 1:
                start = i
            if i - start + 1 == count:
                return start
        return 0

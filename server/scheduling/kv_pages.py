"""The pages that running sequences hold, and those of prefixes that are kept for reuse. Pure.

A sequence is given the pages of its whole length where they are free, because neighbouring pages
are read without a copy. Pages that it does not need yet are taken back when others need them.
"""

from collections.abc import Iterable

from server.scheduling.page_pool import PagePool
from server.scheduling.prefix_cache import Node, PrefixCache
from server.scheduling.sequence import TokenSequence

#: Share of all pages that unused prefixes may keep: free runs for new sequences stay likely.
_IDLE_SHARE = 0.5
#: A free run may cost kept pages of so many times the sequence's own length.
_EVICTIONS = 3


class KvPages:
    """The pages of one cache.

    Args:
        pool: all of them.
        keep_prefixes: whether prompts' pages are kept after their sequences.
    """

    def __init__(self, pool: PagePool, keep_prefixes: bool = True) -> None:
        self._pool = pool
        self._prefixes = PrefixCache(pool.page_size)
        self._keep_prefixes = keep_prefixes

    def needed(self, sequence: TokenSequence) -> int:
        """Return how many pages it must have for the tokens it has and one more."""
        return self._pool.pages_for(min(len(sequence.tokens) + 1, sequence.max_length))

    def is_waiting_for_prefix(
        self, sequence: TokenSequence, running: Iterable[TokenSequence]
    ) -> bool:
        """Return whether a running sequence is about to keep the next page of this prompt."""
        found = len(self._found(sequence))
        end = (found + 1) * self._pool.page_size
        if not self._keep_prefixes or end >= len(sequence.prompt) or sequence.sampling.scored:
            return False
        start = sequence.prompt[:end]
        return any(
            other.is_chained
            and other.namespace == sequence.namespace
            and end > other.num_computed
            and other.prompt[:end] == start
            for other in running
        )

    def has_whole(self, sequence: TokenSequence, spare: int) -> bool:
        """Return whether `take` would give a live sequence the pages of its whole length."""
        whole = self._pool.pages_for(sequence.max_length) - len(self._found(sequence))
        return whole + spare <= self._available(evicts=False)

    def take(self, sequence: TokenSequence, spare: int, evicts: bool = True) -> bool:
        """Give a sequence what it needs, kept prefix included; False leaves all as it was.

        Args:
            sequence: that holds nothing yet.
            spare: pages that must be left free or idle for running sequences.
            evicts: pages that live sequences have left may be evicted, not the background's alone.
        """
        chain = self._found(sequence)
        # What is found must not be evicted for the rest.
        self._prefixes.use(chain, sequence.is_background)
        whole = self._pool.pages_for(sequence.max_length) - len(chain)
        least = whole if sequence.is_solid else self.needed(sequence) - len(chain)
        if self._available(evicts) < least + spare:
            self._prefixes.leave(chain)
            return False
        self._evict(least - self._pool.num_free)
        if not sequence.is_background:  # what the background has left is as good as free
            self._evict_background(whole + spare - self._pool.num_free)
        count = whole if whole <= self._pool.num_free - spare else least
        self._evict_for_neighbours(count, evicts)
        own = self._pool.allocate(count)
        assert own is not None, "as many as were counted"
        sequence.chain = chain
        sequence.pages = [node.page for node in chain] + own
        sequence.num_computed = len(chain) * self._pool.page_size
        return True

    def _found(self, sequence: TokenSequence) -> list[Node]:
        """Return the kept prefix of a prompt; none if its tokens are scored: all are computed."""
        if sequence.sampling.scored:
            return []
        return self._prefixes.find(sequence.namespace, sequence.prompt)

    def grow(self, sequence: TokenSequence, evicts: bool = True) -> bool:
        """Give a running sequence the page of its next token; False if there is none.

        Args:
            sequence: that runs.
            evicts: as for `take`.
        """
        while len(sequence.pages) < self._pool.pages_for(sequence.num_computed + 1):
            if not self._available(evicts):
                return False
            self._evict(1 - self._pool.num_free)
            page = self._pool.allocate_after(sequence.pages[-1])
            if page is None:
                return False
            sequence.pages.append(page)
        return True

    def trim(self, sequence: TokenSequence) -> None:
        """Take back what a running sequence does not need yet."""
        least = self.needed(sequence)
        if not sequence.is_solid and len(sequence.pages) > least:
            self._pool.release(sequence.pages[least:])
            del sequence.pages[least:]

    def keep(self, sequence: TokenSequence) -> None:
        """Keep the pages that are full of computed prompt tokens.

        Generated tokens' are not kept: they were computed one by one, and a prompt that holds
        the same tokens computes them together, which may differ in the last bit.
        """
        size = self._pool.page_size
        known = min(sequence.num_computed, len(sequence.prompt)) // size
        while self._keep_prefixes and sequence.is_chained and len(sequence.chain) < known:
            i = len(sequence.chain)
            tokens = sequence.prompt[i * size : (i + 1) * size]
            parent = sequence.chain[-1] if sequence.chain else None
            node = self._prefixes.add(
                sequence.namespace, parent, tokens, sequence.pages[i], sequence.is_background
            )
            if node is None:  # another one has computed the same meanwhile
                sequence.is_chained = False
            else:
                sequence.chain.append(node)

    def release(self, sequence: TokenSequence) -> None:
        """Take all pages back from a sequence; kept ones stay."""
        own = sequence.pages[len(sequence.chain) :]
        self._prefixes.leave(sequence.chain)
        self._pool.release(own)
        sequence.pages, sequence.chain = [], []
        sequence.is_chained = True
        self._evict(self._prefixes.num_idle - int(_IDLE_SHARE * self._pool.num_pages))

    @property
    def num_available(self) -> int:
        """Return how many pages no sequence uses, kept prefixes among them."""
        return self._available(evicts=True)

    def _available(self, evicts: bool) -> int:
        return self._pool.num_free + self._evictable(evicts)

    def _evictable(self, evicts: bool) -> int:
        return self._prefixes.num_idle if evicts else self._prefixes.num_idle_background

    @property
    def num_pages(self) -> int:
        """Return how many pages there are."""
        return self._pool.num_pages

    @property
    def page_size(self) -> int:
        """Return the tokens of a page."""
        return self._pool.page_size

    def _evict_for_neighbours(self, count: int, evicts: bool) -> None:
        """Evict a few kept pages, if that makes `count` neighbouring pages free.

        Kept prefixes fragment the cache, and pages that are not neighbours are copied at every
        token, which costs more than computing the oldest kept prefixes again.
        """
        for _ in range(_EVICTIONS):
            kept = self._evictable(evicts)
            if self._pool.has_run(count) or not kept:
                return
            self._evict(min(count, kept))

    def _evict_background(self, count: int) -> None:
        self._evict(min(count, self._prefixes.num_idle_background))

    def _evict(self, count: int) -> None:
        if count > 0:
            self._pool.release(self._prefixes.evict(count))

    def check_integrity(self, running: Iterable[TokenSequence]) -> None:
        """Assert that every page is free, kept, or held by exactly one running sequence."""
        self._prefixes.check_integrity()
        own = []
        for sequence in running:
            assert [node.page for node in sequence.chain] == sequence.pages[: len(sequence.chain)]
            own += sequence.pages[len(sequence.chain) :]
        assert len(own) == len(set(own)), "two sequences hold one page"
        assert len(own) + self._prefixes.num_pages + self._pool.num_free == self.num_pages

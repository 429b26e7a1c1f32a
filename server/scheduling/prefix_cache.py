"""Pages of prompts that were computed once: found again by tenant, adapter and tokens. Pure.

A tree for each namespace, one node a full page. Tokens themselves are compared, not hashes, so that
two prompts are never confused. Namespaces are never mixed: an adapter changes keys and values, and
response times must not reveal another tenant's prompts.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Self

Tokens = tuple[int, ...]


@dataclass(eq=False)
class Node:
    """One page of keys and values, and the pages that may follow it.

    Args:
        tokens: of this page.
        page: where they lie in the cache.
        parent: the page before; None above a namespace's first pages.
        users: running sequences that read it.
        is_background: no live sequence has used it; neither has any that follows it.
    """

    tokens: Tokens
    page: int
    parent: Self | None
    namespace: Hashable
    users: int = 0
    is_background: bool = False
    children: dict[Tokens, Self] = field(default_factory=dict)


class PrefixCache:
    """Keeps pages after their sequences have ended; the least recently used are evicted first.

    A sequence uses whole chains from the first page on, so an unused page has no follower in use,
    and a chain becomes idle from its end: followers always come before their parents in the order
    of eviction. Pages that background sequences alone have used are evicted before all others.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._roots: dict[Hashable, dict[Tokens, Node]] = {}
        self._idle: dict[bool, OrderedDict[Node, None]] = {
            is_background: OrderedDict() for is_background in (True, False)
        }
        self._num_nodes = 0

    @property
    def num_pages(self) -> int:
        """Return how many pages are kept, in use or not."""
        return self._num_nodes

    @property
    def num_idle(self) -> int:
        """Return how many pages are kept that no sequence uses."""
        return sum(map(len, self._idle.values()))

    @property
    def num_idle_background(self) -> int:
        """Return how many of these only background sequences have used."""
        return len(self._idle[True])

    def find(self, namespace: Hashable, tokens: Tokens) -> list[Node]:
        """Return the longest chain of kept pages that begins `tokens`; one token is left over.

        A sequence needs at least its last token computed to go on.
        """
        chain: list[Node] = []
        level = self._roots.get(namespace, {})
        for start in range(0, len(tokens) - self._page_size, self._page_size):
            node = level.get(tokens[start : start + self._page_size])
            if node is None:
                break
            chain.append(node)
            level = node.children
        return chain

    def use(self, chain: Iterable[Node], is_background: bool = False) -> None:
        """Count one more user of every page."""
        for node in chain:
            if node.users == 0:
                del self._idle[node.is_background][node]
            node.is_background &= is_background
            node.users += 1

    def leave(self, chain: list[Node]) -> None:
        """Count one user less of every page; unused pages stay until they are evicted."""
        for node in reversed(chain):
            assert node.users > 0, "a page was left more often than used"
            node.users -= 1
            if node.users == 0:
                self._idle[node.is_background][node] = None

    def add(
        self,
        namespace: Hashable,
        parent: Node | None,
        tokens: Tokens,
        page: int,
        is_background: bool = False,
    ) -> Node | None:
        """Keep a page that its sequence still uses; None if these tokens are kept already."""
        level = self._roots.setdefault(namespace, {}) if parent is None else parent.children
        if tokens in level:
            return None
        node = Node(tokens, page, parent, namespace, users=1, is_background=is_background)
        level[tokens] = node
        self._num_nodes += 1
        return node

    def evict(self, count: int) -> list[int]:
        """Forget up to `count` unused pages and return them."""
        return [self._forget(self._first_idle()) for _ in range(min(count, self.num_idle))]

    def _first_idle(self) -> Node:
        return next(node for idle in self._idle.values() for node in idle)

    def _forget(self, node: Node) -> int:
        assert not node.children, "a page is evicted before what follows it"
        del self._idle[node.is_background][node]
        level = self._roots[node.namespace] if node.parent is None else node.parent.children
        del level[node.tokens]
        if node.parent is None and not level:
            del self._roots[node.namespace]
        self._num_nodes -= 1
        return node.page

    def check_integrity(self) -> None:
        """Assert that the tree and the counters agree."""
        nodes, stack = [], [node for level in self._roots.values() for node in level.values()]
        while stack:
            node = stack.pop()
            nodes.append(node)
            stack += node.children.values()
        assert len(nodes) == self._num_nodes
        idle = [(n, is_background) for is_background, own in self._idle.items() for n in own]
        assert {(n, n.is_background) for n in nodes if n.users == 0} == set(idle)
        assert all(f.is_background for n in nodes if n.is_background for f in n.children.values())
        assert len({n.page for n in nodes}) == len(nodes), "two nodes hold one page"

"""Kept pages: found by all of their tokens, by whose they are, and given up from their ends."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.scheduling.prefix_cache import Node, PrefixCache

SIZE = 2


def keep(
    cache: PrefixCache, namespace: str, tokens: tuple[int, ...], first_page: int
) -> list[Node]:
    """Keep all full pages of a prompt and go on using them."""
    chain = cache.find(namespace, (*tokens, -1))
    cache.use(chain)
    for start in range(len(chain) * SIZE, len(tokens), SIZE):
        parent = chain[-1] if chain else None
        page = first_page + start // SIZE
        node = cache.add(namespace, parent, tokens[start : start + SIZE], page)
        assert node is not None
        chain.append(node)
    return chain


def pages(chain: list[Node]) -> list[int]:
    return [node.page for node in chain]


def test_the_longest_beginning_in_whole_pages_is_found() -> None:
    cache = PrefixCache(SIZE)
    keep(cache, "a", (1, 2, 3, 4), 10)
    assert pages(cache.find("a", (1, 2, 3, 4, 5))) == [10, 11]
    assert pages(cache.find("a", (1, 2, 3, 9, 5))) == [10]
    assert pages(cache.find("a", (1, 9, 3, 4, 5))) == []


def test_one_token_is_always_left_to_compute() -> None:
    cache = PrefixCache(SIZE)
    keep(cache, "a", (1, 2, 3, 4), 10)
    assert pages(cache.find("a", (1, 2, 3, 4))) == [10]
    assert pages(cache.find("a", (1, 2))) == []


def test_nothing_is_found_in_another_namespace() -> None:
    cache = PrefixCache(SIZE)
    keep(cache, "a", (1, 2), 10)
    assert cache.find("b", (1, 2, 3)) == []


def test_the_same_tokens_after_another_beginning_are_another_page() -> None:
    cache = PrefixCache(SIZE)
    keep(cache, "a", (1, 2, 7, 7), 10)
    assert pages(cache.find("a", (3, 4, 7, 7, 0))) == []
    keep(cache, "a", (3, 4, 7, 7), 20)
    assert pages(cache.find("a", (3, 4, 7, 7, 0))) == [20, 21]


def test_what_is_in_use_is_not_evicted_and_ends_go_before_beginnings() -> None:
    cache = PrefixCache(SIZE)
    long = keep(cache, "a", (1, 2, 3, 4, 5, 6), 10)
    short = keep(cache, "a", (1, 2), 0)
    cache.leave(long)
    assert cache.evict(9) == [12, 11]
    cache.leave(short)
    assert cache.evict(9) == [10]
    assert cache.num_pages == 0


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache(SIZE)
    first, second = keep(cache, "a", (1, 2), 10), keep(cache, "b", (1, 2), 20)
    cache.leave(first)
    cache.leave(second)
    cache.use(first)
    cache.leave(first)
    assert cache.evict(1) == [20]


class PrefixMachine(RuleBasedStateMachine):
    """Prompts come and go; what is found always holds the very tokens that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(SIZE)
        self.held: list[list[Node]] = []
        self.content: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.num_pages = 0

    @rule(namespace=st.sampled_from("ab"), tokens=st.lists(st.integers(0, 1), max_size=9))
    def prompt(self, namespace: str, tokens: list[int]) -> None:
        given = tuple(tokens)
        chain = self.cache.find(namespace, given)
        for i, node in enumerate(chain):
            assert self.content[node.page] == (namespace, given[: (i + 1) * SIZE])
        self.cache.use(chain)
        for end in range((len(chain) + 1) * SIZE, len(given) + 1, SIZE):
            self.num_pages += 1
            tail = given[end - SIZE : end]
            node = self.cache.add(namespace, chain[-1] if chain else None, tail, self.num_pages)
            if node is None:
                break
            chain.append(node)
            self.content[node.page] = (namespace, given[:end])
        self.held.append(chain)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        self.cache.leave(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @rule(count=st.integers(0, 4))
    def evict(self, count: int) -> None:
        in_use = {node.page for chain in self.held for node in chain}
        gone = self.cache.evict(count)
        assert not in_use & set(gone)
        for page in gone:
            del self.content[page]

    @invariant()
    def books_balance(self) -> None:
        self.cache.check_integrity()
        assert self.cache.num_pages == len(self.content)


PrefixMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestPrefixMachine = PrefixMachine.TestCase

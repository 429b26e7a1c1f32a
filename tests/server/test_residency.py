"""The caches' books: bounded, least recently used first, never what is in use."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.residency import Entry, Residency

CAPACITY = 100


def loaded(cache: Residency, key: str, size: int) -> Entry:
    """Return an entry that is ready and that nobody holds."""
    entry, is_new = cache.acquire(key)
    assert is_new
    assert cache.charge(entry, size) is not None
    entry.payload = "tensors"
    cache.release(entry)
    return entry


def test_an_entry_is_loaded_by_its_first_user_only() -> None:
    cache = Residency(CAPACITY)
    first, is_new = cache.acquire("a")
    second, again = cache.acquire("a")
    assert (is_new, again) == (True, False)
    assert first is second
    assert (first.users, cache.hits, cache.misses) == (2, 1, 1)
    assert not cache.contains("a")


def test_the_least_recently_used_goes_first() -> None:
    cache = Residency(CAPACITY)
    entries = {key: loaded(cache, key, 30) for key in "abc"}
    cache.release(cache.acquire("a")[0])
    new, _ = cache.acquire("d")
    assert cache.charge(new, 40) == [entries["b"]]
    assert list(cache.entries) == ["c", "a", "d"]
    assert (cache.used_bytes, cache.evictions) == (100, 1)


def test_asking_whether_it_is_there_is_no_use() -> None:
    cache = Residency(CAPACITY)
    for key in "ab":
        loaded(cache, key, 50)
    assert cache.contains("a")
    new, _ = cache.acquire("c")
    victims = cache.charge(new, 50)
    assert victims is not None
    assert [victim.key for victim in victims] == ["a"]


def test_what_is_used_pinned_or_loading_stays() -> None:
    cache = Residency(CAPACITY)
    loaded(cache, "used", 30)
    cache.acquire("used")
    loaded(cache, "pinned", 30).pinned = True
    loading, _ = cache.acquire("loading")
    cache.charge(loading, 30)
    cache.release(loading)
    new, _ = cache.acquire("new")
    assert cache.charge(new, 20) is None
    assert cache.charge(new, 10) == []


def test_no_room_leaves_everything_as_it_was() -> None:
    cache = Residency(CAPACITY)
    loaded(cache, "a", 60)
    held, _ = cache.acquire("held")
    cache.charge(held, 40)
    new, _ = cache.acquire("new")
    assert cache.charge(new, 61) is None
    assert cache.contains("a")
    assert (cache.used_bytes, cache.evictions, new.size_bytes) == (100, 0, 0)


def test_a_dropped_entry_is_loaded_again() -> None:
    cache = Residency(CAPACITY)
    first, _ = cache.acquire("a")
    cache.charge(first, 10)
    cache.drop(first)
    assert cache.used_bytes == 0
    second, is_new = cache.acquire("a")
    assert is_new
    assert second is not first
    cache.release(first)
    assert (first.users, second.users) == (0, 1)


def test_releasing_too_often_is_a_broken_invariant() -> None:
    cache = Residency(CAPACITY)
    entry, _ = cache.acquire("a")
    cache.release(entry)
    with pytest.raises(AssertionError, match="more often"):
        cache.release(entry)


class ResidencyMachine(RuleBasedStateMachine):
    """Users, loads and failures in any order, against a plain list of recent uses."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Residency(CAPACITY)
        self.recent: list[Entry] = []  # the least recently used first
        self.held: list[Entry] = []
        self.loading: list[Entry] = []

    @rule(key=st.sampled_from("abcdefgh"))
    def acquire(self, key: str) -> None:
        known = next((entry for entry in self.recent if entry.key == key), None)
        entry, is_new = self.cache.acquire(key)
        assert is_new == (known is None)
        assert known is None or entry is known
        if known is not None:
            self.recent.remove(known)
        self.recent.append(entry)
        self.held.append(entry)
        if is_new:
            self.loading.append(entry)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.cache.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @precondition(lambda self: any(not entry.size_bytes for entry in self.loading))
    @rule(data=st.data(), size=st.integers(1, CAPACITY))
    def charge(self, data: st.DataObject, size: int) -> None:
        entry = data.draw(st.sampled_from([e for e in self.loading if not e.size_bytes]))
        may_go = [e for e in self.recent if self._may_go(e)]
        free = CAPACITY - self.cache.used_bytes
        victims = self.cache.charge(entry, size)
        if victims is None:
            assert free + sum(e.size_bytes for e in may_go) < size
            return
        assert victims == may_go[: len(victims)], "not the least recently used"
        freed = [e.size_bytes for e in victims]
        assert free + sum(freed) >= size
        assert not freed or free + sum(freed[:-1]) < size, "more was evicted than needed"
        for victim in victims:
            self.recent.remove(victim)
            victim.payload = None

    def _may_go(self, entry: Entry) -> bool:
        return entry.is_ready and not entry.pinned and entry not in self.held

    @precondition(lambda self: any(entry.size_bytes for entry in self.loading))
    @rule(data=st.data())
    def becomes_ready(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([e for e in self.loading if e.size_bytes]))
        self.loading.remove(entry)
        entry.payload = "tensors"

    @precondition(lambda self: self.loading)
    @rule(data=st.data())
    def fails(self, data: st.DataObject) -> None:
        entry = self.loading.pop(data.draw(st.integers(0, len(self.loading) - 1)))
        self.cache.drop(entry)
        self.recent.remove(entry)
        assert entry.key not in self.cache.entries

    @precondition(lambda self: self.recent)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.recent))
        entry.pinned = not entry.pinned

    @invariant()
    def books_balance(self) -> None:
        self.cache.check_integrity()
        assert list(self.cache.entries.values()) == self.recent
        for entry in self.recent:
            assert entry.users == self.held.count(entry)


ResidencyMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestResidencyMachine = ResidencyMachine.TestCase

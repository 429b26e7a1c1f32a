"""The caches' books: bounded, least recently used first, never what is in use."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.adapters.residency import Entry, Residency

CAPACITY = 100


def charged(cache: Residency, entry: Entry, size: int) -> list[Entry]:
    """Charge an entry that must find room at once; return what was evicted for it."""
    done, victims = cache.charge(entry, size)
    assert done
    return victims


def loaded(cache: Residency, key: str, size: int, held: bool = False) -> Entry:
    """Return an entry that is ready and that nobody holds, unless it is `held`."""
    entry, is_new = cache.acquire(key)
    assert is_new
    charged(cache, entry, size)
    entry.payload = "tensors"
    if not held:
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
    assert charged(cache, new, 40) == [entries["b"]]
    assert list(cache.entries) == ["c", "a", "d"]
    assert (cache.used_bytes, cache.evictions) == (100, 1)


def test_asking_whether_it_is_there_is_no_use() -> None:
    cache = Residency(CAPACITY)
    for key in "ab":
        loaded(cache, key, 50)
    assert cache.contains("a")
    new, _ = cache.acquire("c")
    assert [victim.key for victim in charged(cache, new, 50)] == ["a"]


def test_what_is_wanted_goes_last() -> None:
    cache = Residency(CAPACITY, wanted={"a"})
    for key in "ab":
        loaded(cache, key, 50)
    new, _ = cache.acquire("c")
    assert [victim.key for victim in charged(cache, new, 50)] == ["b"]
    larger, _ = cache.acquire("d")
    assert [victim.key for victim in charged(cache, larger, 40)] == ["a"]


def test_what_is_used_pinned_or_loading_is_not_evicted() -> None:
    cache = Residency(CAPACITY)
    loaded(cache, "used", 30, held=True)
    cache.pin(loaded(cache, "pinned", 30))
    loading, _ = cache.acquire("loading")
    charged(cache, loading, 30)
    cache.release(loading)
    new, _ = cache.acquire("new")
    assert cache.charge(new, 20, can_wait=False) == (False, [])
    assert charged(cache, new, 10) == []


def test_what_cannot_wait_changes_nothing() -> None:
    cache = Residency(CAPACITY)
    loaded(cache, "a", 60)
    held = loaded(cache, "held", 40, held=True)
    new, _ = cache.acquire("new")
    assert cache.charge(new, 61, can_wait=False) == (False, [])
    assert cache.contains("a")
    assert not held.is_leaving
    assert not cache.queue
    assert (cache.used_bytes, cache.evictions, new.size_bytes) == (100, 0, 0)


def test_a_leaving_entry_serves_its_users_and_takes_no_new_ones() -> None:
    cache = Residency(CAPACITY)
    old = loaded(cache, "a", 100, held=True)
    new, _ = cache.acquire("b")
    assert cache.charge(new, 50) == (False, [])
    assert old.is_leaving
    assert old.is_ready
    assert not cache.contains("a")
    again, is_new = cache.acquire("a")
    assert is_new
    assert again is not old
    assert cache.charge(again, 100) == (False, []), "it overtook what waits"
    assert cache.release(old), "it did not go with its last user"
    assert charged(cache, new, 50) == []
    cache.check_integrity()


def test_no_more_leave_than_the_head_of_the_line_needs() -> None:
    cache = Residency(CAPACITY)
    entries = [loaded(cache, key, 25, held=True) for key in "abcd"]
    new, _ = cache.acquire("new")
    for _ in range(3):  # however often it asks
        cache.charge(new, 40)
    assert [entry.is_leaving for entry in entries] == [True, True, False, False]


def test_room_is_kept_for_the_head_of_the_line() -> None:
    """Nobody takes what was freed for it, however small he is."""
    cache = Residency(CAPACITY)
    first, second = (loaded(cache, key, 50, held=True) for key in "ab")
    large, _ = cache.acquire("large")
    assert cache.charge(large, 100) == (False, [])
    assert cache.release(first)
    small, _ = cache.acquire("small")
    assert cache.charge(small, 1) == (False, [])
    assert cache.charge(small, 1, can_wait=False) == (False, [])
    assert cache.release(second)
    assert cache.charge(small, 1) == (False, [])
    assert charged(cache, large, 100) == []


@pytest.mark.parametrize("can_wait", [True, False])
def test_overlapping_users_starve_nobody(can_wait: bool) -> None:
    """Two adapters fill the cache, and each has a next user before its last one goes.

    What stands in line gets its room all the same; what may not, never does.
    """
    cache = Residency(CAPACITY)
    held = {key: loaded(cache, key, 50, held=True) for key in "ab"}
    new, _ = cache.acquire("new")
    for _ in range(100):
        if cache.charge(new, 50, can_wait)[0]:
            break
        for key, last in list(held.items()):
            held[key], _ = cache.acquire(key)
            cache.release(last)
    assert new.is_charged == can_wait
    cache.check_integrity()


def test_pins_are_counted_by_their_bytes() -> None:
    cache = Residency(CAPACITY)
    entry = loaded(cache, "a", 30)
    for _ in range(2):
        cache.pin(entry)
    assert cache.pinned_bytes == 30
    cache.unpin(entry)
    assert (cache.pinned_bytes, entry.is_idle) == (30, False)
    cache.unpin(entry)
    assert (cache.pinned_bytes, entry.is_idle) == (0, True)
    loading, _ = cache.acquire("b")
    cache.pin(loading)
    assert cache.pinned_bytes == 0
    charged(cache, loading, 20)
    assert cache.pinned_bytes == 20
    cache.drop(loading)
    cache.check_integrity()


def test_a_dropped_entry_is_loaded_again() -> None:
    cache = Residency(CAPACITY)
    first, _ = cache.acquire("a")
    charged(cache, first, 10)
    cache.drop(first)
    assert cache.used_bytes == 0
    second, is_new = cache.acquire("a")
    assert is_new
    assert second is not first
    cache.release(first)
    assert (first.users, second.users) == (0, 1)


def test_one_in_use_leaves_when_it_is_asked_for() -> None:
    cache = Residency(CAPACITY)
    entries = [loaded(cache, key, 30, held=True) for key in "ab"]
    assert cache.evict_one() is None
    for _ in range(2):
        cache.retire_one()
    assert [entry.is_leaving for entry in entries] == [True, False]


def test_releasing_too_often_is_a_broken_invariant() -> None:
    cache = Residency(CAPACITY)
    entry, _ = cache.acquire("a")
    cache.release(entry)
    with pytest.raises(AssertionError, match="more often"):
        cache.release(entry)


class ResidencyMachine(RuleBasedStateMachine):
    """Users, loads, pins and failures in any order, against a plain list of recent uses."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Residency(CAPACITY)
        self.recent: list[Entry] = []  # the least recently used first
        self.held: list[Entry] = []
        self.loading: list[Entry] = []
        self.asked: dict[int, int] = {}  # id of a waiting entry -> the bytes it asks for

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
        entry = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        gone = self.cache.release(entry)
        assert gone == (entry.is_leaving and entry not in self.held)
        if gone:
            entry.payload = None

    @precondition(lambda self: any(not entry.is_charged for entry in self.loading))
    @rule(data=st.data(), size=st.integers(1, CAPACITY), can_wait=st.booleans())
    def charge(self, data: st.DataObject, size: int, can_wait: bool) -> None:
        entry = data.draw(st.sampled_from([e for e in self.loading if not e.is_charged]))
        size = self.asked.get(id(entry), size)
        line, idle = list(self.cache.queue), [e for e in self.recent if self._is_idle(e)]
        free, leaving = CAPACITY - self.cache.used_bytes, list(self.cache.leaving)
        done, victims = self.cache.charge(entry, size, can_wait)
        fits = free + sum(e.size_bytes for e in idle) >= size
        assert done == (fits and (not line or line[0] is entry))
        assert victims == idle[: len(victims)], "not the least recently used"
        freed = [e.size_bytes for e in victims]
        assert not freed or free + sum(freed[:-1]) < size, "more was evicted than needed"
        for victim in victims:
            self.recent.remove(victim)
            victim.payload = None
        if done:
            return
        if not can_wait:
            assert (list(self.cache.queue), self.cache.leaving) == (line, leaving)
            assert not victims
            return
        self.asked[id(entry)] = size
        assert entry in self.cache.queue
        self.recent = [e for e in self.recent if not e.is_leaving]

    def _is_idle(self, entry: Entry) -> bool:
        return entry.is_ready and not entry.pins and entry not in self.held

    @precondition(lambda self: any(entry.is_charged for entry in self.loading))
    @rule(data=st.data())
    def becomes_ready(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([e for e in self.loading if e.is_charged]))
        self.loading.remove(entry)
        entry.payload = "tensors"

    @precondition(lambda self: self.loading)
    @rule(data=st.data())
    def fails(self, data: st.DataObject) -> None:
        entry = self.loading.pop(data.draw(st.integers(0, len(self.loading) - 1)))
        self.cache.drop(entry)
        self.recent.remove(entry)
        assert entry.key not in self.cache.entries
        assert entry not in self.cache.queue

    @precondition(lambda self: self.recent)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        self.cache.pin(data.draw(st.sampled_from(self.recent)))

    @precondition(lambda self: any(entry.pins for entry in self.recent))
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        self.cache.unpin(data.draw(st.sampled_from([e for e in self.recent if e.pins])))

    @invariant()
    def books_balance(self) -> None:
        self.cache.check_integrity()
        assert list(self.cache.entries.values()) == self.recent
        for entry in [*self.recent, *self.cache.leaving]:
            assert entry.users == self.held.count(entry)
            assert not entry.is_leaving or entry.is_ready


ResidencyMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestResidencyMachine = ResidencyMachine.TestCase

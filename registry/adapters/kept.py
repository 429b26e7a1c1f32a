"""What was looked up by name, kept in memory until the name changes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from registry.errors import AdapterNotFound

MAX_KEYS = 64  # kept per name: latest, a few aliases, versions and digests
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(eq=False)
class _Fetch:
    """A lookup on its way; `stale` once a change of its name was seen meanwhile."""

    name: str
    stale: bool = False


class Kept(Generic[K, V]):
    """Answers by name and key; safe to use from many threads.

    Args:
        max_names: names kept; the least recently used one goes first.
    """

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._lock = threading.Lock()  # guards the two below
        self._names: OrderedDict[str, dict[K, V]] = OrderedDict()
        self._fetches: set[_Fetch] = set()

    def known(self, name: str, key: K) -> V | None:
        """Return what is known; None for nothing."""
        with self._lock:
            answers = self._names.get(name)
            if answers is None:
                return None
            self._names.move_to_end(name)
            return answers.get(key)

    def looked_up(self, name: str, key: K, ask: Callable[[], V]) -> V:
        """Ask, and keep the answer unless its name changed while it was on its way.

        Raises:
            AdapterNotFound: as `ask` does; the name is forgotten then.
        """
        with self._lookup(name) as fetch:
            value = ask()
            with self._lock:
                if not fetch.stale:
                    self._keep(name, key, value)
            return value

    def forget(self, name: str) -> None:
        """Forget a name; answers about it that are on their way are not kept."""
        with self._lock:
            self._names.pop(name, None)
            for fetch in self._fetches:
                fetch.stale = fetch.stale or fetch.name == name

    def forget_all(self) -> None:
        """Forget all names."""
        with self._lock:
            self._names.clear()
            for fetch in self._fetches:
                fetch.stale = True

    @contextmanager
    def _lookup(self, name: str) -> Iterator[_Fetch]:
        fetch = _Fetch(name)
        with self._lock:
            self._fetches.add(fetch)
        try:
            yield fetch
        except AdapterNotFound:
            self.forget(name)
            raise
        finally:
            with self._lock:
                self._fetches.discard(fetch)

    def _keep(self, name: str, key: K, value: V) -> None:
        answers = self._names.setdefault(name, {})
        if len(answers) >= MAX_KEYS:
            answers.clear()
        answers[key] = value
        self._names.move_to_end(name)
        if len(self._names) > self._max_names:
            self._names.popitem(last=False)

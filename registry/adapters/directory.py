"""A server's own mirror of names, so that a request does not wait for Redis.

One thread follows the registry's stream of changes and forgets the names in it. While it is caught
up, a name that was looked up once is answered from memory. While the registry is down, such a name
is still answered: perhaps with an earlier version, whose bytes never change. Between changes the
thread looks whether the data are still the same registry's: an emptied or exchanged data set
announces nothing, and its names are looked up again within a second. Other mirrors can listen to
the same thread (`listen`).
"""

import enum
import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import redis

from registry.adapters import changes
from registry.adapters.adapters import Adapters
from registry.adapters.kept import Kept
from registry.adapters.records import Record
from registry.adapters.sharing import Sharing
from registry.common.names import Reference
from registry.errors import RegistryUnavailable
from registry.redis.client import UNREACHABLE
from registry.redis.reach import reason_of

log = logging.getLogger(__name__)

MAX_NAMES = 100_000
BLOCK_MS = 500
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0
REPEAT_S = 60.0  # between two lines of the log about one registry that is away
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Following(enum.Enum):
    """How far the mirror can be trusted."""

    #: not started, or between two connections: ask the registry
    BEHIND = "behind"
    #: every change so far has been seen: answer from memory
    CAUGHT_UP = "caught_up"
    #: the registry could not be reached just now: known names from memory, others are asked for
    DOWN = "down"


class Listener(Protocol):
    """Another mirror of the same registry; called on the directory's thread."""

    def heard(self, change: changes.Change) -> None:
        """Note a change that was announced."""

    def catch_up(self) -> None:
        """Read again what it knows: changes may have been missed.

        Raises:
            RegistryUnavailable: the registry does not answer; it is called again later.
        """


@dataclass(frozen=True)
class Away:
    """A registry that does not answer.

    Args:
        since: when that was noticed, in seconds of `time.monotonic`.
        reason: in words, without an address.
    """

    since: float
    reason: str

    @property
    def seconds(self) -> float:
        """Return for how long it has been away."""
        return time.monotonic() - self.since


class Directory:
    """Resolves references; safe to use from many threads. Works unstarted too, always asking.

    Args:
        adapters: the registry's records.
        client: the same registry's Redis, with a socket timeout longer than half a second.
        max_names: names kept of each kind of answer; the least recently used one goes first.
    """

    def __init__(self, adapters: Adapters, client: redis.Redis, max_names: int = MAX_NAMES) -> None:
        self._adapters = adapters
        self._client = client
        self._records: Kept[Reference, Record] = Kept(max_names)
        self._presence: Kept[None, bool] = Kept(max_names)
        self._sharing: Kept[None, Sharing] = Kept(max_names)
        self._listeners: list[Listener] = []
        self._following = Following.BEHIND
        self._away: Away | None = None
        self._told_at = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registry-follower", daemon=True)

    @property
    def following(self) -> Following:
        """How far the mirror can be trusted now."""
        return self._following

    @property
    def away(self) -> Away | None:
        """Since when the registry has not answered, and why; None while it does."""
        return self._away

    def listen(self, listener: Listener) -> None:
        """Tell another mirror what is heard; before `start`."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin to follow the registry's changes; it need not be reachable yet."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, within about half a second. Safe to call twice, and unstarted."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def resolve(self, reference: str | Reference) -> Record:
        """Return the record that `reference` means, as of the last change seen.

        Args:
            reference: of a name as it is stored; a text is one of the operators' space.

        Raises:
            AdapterNotFound: it means nothing.
            RegistryUnavailable: the registry is down and this reference is not known here.
        """
        wanted = reference if isinstance(reference, Reference) else Reference.parse(reference)
        return self._answered(
            self._records, wanted.name, wanted, lambda: self._adapters.resolve(wanted)
        )

    def has(self, name: str) -> bool:
        """Return whether there is such a name, as of the last change seen.

        Raises:
            RegistryUnavailable: the registry is down and that is not known here.
        """
        return self._answered(self._presence, name, None, lambda: self._adapters.has(name))

    def sharing(self, name: str) -> Sharing:
        """Return with which tenants a name is shared, as of the last change seen.

        What is not there is shared with none, and costs the same work.

        Raises:
            RegistryUnavailable: the registry is down and that is not known here.
        """
        return self._answered(self._sharing, name, None, lambda: self._adapters.sharing(name))

    def forget(self, name: str) -> None:
        """Look `name` up again next time: call it after changing it, to read your own write."""
        self._records.forget(name)
        self._presence.forget(name)
        self._sharing.forget(name)

    def _answered(self, kept: Kept[K, V], name: str, key: K, ask: Callable[[], V]) -> V:
        """Return an answer from memory, or from the registry; from memory too if it is away."""
        known = kept.known(name, key)
        if known is not None and self._following is not Following.BEHIND:
            return known
        try:
            return kept.looked_up(name, key, ask)
        except RegistryUnavailable:
            if known is None:
                raise
            return known

    def _forget_all(self) -> None:
        for kept in (self._records, self._presence, self._sharing):
            kept.forget_all()
        for listener in self._listeners:
            listener.catch_up()

    def _run(self) -> None:
        """Follow until closed; after any fault, begin again from the stream's end."""
        wait_s = FIRST_RETRY_S
        while not self._closing.is_set():
            try:
                self._follow()
            except Exception as error:  # the thread must go on, or names stay old
                if self._following is Following.CAUGHT_UP:
                    wait_s = FIRST_RETRY_S
                self._lost(error)
                self._closing.wait(wait_s)
                wait_s = min(2 * wait_s, LAST_RETRY_S)

    def _lost(self, error: Exception) -> None:
        before = self._following
        unreachable = isinstance(error, UNREACHABLE)
        # The first fault may be this one connection's; only a second one says that all is down.
        is_down = unreachable and before is not Following.CAUGHT_UP
        self._following = Following.DOWN if is_down else Following.BEHIND
        now, reason = time.monotonic(), reason_of(error).text
        is_new = self._away is None or self._away.reason != reason
        self._away = Away(now if self._away is None else self._away.since, reason)
        if is_new or now >= self._told_at + REPEAT_S:
            self._told_at = now
            log.warning(
                "the registry has not been heard for %.0f s: %s (%r)",
                self._away.seconds,
                reason,
                error,
            )

    def _follow(self) -> None:
        # Anything may have changed since the last connection: the position first, then forget, so
        # that whatever is looked up from here on is at least as new as the position.
        position = changes.newest(self._client)
        self._forget_all()
        self._following = Following.CAUGHT_UP
        if self._away is not None:
            log.info("the registry is heard again, after %.0f s", self._away.seconds)
            self._away = None
        for change in changes.follow(self._client, position.id, BLOCK_MS):
            if self._closing.is_set() or (change is None and self._is_replaced(position)):
                return
            if change is None:
                continue
            if change.sequence != position.sequence + 1:
                self._forget_all()
            self.forget(change.name)
            for listener in self._listeners:
                listener.heard(change)
            position = position.after(change)

    def _is_replaced(self, position: changes.Position) -> bool:
        """Return whether the registry has other data now than those that were followed so far.

        Nothing is announced when a data set is emptied, or another one takes its place.
        """
        now = changes.newest(self._client)
        if position.may_lead_to(now):
            return False
        if position.registry:
            log.warning(
                "the registry's data were replaced: its id was %s and is %s, its last change was "
                "%d and is %d; all names are looked up again. The store still belongs to the "
                "former one: see `overtone store show`",
                position.registry,
                now.registry or "missing",
                position.sequence,
                now.sequence,
            )
        return True

"""A server's own mirror of API keys, so that a request does not wait for Redis.

It hears of every change on the thread of the directory of names, within milliseconds. While the
registry is away, a key that was looked up before is accepted for `grace_s`, revoked or not; others
cannot be told from wrong ones and are refused as such that cannot be looked up.
"""

import threading
from collections import OrderedDict

from registry.access.api_keys import ApiKeys
from registry.access.record import KeyRecord
from registry.adapters.changes import Change
from registry.adapters.directory import Directory, Following
from registry.errors import KeyNotFound, RegistryUnavailable

MAX_KNOWN = 10_000
GRACE_S = 3600.0


class KeyMirror:
    """What this process knows of the registry's keys; safe to use from many threads.

    Args:
        api_keys: the registry's records.
        directory: follows the registry's changes; a mirror of one that was not started always asks.
        max_known: keys that are kept; the least recently used one goes first.
        grace_s: how long known keys are accepted while the registry is away.
    """

    def __init__(
        self,
        api_keys: ApiKeys,
        directory: Directory,
        max_known: int = MAX_KNOWN,
        grace_s: float = GRACE_S,
    ) -> None:
        self._api_keys = api_keys
        self._directory = directory
        self._max_known = max_known
        self._grace_s = grace_s
        self._lock = threading.Lock()  # guards the three below
        self._known: OrderedDict[str, KeyRecord] = OrderedDict()
        self._num_heard = 0  # a lookup that began before the last one may be outdated
        self._has_any = False
        directory.listen(self)

    @property
    def has_any(self) -> bool:
        """Whether the registry has or ever had a key, as far as was heard; true stays true."""
        return self._has_any

    def known(self, id_: str) -> KeyRecord | None:
        """Return a key from memory; None where the registry must be asked. Never waits."""
        if self._directory.following is Following.BEHIND or self._is_too_long_away():
            return None
        with self._lock:
            record = self._known.get(id_)
            if record is not None:
                self._known.move_to_end(id_)
            return record

    def look_up(self, id_: str) -> KeyRecord | None:
        """Return a key as the registry has it; None if it has none of this id. May wait.

        Raises:
            RegistryUnavailable: it does not answer, and the key is not known well enough here.
        """
        num_heard, remembered = self._num_heard, self._known.get(id_)
        try:
            record = self._asked_for(id_)
        except KeyNotFound:
            with self._lock:
                self._known.pop(id_, None)  # no news: other look-ups under way are as new as before
            return None
        except RegistryUnavailable:
            if remembered is None or self._is_too_long_away():
                raise
            return remembered
        self._keep(record, num_heard)
        return record

    def refresh(self) -> None:
        """Ask whether the registry has keys at all: before the first request is answered.

        Raises:
            RegistryUnavailable: it does not answer.
        """
        self._has_any = self._api_keys.has_any() or self._has_any

    def note(self, id_: str) -> None:
        """Note that a key was made or changed: after doing so, to read your own write."""
        self._forget(id_)
        self._has_any = True

    def heard(self, change: Change) -> None:
        """Note what was announced, if it is about a key."""
        if change.kind == "api_key":
            self.note(change.name)

    def catch_up(self) -> None:
        """Read all known keys again, and whether there are any; called on the directory's thread.

        Raises:
            RegistryUnavailable: the registry does not answer; what is known stays so.
        """
        with self._lock:
            self._num_heard += 1
            num_heard, ids = self._num_heard, [*self._known]
        records = {record.id: record for record in self._api_keys.several(ids)}
        with self._lock:
            for id_ in ids:
                self._known.pop(id_, None)
            if num_heard == self._num_heard:
                self._known.update(records)
        self.refresh()

    def _asked_for(self, id_: str) -> KeyRecord:
        """Ask the registry, unless it is known to be away."""
        if self._directory.following is Following.DOWN:
            raise RegistryUnavailable(
                "the registry does not answer, and this API key is not known here; try again "
                "shortly"
            )
        return self._api_keys.get(id_)

    def _forget(self, id_: str) -> None:
        with self._lock:
            self._num_heard += 1
            self._known.pop(id_, None)

    def _keep(self, record: KeyRecord, num_heard: int) -> None:
        with self._lock:
            if num_heard != self._num_heard:
                return
            self._known[record.id] = record
            self._known.move_to_end(record.id)
            if len(self._known) > self._max_known:
                self._known.popitem(last=False)

    def _is_too_long_away(self) -> bool:
        away = self._directory.away
        return away is not None and away.seconds > self._grace_s

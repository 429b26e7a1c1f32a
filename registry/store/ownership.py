"""A store belongs to one registry, and a registry has one store: each holds the other's id.

    <store>/store.json            the store's id and its registry's (mark.py)
    <store>/.owner.lock           held while these are compared and written
    <store>/.users/<registry id>  held shared by every server and worker that has the store open
    overtone:{registry}:identity  the registry's id and its store's

Both are made at first use. Afterwards a program refuses to start on any other pair: a registry
that lost its data, or the wrong one, names nothing in the store, and all of it would be removed.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import redis

from registry.common.names import check_digest
from registry.errors import ForeignStore
from registry.redis import keys
from registry.redis.scripts import Scripts
from registry.store import schema
from registry.store.mark import StoreMark
from registry.store.places import StorePlace, is_empty
from registry.store.standing import Identity, Standing, advice, fault_of

#: Of the registry's blobs and files, so many are looked for in a store that has no mark yet.
MAX_LOOKED_FOR = 1000
_BATCH = 500
#: (hash, field): what a script can look for in one transaction.
Place = tuple[str, str]


class Ownership:
    """Which registry a store belongs to; safe to use from many threads and processes.

    Args:
        client: answers bytes and has socket timeouts.
        place: of the store.
        words: how the programs' options name this registry and store, for messages.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        client: redis.Redis,
        place: StorePlace,
        words: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._scripts = Scripts(client)
        self._place, self._folder = place, place.folder
        self._words, self._clock = words, clock
        self._in_use: list[int] = []  # descriptors, each with a shared lock

    def settle(self) -> StoreMark:
        """Make sure that store and registry belong together; at first use they do from now on.

        The store counts as in use by this registry's programs until `close`. Twice is harmless.

        Raises:
            ForeignStore: they do not, or that is not known. Nothing was changed.
            CorruptRecord: the store's mark is damaged.
            SchemaTooNew: a later program wrote the registry.
            RegistryUnavailable: the registry does not answer.
        """
        with self._alone():
            standing = self.standing()
            fault = fault_of(standing)
            if fault is not None:
                raise ForeignStore(f"{fault}. Nothing was changed. {advice(self._words)}")
            mark = standing.mark
            if mark is None or mark.registry is None:
                mark = self._pair(mark, replace=False)
            self._place.note(mark)
            self._upgrade()
            self._use(str(mark.registry))
        return mark

    def adopt(self) -> StoreMark:
        """Make the store this registry's own, whatever they were before; remove nothing.

        Raises:
            ForeignStore: programs of another registry have the store open.
            RegistryUnavailable: the registry does not answer.
        """
        with self._alone():
            standing = self.standing()
            self._check_unused(None if standing.identity is None else standing.identity.id)
            return self._pair(standing.mark, replace=True)

    def standing(self) -> Standing:
        """Return how store and registry stand to each other, read now; nothing is changed.

        Raises:
            SchemaTooNew: a later program wrote the registry.
            RegistryUnusable: the store's bucket does not answer.
        """
        self._place.check()
        self.check_schema()
        with self._scripts.asking("identity"):
            stored: Any = self._client.hgetall(keys.IDENTITY)
            content = (keys.NAMES, keys.FILES, keys.JOBS, keys.BATCHES, keys.COUNTERS)
            is_nothing = not self._client.exists(*content)
        identity = Identity(stored[b"id"].decode(), stored[b"store"].decode()) if stored else None
        mark = self._place.mark()
        digests, files = ([], []) if mark is not None and mark.registry else self._sample()
        return Standing(
            mark=mark,
            identity=identity,
            store_is_empty=self.store_is_empty(),
            registry_is_empty=is_nothing,
            num_looked_for=len(digests) + len(files),
            num_missing=self._place.num_missing(digests, files) if digests or files else 0,
        )

    def restored(self, body: bytes) -> None:
        """Make a backup's mark the store's own; no program may have the store open.

        Raises:
            CorruptRecord: it is not one.
        """
        self._place.write(StoreMark.parse(body))

    def are_known(self, places: Sequence[Place]) -> list[bool]:
        """Return for each hash and field whether the store's own registry has it.

        Raises:
            ForeignStore: the registry that answers is not the store's own.
        """
        mark = self._place.mark()
        owner = "" if mark is None else mark.registry or ""
        found: list[bool] = []
        for start in range(0, len(places) or 1, _BATCH):
            batch = places[start : start + _BATCH]
            touched = [keys.IDENTITY, *(hash_ for hash_, _ in batch)]
            reply = self._scripts.run("known", touched, [owner, *(field for _, field in batch)])
            if reply == [b"other"]:
                raise ForeignStore(
                    "the registry that answers is not the one to which the store belongs; "
                    f"nothing was removed. {advice(self._words)}"
                )
            found += map(bool, reply)
        return found

    def store_is_empty(self) -> bool:
        """Return whether the store holds nothing that a registry could name."""
        return is_empty(self._place)

    def check_schema(self) -> int:
        """Return the schema of the registry's keys.

        Raises:
            SchemaTooNew: a later program wrote them.
        """
        with self._scripts.asking("identity"):
            stored: Any = self._client.hget(keys.IDENTITY, schema.FIELD)
        found = schema.of({} if stored is None else {schema.FIELD: stored})
        schema.check(found)
        return found

    @contextmanager
    def unused(self) -> Iterator[None]:
        """Keep programs from opening the store during the block.

        Raises:
            ForeignStore: one has it open.
        """
        with self._alone():
            self._check_unused(None)
            yield

    def check_alone(self) -> None:
        """Make sure that no program of another registry has the store open.

        Raises:
            ForeignStore: one has.
        """
        mark = self._place.mark()
        self._check_unused(None if mark is None else mark.registry)

    def close(self) -> None:
        """Release the store's locks. Safe to call twice."""
        while self._in_use:
            os.close(self._in_use.pop())

    def _pair(self, mark: StoreMark | None, replace: bool) -> StoreMark:
        """Write the ids into both, so that the next start completes it after a crash in between."""
        if mark is None:
            mark = self._place.begin(StoreMark(secrets.token_hex(16)))
        args = [secrets.token_hex(16), mark.store, "1" if replace else ""]
        found = self._scripts.run("pair", [keys.IDENTITY], args)
        identity = Identity(*(each.decode() for each in found))
        if identity.store != mark.store:  # another store was given to this registry just now
            raise ForeignStore(f"the registry has another store already. {advice(self._words)}")
        mark = mark.handed_to(identity.id, self._clock())
        self._place.write(mark)
        return mark

    def _upgrade(self) -> None:
        found = self.check_schema()
        with self._scripts.asking("schema"):
            schema.upgrade(self._client, found)

    def _sample(self) -> tuple[list[str], list[str]]:
        """Return digests and files that the registry names, up to a number of each."""
        with self._scripts.asking("identity"):
            digests = islice(self._client.hscan_iter(keys.DIGESTS, count=_BATCH), MAX_LOOKED_FOR)
            blobs = [check_digest(name.decode()) for name, _ in digests]
            files = islice(self._client.hscan_iter(keys.FILES, count=_BATCH), MAX_LOOKED_FOR)
            return blobs, [name.decode() for name, _ in files]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".owner.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _use(self, registry: str) -> None:
        users = self._folder / ".users"
        users.mkdir(exist_ok=True)
        descriptor = os.open(users / registry, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._in_use.append(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def _check_unused(self, own: str | None) -> None:
        for path in (self._folder / ".users").glob("*"):
            if path.name == own:
                continue
            with path.open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    which = "another" if own else "the"
                    raise ForeignStore(
                        f"programs of {which} registry {path.name[:8]}… have the store "
                        f"{self._folder} open; stop them first"
                    ) from error

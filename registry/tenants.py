"""Which tenant has which files, jobs and batches, and how they are handed over."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from registry.errors import InvalidArgument
from registry.redis import keys
from registry.redis.scripts import Observer, Scripts

_BATCH = 500
#: (hash, field) of a record that names its tenant.
Place = tuple[str, str]


@dataclass(frozen=True)
class Holdings:
    """How much a tenant has; the empty name is the tenant of a server without keys."""

    tenant: str
    num_files: int
    num_jobs: int
    num_batches: int = 0


class Tenants:
    """The tenants of a registry that have files, jobs or batches; safe to use from many threads.

    Args:
        client: answers bytes and has socket timeouts.
        observer: called after every exchange.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._client = client
        self._scripts = Scripts(client, observer)

    def all(self) -> list[Holdings]:
        """Return every tenant that has a file, a job or a batch, by name.

        Raises:
            RegistryUnavailable: the registry does not answer.
        """
        with self._scripts.asking("tenants"):
            found = {name for prefix in _PLACES for name in self._names(prefix)}
            return [self._holdings(tenant) for tenant in sorted(found)]

    def rename(self, old: str, new: str) -> list[Holdings]:
        """Hand all that is a tenant's to another one, and what its gateway's callers have.

        Each is handed over by itself, and twice is harmless: what an interrupted call left behind
        the next one takes. What the new tenant has already stays its own.

        Args:
            old: the tenant; its gateway's callers are `old/...`.
            new: a name without a '/'.

        Returns:
            what was handed over, by its old tenant.

        Raises:
            InvalidArgument: the names are the same, or the new one is empty or has a '/'.
            RegistryUnavailable: the registry does not answer; what was handed over stays so.
        """
        if not new or "/" in new or old == new:
            raise InvalidArgument(f"{new!r} is no new name for the tenant {old!r}")
        mine = [held for held in self.all() if _is_of(held.tenant, old)]
        return [self._hand_over(held.tenant, new + held.tenant[len(old) :]) for held in mine]

    def _hand_over(self, old: str, new: str) -> Holdings:
        counts = []
        for index, place in _PLACES.items():
            ids = self._ids(index + old)
            counts.append(sum(self._move(place(id_), id_, index, (old, new)) for id_ in ids))
        return Holdings(old, *counts)

    def _move(self, place: Place, id_: str, index: str, names: tuple[str, str]) -> bool:
        """Write a record under its new tenant, if it is still there as it was read."""
        hash_, field = place
        with self._scripts.asking("tenant"):
            stored: Any = self._client.hget(hash_, field)
        body = "" if stored is None else _of(names[1], stored)
        touched = [hash_, *(index + name for name in names)]
        return bool(self._scripts.run("tenant_move", touched, [field, stored or b"", body, id_]))

    def _ids(self, index: str) -> list[str]:
        with self._scripts.asking("tenant"):
            found: Any = self._client.zrange(index, 0, -1)
        return [id_.decode() for id_ in found]

    def _names(self, prefix: str) -> Iterator[str]:
        for key in self._client.scan_iter(prefix + "*", count=_BATCH):
            yield key.decode().removeprefix(prefix)

    def _holdings(self, tenant: str) -> Holdings:
        counts: list[Any] = [self._client.zcard(prefix + tenant) for prefix in _PLACES]
        return Holdings(tenant, *map(int, counts))


def _file(id_: str) -> Place:
    return keys.FILES, id_


def _job(id_: str) -> Place:
    return keys.job(id_), "spec"


def _batch(id_: str) -> Place:
    return keys.batch(id_), "spec"


#: Prefix of the index of a tenant's things -> where the record of one is; as `Holdings` counts.
_PLACES: Mapping[str, Callable[[str], Place]] = {
    keys.FILES_OF: _file,
    keys.JOBS_OF: _job,
    keys.BATCHES_OF: _batch,
}


def _of(tenant: str, stored: bytes) -> str:
    """Return a file's record, or a job's or batch's spec, as this tenant's; all else stays."""
    given = json.loads(stored) | {"created_by": tenant}
    return json.dumps(given, sort_keys=True, separators=(",", ":"))


def _is_of(tenant: str, whole: str) -> bool:
    return tenant == whole or tenant.startswith(f"{whole}/")

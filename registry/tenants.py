"""Which tenant has which keys, adapters, files, jobs and batches, and how they are handed over."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from registry.access.api_keys import ApiKeys
from registry.adapters.adapters import Adapters
from registry.adapters.sharing import Sharing
from registry.common.spaces import in_space, plain, space_of
from registry.errors import InvalidArgument, NameConflict
from registry.quotas.tenant_limits import TenantLimits
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
    num_adapters: int = 0
    num_keys: int = 0


class Tenants:
    """The tenants of a registry that have anything; safe to use from many threads.

    Args:
        client: answers bytes and has socket timeouts.
        observer: called after every exchange.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._client = client
        self._adapters = Adapters(client, observer)
        self._api_keys = ApiKeys(client, observer)
        self._limits = TenantLimits(client, observer)
        self._scripts = Scripts(client, observer)

    def all(self) -> list[Holdings]:
        """Return every tenant that has a key, an adapter, a file, a job or a batch, by name.

        Raises:
            RegistryUnavailable: the registry does not answer.
        """
        with self._scripts.asking("tenants"):
            found = {name for prefix in _INDEXES for name in self._names(prefix)}
            found |= {""} if self._client.exists(keys.NAMES) else set()
            return [self._holdings(tenant) for tenant in sorted(found)]

    def rename(self, old: str, new: str) -> list[Holdings]:
        """Hand all that is a tenant's to another one, and what its gateway's callers have.

        Its keys last, so that their callers find what they had; limits of its own go along unless
        the new tenant has some.
        Each is handed over by itself, and twice is harmless: what an interrupted call left behind
        the next one takes. What the new tenant has already stays its own. The operators' adapters,
        which all tenants use, stay where they are.

        Args:
            old: the tenant; its gateway's callers are `old/...`.
            new: a name without a '/'.

        Returns:
            what was handed over, by its old tenant.

        Raises:
            InvalidArgument: the names are the same, or the new one is empty or has a '/'.
            NameConflict: both have an adapter of one name; nothing was handed over.
            RegistryUnavailable: the registry does not answer; what was handed over stays so.
        """
        if not new or "/" in new or old == new:
            raise InvalidArgument(f"{new!r} is no new name for the tenant {old!r}")
        mine = {old} | {held.tenant for held in self.all() if _is_of(held.tenant, old)}
        pairs = [(each, new + each[len(old) :]) for each in sorted(mine)]
        for pair in pairs:
            self._check_names(*pair)
        moved = [self._hand_over(*pair) for pair in pairs]
        return [held for held in moved if held != Holdings(held.tenant, 0, 0)]

    def _check_names(self, old: str, new: str) -> None:
        """Refuse to hand over adapters under names that are there already."""
        for name in self._adapter_names(old):
            if self._adapters.has(in_space(new, plain(name))):
                raise NameConflict(
                    f"{old!r} and {new!r} both have an adapter {plain(name)!r}: delete one of them "
                    "first; nothing was handed over"
                )

    def _hand_over(self, old: str, new: str) -> Holdings:
        counts = []
        for index, place in _PLACES.items():
            ids = self._ids(index + old)
            counts.append(sum(self._move(place(id_), id_, index, (old, new)) for id_ in ids))
        counts.append(sum(self._move_adapter(name, new) for name in self._adapter_names(old)))
        self._move_grants(old, new)
        if old:
            self._limits.hand_over(old, new)
            counts.append(self._api_keys.hand_over(old, new))
        return Holdings(old, *counts)

    def _adapter_names(self, space: str) -> list[str]:
        """Return a tenant's adapters; none for the operators', which are not handed over."""
        return self._ids(keys.names(space)) if space else []

    def _move_adapter(self, old: str, space: str) -> bool:
        """Give an adapter to another tenant; nothing is done if it is gone, or there already."""
        new = in_space(space, plain(old))
        touched = [*keys.adapter(old), *keys.adapter(new)]
        touched += [keys.names(space_of(old)), keys.names(space)]
        touched += [keys.COUNTERS, keys.CHANGES, keys.SEQUENCE, keys.SHARING]
        methods = [keys.method_names(space_of(old)), keys.method_names(space)]
        facts = [old, new, str(keys.MAX_CHANGES), *methods, keys.SHARED_WITH]
        return bool(self._scripts.run("adapter_move", touched, facts)[0] == b"moved")

    def _move_grants(self, old: str, new: str) -> None:
        """Let the new tenant use what others share with the old one."""
        if not old:
            return
        for name in self._ids(keys.SHARED_WITH + old):
            before = self._adapters.sharing(name)
            tenants = [new if tenant == old else tenant for tenant in before.tenants]
            self._adapters.share(name, Sharing.of(before.everyone, tenants))

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
        indexes = [*(prefix + tenant for prefix in _PLACES), keys.names(tenant)]
        indexes.append(keys.API_KEYS_OF + tenant)
        counts: list[Any] = [self._client.zcard(index) for index in indexes]
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


#: The same of all that a tenant has.
_INDEXES = (*_PLACES, keys.NAMES_OF, keys.API_KEYS_OF)


def _of(tenant: str, stored: bytes) -> str:
    """Return a file's record, or a job's or batch's spec, as this tenant's; all else stays.

    A job's or batch's space of names is its tenant's, or the operators'.
    """
    given = json.loads(stored)
    changes = {"created_by": tenant} | ({"space": tenant} if given.get("space") else {})
    return json.dumps(given | changes, sort_keys=True, separators=(",", ":"))


def _is_of(tenant: str, whole: str) -> bool:
    return tenant == whole or tenant.startswith(f"{whole}/")

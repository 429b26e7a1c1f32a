"""The API keys of a registry: made, listed, rotated, revoked, each by one transaction.

A change is announced in the registry's stream, so that every server's mirror (mirror.py) hears of
it. Tenants' shares, grants and quotas, if there are some, have their place beside this module.
"""

from collections.abc import Iterable
from typing import Any

import redis

from registry.access.record import (
    MAX_GRACE_S,
    KeyRecord,
    NewKey,
    check_key_id,
)
from registry.access.secret import Secret, new_id
from registry.errors import InvalidArgument, KeyConflict, KeyNotFound
from registry.redis import hashes, keys
from registry.redis.scripts import Observer, Scripts

#: With those that have ended within `KEPT_ENDED_KEY_S`.
MAX_KEYS = 100_000
_NEWS = [keys.CHANGES, keys.SEQUENCE]
Records = list[KeyRecord]  # `list` is a method's name inside the class


class ApiKeys:
    """The keys behind one Redis client; safe to use from many threads.

    Every method raises `RegistryUnavailable` when the server does not answer, and `KeyNotFound`
    when there is no such key.

    Args:
        client: answers bytes and has socket timeouts.
        observer: called after every exchange: operation, seconds, and whether the server answered.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._client = client
        self._scripts = Scripts(client, observer)

    def create(
        self, new: NewKey, *, now: float, only_as_first: bool = False
    ) -> tuple[KeyRecord, Secret]:
        """Make a key; its secret is told here and never again.

        Args:
            new: what it is for.
            now: seconds since 1970.
            only_as_first: not if the registry has, or ever had, another one.

        Raises:
            KeyConflict: there are as many keys as there may be, or it is not the first.
        """
        id_ = new_id()
        secret = Secret.new(id_)
        expires_at = "" if new.expires_in_s is None else repr(now + new.expires_in_s)
        touched = [
            *(keys.api_key(id_), keys.API_KEYS, keys.API_KEYS_OF + new.tenant),
            *(keys.API_KEYS_ENDED, keys.IDENTITY, *_NEWS),
        ]
        args: list[str | int] = [id_, keys.MAX_CHANGES, MAX_KEYS, repr(now), expires_at]
        args += [repr(now - keys.KEPT_ENDED_KEY_S), str(int(only_as_first))]
        args += [keys.API_KEY, keys.API_KEYS_OF, *_fields(new, secret, now, expires_at)]
        state, *found = self._scripts.run("key_create", touched, args)
        if state == b"not_first":
            raise KeyConflict("the registry has API keys already: use one with the scope admin")
        if state == b"full":
            raise KeyConflict(
                f"the registry has {MAX_KEYS} API keys, with those that ended within the last "
                f"{keys.KEPT_ENDED_KEY_S // 86_400} days, and can have no more"
            )
        return _record(id_, found[0]), secret

    def rotate(self, id_: str, *, now: float, grace_s: float = 0.0) -> tuple[KeyRecord, Secret]:
        """Give a key a new secret, valid at once; it is told here and never again.

        Args:
            id_: the key's.
            now: seconds since 1970.
            grace_s: how long the secret so far is valid, too; one from before that is not.

        Raises:
            KeyConflict: it is revoked, or has expired.
            InvalidArgument: the grace is out of range.
        """
        if not 0 <= grace_s <= MAX_GRACE_S:
            raise InvalidArgument(f"grace_s = {grace_s:g}: 0 to {MAX_GRACE_S} seconds")
        secret = Secret.new(check_key_id(id_))
        until = repr(now + grace_s) if grace_s else ""
        args: list[str | int] = [
            id_,
            keys.MAX_CHANGES,
            repr(now),
            secret.digest,
            secret.shown,
            until,
        ]
        state, *found = self._scripts.run("key_rotate", [keys.api_key(id_), *_NEWS], args)
        if state == b"missing":
            raise KeyNotFound(f"no API key {id_!r}")
        if state != b"rotated":
            raise KeyConflict(f"the API key {id_!r} is {state.decode()}; make a new one")
        return _record(id_, found[0]), secret

    def revoke(self, id_: str, *, now: float) -> KeyRecord:
        """End a key for good; a second time nothing changes."""
        touched = [keys.api_key(check_key_id(id_)), keys.API_KEYS_ENDED, *_NEWS]
        state, *found = self._scripts.run("key_revoke", touched, [id_, keys.MAX_CHANGES, repr(now)])
        if state == b"missing":
            raise KeyNotFound(f"no API key {id_!r}")
        return _record(id_, found[0])

    def hand_over(self, old: str, new: str) -> int:
        """Give all keys of a tenant to another one, with their secrets; return how many."""
        indexes = [keys.API_KEYS_OF + old, keys.API_KEYS_OF + new]
        with self._scripts.asking("keys"):
            found: Any = self._client.zrange(indexes[0], 0, -1)
        given = 0
        for id_ in [each.decode() for each in found]:
            touched = [keys.api_key(id_), *indexes, *_NEWS]
            given += self._scripts.run("key_move", touched, [id_, keys.MAX_CHANGES, old, new])
        return given

    def get(self, id_: str) -> KeyRecord:
        """Return a key as it stands."""
        with self._scripts.asking("key"):
            stored: Any = self._client.hgetall(keys.api_key(check_key_id(id_)))
        if not stored:
            raise KeyNotFound(f"no API key {id_!r}")
        return KeyRecord.read(id_, stored)

    def next_expiry(self, now: float) -> float | None:
        """Return when the next key expires, in seconds since 1970; None if none of them will."""
        with self._scripts.asking("key_expiry"):
            found: Any = self._client.zrange(
                keys.API_KEYS_ENDED,
                f"({now!r}",
                "+inf",
                byscore=True,
                offset=0,
                num=1,
                withscores=True,
            )
        return float(found[0][1]) if found else None

    def list(self, limit: int, after: str | None = None, tenant: str | None = None) -> Records:
        """Return up to `limit` keys, the newest first, with those that have ended.

        Args:
            limit: 1 to `MAX_PAGE`. Fewer than this means that there are no more.
            after: the last key of the page before.
            tenant: only this tenant's keys.

        Raises:
            KeyNotFound: `after` is no key of this list.
            InvalidArgument: the limit is out of range.
        """
        index = keys.API_KEYS if tenant is None else keys.API_KEYS_OF + tenant
        place = check_key_id(after) if after else ""
        found = hashes.page(self._scripts, index, limit, place, keys.API_KEY)
        if found is None:
            raise KeyNotFound(f"no API key {after!r} to list what comes after")
        return [KeyRecord.read(*each) for each in found]

    def several(self, ids: Iterable[str]) -> Records:
        """Return the keys of these ids, without those that are gone."""
        found = hashes.several(self._client, self._scripts, "keys", keys.API_KEY, ids)
        return [KeyRecord.read(*each) for each in found]

    def has_any(self) -> bool:
        """Return whether the registry has or ever had a key: requests need one from then on."""
        with self._scripts.asking("has_keys"):
            return bool(self._client.hexists(keys.IDENTITY, "has_keys"))


def _fields(new: NewKey, secret: Secret, now: float, expires_at: str) -> list[str]:
    """Return a new key's record as field, value, field, value..."""
    given = {
        "tenant": new.tenant,
        "scopes": ",".join(new.scopes),
        "label": new.label,
        "created_at": repr(now),
        "shown": secret.shown,
        "digest": secret.digest,
    }
    given |= {"expires_at": expires_at} if expires_at else {}
    return [word for pair in given.items() for word in pair]


def _record(id_: str, pairs: Any) -> KeyRecord:
    return KeyRecord.read(id_, hashes.fields_of(pairs))

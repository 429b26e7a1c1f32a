"""The names, versions and aliases of adapters, one Lua script per transaction.

Every server and worker has one `Adapters`; all shared state is in Redis.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from registry.adapters.records import NewVersion, Record
from registry.adapters.sharing import Sharing
from registry.common.names import (
    Reference,
    check_alias,
    check_digest,
    check_method,
    check_prefix,
)
from registry.common.pages import check_limit
from registry.common.spaces import OPERATORS, check_stored, in_space, plain, space_of
from registry.errors import (
    AdapterInUse,
    AdapterNotFound,
    FenceLost,
    NameConflict,
    PreconditionFailed,
)
from registry.redis import keys
from registry.redis.scripts import Observer, Scripts

Records = list[Record]  # `list` is a method's name inside the class
Entries = list["AdapterEntry"]
Digests = list[str]


@dataclass(frozen=True)
class AdapterEntry:
    """One name as it stands.

    Args:
        name: the adapter's name.
        latest: the record that the bare name means.
        aliases: alias -> version, `latest` among them.
        etags: alias -> the value that `move_alias` takes as `if_match`.
        sharing: the tenants that may use it beside its own.
    """

    name: str
    latest: Record
    aliases: dict[str, int]
    etags: dict[str, str]
    sharing: Sharing = Sharing()


class Adapters:
    """The registry's records behind one Redis client; safe to use from many threads.

    Names are given as they are stored (common/spaces.py), and named in errors without their space.
    Every method raises `RegistryUnavailable` when the server does not answer; the next call tries
    afresh.

    Args:
        client: answers bytes (`decode_responses=False`) and has socket timeouts.
        observer: called after every exchange: operation, seconds, and whether the server answered.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        client: redis.Redis,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._client = client
        self._scripts = Scripts(client, observer, clock)

    def publish(self, new: NewVersion) -> tuple[Record, bool]:
        """Return the name's record of these bytes, and whether it is new.

        Twice is harmless: the same digest gives the same version, and does not undo a rollback.
        The alias, if one is given, points to the version afterwards in both cases. With a training
        job's fence the job has one version, whatever bytes it comes with a second time. With
        `keeps_latest` the new version is there by its number, and `latest` stays where it is; the
        first version of a name is its latest in any case.

        Raises:
            FenceLost: the job does not run, or under another claim.
            QuotaExceeded: the tenant would have more than it may.
        """
        facts = [new.description.digest, new.description.method, new.stored, new.alias or ""]
        held = [] if new.fence is None else [keys.job(new.fence.job)]
        facts += ["" if new.fence is None else str(new.fence.number)]
        facts += ["1" if new.keeps_latest else ""]
        size_bytes = new.description.size_bytes
        facts += [keys.records(""), str(size_bytes), *new.limits.words("adapters", "adapter_bytes")]
        version, *rest = self._write("publish", new.name, *facts, also=held)
        if version == b"fenced":
            raise FenceLost(f"the job is {rest[0].decode()}, or another attempt holds it now")
        if version == b"full":
            name, used = rest[0].decode(), int(rest[1])
            raise new.limits.exceeded(name, used, 1 if name == "adapters" else size_bytes)
        return _record(new.name, version, rest[1]), bool(rest[0])

    def resolve(self, reference: str | Reference) -> Record:
        """Return the record that `reference` means now; a text is one of the operators' space.

        Raises:
            AdapterNotFound: it means nothing.
        """
        wanted = reference if isinstance(reference, Reference) else Reference.parse(reference)
        reply = self._scripts.run("resolve", keys.adapter(wanted.name), [wanted.kind, wanted.value])
        if not reply:
            raise AdapterNotFound(f"no adapter {str(reference)!r}")
        return _record(wanted.name, *reply)

    def get(self, name: str) -> AdapterEntry:
        """Return the name's latest record and all its aliases, read at one moment.

        Raises:
            AdapterNotFound: no such name.
        """
        touched = [*keys.adapter(check_stored(name)), keys.SHARING]
        reply = self._scripts.run("entry", touched, [name])
        if not reply:
            raise _missing(name)
        return _entry(name, *reply)

    def versions(self, name: str, limit: int | None = None, after: int = 0) -> Records:
        """Return the name's live versions, oldest first.

        Args:
            name: the adapter's name.
            limit: 1 to `MAX_PAGE`. Fewer than this means that there are no more. None: all.
            after: only versions with a greater number.

        Raises:
            AdapterNotFound: no such name.
            InvalidArgument: the limit is out of range.
        """
        most = -1 if limit is None else check_limit(limit)
        reply = self._scripts.run("versions", keys.adapter(check_stored(name)), [after, most])
        if not reply:
            raise _missing(name)
        return [_record(name, *reply[i : i + 2]) for i in range(1, len(reply), 2)]

    def list(
        self,
        limit: int,
        after: str | None = None,
        method: str | None = None,
        prefix: str | None = None,
        space: str = OPERATORS,
    ) -> Entries:
        """Return up to `limit` names of a space as they stand, in their byte order.

        Args:
            limit: 1 to `MAX_PAGE`. Fewer than this means that there are no more.
            after: the last name of the page before, without its space; it need not exist any more,
                and may be a name with an owner, behind which names of the space go on.
            method: only names whose latest version has this method.
            prefix: only names that begin so.
            space: of the names.

        Raises:
            InvalidArgument: the limit is out of range, or another value cannot be a name.
        """
        index = keys.names(space)
        if method is not None:
            index = keys.method_names(space) + check_method(method)
        bounds = _bounds(
            after and in_space(space, check_stored(after)),
            in_space(space, check_prefix(prefix) if prefix else ""),
        )
        return self._page(index, bounds, limit)

    def list_shared(
        self, tenant: str, limit: int, after: str | None = None, prefix: str | None = None
    ) -> Entries:
        """Return up to `limit` names that are shared with a tenant, in their byte order.

        Args:
            tenant: with which; `EVERYONE` for those shared with all.
            limit: 1 to `MAX_PAGE`. Fewer than this means that there are no more.
            after: only names behind this one, as it is stored.
            prefix: only stored names that begin so.
        """
        return self._page(keys.SHARED_WITH + tenant, _bounds(after, prefix), limit)

    def has(self, name: str) -> bool:
        """Return whether there is such a name."""
        with self._scripts.asking("has"):
            return bool(self._client.exists(keys.records(name)))

    def sharing(self, name: str) -> Sharing:
        """Return with which tenants a name is shared: with none where there is none."""
        with self._scripts.asking("sharing"):
            stored: Any = self._client.hget(keys.SHARING, name)
        return Sharing.read(stored)

    def share(self, name: str, sharing: Sharing) -> None:
        """Share a name with these tenants, and with no others any more. Twice is harmless.

        Raises:
            AdapterNotFound: no such name.
        """
        facts = [keys.SHARED_WITH, sharing.stored, *sharing.words]
        (state,) = self._write("share", name, *facts, also=[keys.SHARING])
        if state == b"missing":
            raise _missing(name)

    def move_alias(self, name: str, alias: str, version: int, if_match: str | None) -> str:
        """Point `alias` to `version` and return its new ETag.

        Args:
            name: the adapter's name.
            alias: made if it is not there, unless `if_match` asks for one.
            version: a live version.
            if_match: an `If-Match` header's value: ETags, or `*` for any; None: no condition.

        Raises:
            AdapterNotFound: no such name or version.
            PreconditionFailed: the alias is elsewhere, or not there.
            InvalidName: the alias breaks its rule.
        """
        check_alias(alias)
        expected = [] if if_match is None else [tag.strip(' "') for tag in if_match.split(",")]
        state, *rest = self._write("move_alias", name, alias, version, *expected)
        if state == b"missing":
            raise _missing(name, version)
        if state == b"stale":
            at = f"points to version {int(rest[0])}" if rest[0] else "does not exist"
            raise PreconditionFailed(
                f"alias {alias!r} of {plain(name)!r} {at}; read it and try again"
            )
        return _etag(version)

    def rollback(self, name: str) -> Record:
        """Point `latest` to the live version before its present one, and return that.

        The next publish moves `latest` forward again. Other aliases stay.

        Raises:
            AdapterNotFound: no such name.
            NameConflict: there is no earlier version.
        """
        state, *rest = self._write("rollback", name)
        if state == b"missing":
            raise _missing(name)
        if state == b"first":
            raise NameConflict(
                f"{plain(name)!r} has no version before {int(rest[0])} to roll back to"
            )
        return _record(name, *rest)

    def delete(self, name: str, version: int | None = None) -> Digests:
        """Delete one version, or the name with all of them; return digests that no record names.

        `latest` falls back to the version before the deleted one. Numbers are not given again.

        Raises:
            AdapterNotFound: no such name or version.
            AdapterInUse: another alias than `latest` points to this version.
        """
        which = "" if version is None else str(version)
        state, *rest = self._write("delete", name, which, keys.SHARED_WITH, also=[keys.SHARING])
        if state == b"missing":
            raise _missing(name, version)
        found = [each.decode() for each in rest]
        if state == b"in_use":
            raise AdapterInUse(
                f"alias {', '.join(sorted(found))} points to '{plain(name)}@{which}'; move it first"
            )
        return found

    def digest_is_live(self, digest: str) -> bool:
        """True while any record of any name refers to `digest`."""
        return bool(self._scripts.run("digest_is_live", [keys.DIGESTS], [check_digest(digest)]))

    def _write(self, op: str, name: str, *args: str | int, also: Sequence[str] = ()) -> Any:
        """Run a writing script: all take the same keys and begin with the same arguments."""
        space = space_of(check_stored(name))
        touched = [*keys.adapter(name), *keys.common(space), *also]
        facts = [name, keys.MAX_CHANGES, keys.method_names(space), *args]
        return self._scripts.run(op, touched, facts)

    def _page(self, index: str, bounds: tuple[bytes, bytes], limit: int) -> Entries:
        """Return the names of an index as they stand."""
        check_limit(limit)
        prefixes = [keys.records(""), keys.aliases("")]
        reply = self._scripts.run("page", [index, keys.SHARING], [*bounds, limit, *prefixes])
        rows = [reply[i : i + 5] for i in range(0, len(reply), 5)]
        return [
            _entry(name.decode(), version, body, sharing, *pairs)
            for name, version, body, sharing, pairs in rows
        ]


def _missing(name: str, version: int | None = None) -> AdapterNotFound:
    shown = plain(name) if version is None else f"{plain(name)}@{version}"
    return AdapterNotFound(f"no adapter {shown!r}")


def _etag(version: int) -> str:
    return f'"{version}"'


def _entry(name: str, version: bytes, stored: bytes, sharing: bytes, *pairs: bytes) -> AdapterEntry:
    aliases = {pairs[i].decode(): int(pairs[i + 1]) for i in range(0, len(pairs), 2)}
    etags = {alias: _etag(at) for alias, at in aliases.items()}
    record = _record(name, version, stored)
    return AdapterEntry(name, record, aliases, etags, Sharing.read(sharing))


def _record(name: str, version: bytes, stored: bytes) -> Record:
    return Record.read(stored, name, int(version))


def _bounds(after: str | None, prefix: str | None) -> tuple[bytes, bytes]:
    """Return the lexical range of the names behind `after` that begin with `prefix`."""
    begins = (prefix or "").encode()
    behind = (after or "").encode()
    lower = b"(" + behind if behind >= begins else b"[" + begins
    return lower, b"[" + begins + b"\xff"

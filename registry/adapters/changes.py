"""The stream of the registry's changes, in order, which every server follows.

The stream is trimmed and the records alone are complete: a reader that missed entries reads the
records again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import redis

from registry.errors import CorruptRecord
from registry.redis import keys
from registry.redis.hashes import fields_of

MAX_BATCH = 500


@dataclass(frozen=True)
class Change:
    """One entry of the stream.

    Args:
        id: the entry's place in the stream; following goes on after it.
        sequence: counts the changes without gaps, so a jump tells that some were missed.
        kind: `published`, `aliased`, `rolled_back`, `shared`, `renamed` or `deleted`; `api_key` for
            a key, `limits` for a tenant's.
        name: of the adapter as it is stored, of the tenant, or the key's id; what a mirror knows of
            it is outdated.
        version: the version that was made, pointed to or deleted; 0 for all else.
        digest: that version's digest; empty for all else.
    """

    id: str
    sequence: int
    kind: str
    name: str
    version: int
    digest: str

    @classmethod
    def from_entry(cls, id_: bytes, entry: dict[bytes, bytes]) -> Self:
        """Read one stream entry.

        Raises:
            CorruptRecord: a field is missing or not what this program writes.
        """
        try:
            text = {key.decode(): value.decode() for key, value in entry.items()}
            return cls(
                id=id_.decode(),
                sequence=int(text["sequence"]),
                kind=text["kind"],
                name=text["name"],
                version=int(text["version"]),
                digest=text["digest"],
            )
        except (KeyError, ValueError) as error:
            raise CorruptRecord(f"{keys.CHANGES} entry {id_!r} is not a change") from error


@dataclass(frozen=True)
class Position:
    """Where a reader stands.

    Args:
        id: the last change it knows of; `0-0` for none.
        sequence: that change's number.
        registry: the id of the registry whose changes these are; empty if it has none yet.
    """

    id: str
    sequence: int
    registry: str = ""

    def after(self, change: Change) -> "Position":
        """Return where the reader stands after a change of the same registry."""
        return replace(self, id=change.id, sequence=change.sequence)

    def may_lead_to(self, later: "Position") -> bool:
        """Return whether changes can have led from here to `later`.

        If not, other data are there now: of another registry, of none, or of an older backup.
        """
        if later.registry != self.registry:
            return False
        is_later = later.sequence > self.sequence and _place(later.id) > _place(self.id)
        return is_later or later == self


def newest(client: redis.Redis) -> Position:
    """Return the stream's end, from which `follow` gives everything that comes later."""
    with client.pipeline(transaction=True) as both:
        both.hget(keys.IDENTITY, "id")
        both.xrevrange(keys.CHANGES, count=1)
        id_, entries = both.execute()
    registry = "" if id_ is None else id_.decode()
    if not entries:
        return Position("0-0", 0, registry)
    place, fields = entries[0]
    if not isinstance(fields, dict):  # a cluster's transaction answers as the server does
        fields = fields_of(fields)
    return Position("0-0", 0, registry).after(Change.from_entry(place, fields))


def _place(id_: str) -> tuple[int, int]:
    milliseconds, _, number = id_.partition("-")
    return int(milliseconds), int(number)


def read_after(client: redis.Redis, id_: str, block_ms: int) -> list[Change]:
    """Return the changes after `id_`, waiting up to `block_ms` for the first.

    Args:
        client: its socket timeout must be longer than `block_ms`.
        id_: a change's id; `0-0` for the oldest that is kept.
        block_ms: above 0; the answer is empty when nothing happened meanwhile.
    """
    reply: Any = client.xread({keys.CHANGES: id_}, count=MAX_BATCH, block=block_ms)
    return [Change.from_entry(*entry) for _, entries in reply or () for entry in entries]


def follow(client: redis.Redis, after_id: str, block_ms: int) -> Iterator[Change | None]:
    """Yield every change after `after_id`, for ever; None each time `block_ms` pass in silence."""
    while True:
        changes = read_after(client, after_id, block_ms)
        yield from changes or (None,)
        if changes:
            after_id = changes[-1].id

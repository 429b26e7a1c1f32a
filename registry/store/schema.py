"""The schema of the registry's keys: a number in its identity, and the way up from older ones.

    0  versions before there was a number; keys as in 1
    1  the number itself
    2  adapters of tenants, and jobs that make them: an earlier program would give them to all

A program upgrades what earlier programs wrote, and refuses what a later one wrote: it does not know
what it must keep there.
"""

from collections.abc import Callable, Mapping

import redis

from registry.errors import CorruptRecord, SchemaTooNew
from registry.redis import keys

FIELD = "schema"
CURRENT = 2
#: Schema -> what brings a registry's keys to the next one; it may run twice.
_STEPS: Mapping[int, Callable[[redis.Redis], None]] = {}


def of(identity: Mapping[str, bytes]) -> int:
    """Return the schema that a registry's identity tells.

    Raises:
        CorruptRecord: it is no number.
    """
    stored = identity.get(FIELD, b"0")
    if not stored.isdigit():
        raise CorruptRecord(f"{keys.IDENTITY} field {FIELD} is not a number: {stored!r}")
    return int(stored)


def check(found: int) -> None:
    """Make sure that this program may use a registry.

    Raises:
        SchemaTooNew: a later program wrote it.
    """
    if found > CURRENT:
        raise SchemaTooNew(
            f"the registry was written by a later version of this program: its schema is {found}, "
            f"and this version knows {CURRENT} at most. Nothing was changed. Install that version, "
            "or restore a backup from before the upgrade"
        )


def upgrade(client: redis.Redis, found: int) -> None:
    """Bring a registry from an older schema to this program's, one after the other.

    A crash in between is made good by the next start, which begins at the last number.
    """
    for number in range(found, CURRENT):
        if number in _STEPS:
            _STEPS[number](client)
        client.hset(keys.IDENTITY, FIELD, number + 1)

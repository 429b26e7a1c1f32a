"""Every Redis key of the registry, and how long it lives.

All keys carry the same hash tag, so that a cluster keeps them in one slot and one script may touch
them together. Per name: a few small keys; over all names: indexes with one short entry a name.
"""

PREFIX = "overtone:{registry}:"

# While the name has a live version.
NAMES = PREFIX + "names"  # ZSET, all scores 0: the names in lexical order
METHOD_NAMES = PREFIX + "method:"  # + method, ZSET: the names whose latest version has this method

# While a record refers to the digest.
DIGESTS = PREFIX + "digests"  # HASH: digest -> number of records, over all names

# For ever: a version number is never given twice, not even after its name was deleted.
COUNTERS = PREFIX + "counters"  # HASH: name -> highest version ever given

# For ever, trimmed to about MAX_CHANGES entries.
CHANGES = PREFIX + "changes"  # STREAM: what changed, for the servers' mirrors
SEQUENCE = PREFIX + "sequence"  # STRING: number of changes so far, so that a reader sees a gap
MAX_CHANGES = 10_000


def records(name: str) -> str:
    """HASH version -> record as JSON. Lives as long as the name has a version."""
    return f"{PREFIX}records:{name}"


def versions(name: str) -> str:
    """ZSET of the live versions, scored by themselves. Lives as long as the name."""
    return f"{PREFIX}versions:{name}"


def by_digest(name: str) -> str:
    """HASH digest -> version, among the live versions. Lives as long as the name."""
    return f"{PREFIX}by-digest:{name}"


def aliases(name: str) -> str:
    """HASH alias -> version, with `latest` among them. Lives as long as the name."""
    return f"{PREFIX}aliases:{name}"


def adapter(name: str) -> list[str]:
    """Return one name's keys in the order in which every script takes them first."""
    return [records(name), versions(name), by_digest(name), aliases(name)]


def shared() -> list[str]:
    """Return the keys of all names in the order in which writing scripts take them next."""
    return [NAMES, DIGESTS, COUNTERS, CHANGES, SEQUENCE]

"""Hashes, and sorted sets of their ids by creation: how jobs, batches and files are listed."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import redis

from registry.common.pages import check_limit
from registry.redis.scripts import Scripts

_AT_ONCE = 200


def fields_of(pairs: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return a hash that a script gave as field, value, field, value..."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def page(
    scripts: Scripts, index: str, limit: int, after: str = "", prefix: str = ""
) -> list[tuple[str, dict[bytes, bytes]]] | None:
    """Return up to `limit` ids of an index with their hashes, the newest first.

    Args:
        scripts: that run.
        index: a sorted set of ids.
        limit: 1 to `MAX_PAGE`.
        after: the last id of the page before; empty for the first page.
        prefix: of the hashes' keys; empty for ids alone.

    Returns:
        the page; None where `after` is not in the index.

    Raises:
        InvalidArgument: the limit is out of range.
    """
    reply = scripts.run("job_page", [index], [prefix, after, check_limit(limit)])
    if reply == [b"missing"]:
        return None
    rows = zip(reply[::2], reply[1::2], strict=True)
    return [(id_.decode(), fields_of(pairs)) for id_, pairs in rows]


def several(
    client: redis.Redis, scripts: Scripts, op: str, prefix: str, ids: Iterable[str]
) -> Iterator[tuple[str, dict[bytes, bytes]]]:
    """Yield any number of ids with their hashes, in the order given, without those that are gone.

    Args:
        client: that is asked.
        scripts: that observe it.
        op: its name for them.
        prefix: of the hashes' keys.
        ids: of the hashes.
    """
    wanted = [*ids]
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        with scripts.asking(op), client.pipeline(transaction=False) as pipe:
            for id_ in some:
                pipe.hgetall(prefix + id_)
            stored: list[Any] = pipe.execute()
        yield from ((id_, fields) for id_, fields in zip(some, stored, strict=True) if fields)


def sizes(client: redis.Redis, scripts: Scripts, op: str, indexes: Iterable[str]) -> list[int]:
    """Return how many ids each index has."""
    with scripts.asking(op), client.pipeline(transaction=False) as pipe:
        for index in indexes:
            pipe.zcard(index)
        return [int(count) for count in pipe.execute()]

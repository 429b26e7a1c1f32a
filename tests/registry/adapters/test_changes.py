"""Every change is in the stream once, in order."""

import pytest

from registry.adapters import changes
from registry.errors import CorruptRecord
from registry.redis import keys


def kinds(found):
    return [(change.kind, change.name, change.version) for change in found]


def test_each_change_is_told_once_in_order(client, adapters, put):
    put(1)
    start = changes.newest(client)
    put(1)  # changes nothing, and is not told
    put(2, alias="prod")
    put(2, alias="prod")
    adapters.move_alias("poet", "prod", 1, None)
    adapters.move_alias("poet", "prod", 1, None)
    adapters.rollback("poet")
    adapters.delete("poet", 2)
    adapters.delete("poet")

    found = changes.read_after(client, start.id, block_ms=100)

    assert kinds(found) == [
        ("published", "poet", 2),
        ("aliased", "poet", 2),
        ("aliased", "poet", 1),
        ("rolled_back", "poet", 1),
        ("deleted", "poet", 2),
        ("deleted", "poet", 1),
    ]
    assert [change.sequence for change in found] == list(range(2, 8))
    assert changes.newest(client) == changes.Position(found[-1].id, 7)


def test_follow_goes_on_where_it_was_and_tells_silence(client, put, describe):
    follower = changes.follow(client, changes.newest(client).id, block_ms=20)
    assert next(follower) is None
    put(1)
    put(2)

    assert next(follower).digest == describe(1).digest
    assert next(follower).version == 2
    assert next(follower) is None


@pytest.mark.parametrize("entry", [{"kind": "published"}, {"x": "y"}, {b"\xff": "y"}])
def test_entry_that_is_no_change_is_named(client, entry):
    client.xadd(keys.CHANGES, entry)

    with pytest.raises(CorruptRecord, match="changes"):
        changes.newest(client)

"""A server's mirror of keys: from memory while it may be, and never later than a second."""

from contextlib import contextmanager

import pytest

from registry.access.api_keys import ApiKeys
from registry.access.mirror import KeyMirror
from registry.access.record import NewKey
from registry.adapters.adapters import Adapters
from registry.adapters.directory import Directory, Following
from registry.errors import RegistryUnavailable
from registry.redis import keys
from registry.redis.client import open_client
from waiting import until

NEW = NewKey("alice", ("infer",))


class Counting(ApiKeys):
    """Counts what is asked of the server."""

    num_asked = 0

    def get(self, id_):
        self.num_asked += 1
        return super().get(id_)


@contextmanager
def following(client, **named):
    """Yield the keys and a started mirror of them."""
    api_keys = Counting(client)
    directory = Directory(Adapters(client), client)
    mirror = KeyMirror(api_keys, directory, **named)
    directory.start()
    try:
        until(lambda: directory.following is Following.CAUGHT_UP)
        yield api_keys, mirror, directory
    finally:
        directory.close()


def found(mirror, id_):
    return mirror.known(id_) or mirror.look_up(id_)


def until_heard(mirror, num_keys):
    """Wait until the mirror has caught up and heard of new keys: what is found now stays known."""
    until(lambda: mirror._num_heard >= 1 + num_keys)


def test_a_key_is_asked_for_once(client):
    with following(client) as (api_keys, mirror, _):
        made, _ = api_keys.create(NEW, now=1.0)
        until(lambda: mirror.has_any)
        assert mirror.known(made.id) is None
        assert mirror.look_up(made.id) == made
        asked = api_keys.num_asked
        assert mirror.known(made.id) == made
        assert api_keys.num_asked == asked


def test_an_unknown_key_is_not_remembered(client):
    with following(client) as (api_keys, mirror, _):
        for _ in range(3):
            assert found(mirror, "0" * 16) is None
        assert api_keys.num_asked == 3


def test_a_revocation_and_a_rotation_elsewhere_are_heard(client):
    with following(client) as (api_keys, mirror, _):
        made, _ = api_keys.create(NEW, now=1.0)
        kept, _ = api_keys.create(NEW, now=1.0)
        until_heard(mirror, num_keys=2)
        assert found(mirror, made.id) == made
        assert found(mirror, kept.id) == kept
        ApiKeys(client).rotate(made.id, now=2.0)
        until(lambda: found(mirror, made.id).rotated_at == 2.0, 1.0)
        ApiKeys(client).revoke(made.id, now=3.0)
        until(lambda: found(mirror, made.id).revoked_at == 3.0, 1.0)
        assert mirror.known(kept.id) == kept  # others stay in memory


def test_one_is_told_of_the_first_key(client):
    with following(client) as (_, mirror, _):
        assert not mirror.has_any
        made, _ = ApiKeys(client).create(NEW, now=1.0)
        until(lambda: mirror.has_any, 1.0)
        ApiKeys(client).revoke(made.id, now=2.0)
        num_heard = mirror._num_heard
        client.flushall()
        until(lambda: mirror._num_heard > num_heard, 3)
        assert mirror.has_any  # a server that asks for keys does so to its end


def test_an_answer_from_before_a_change_is_not_kept(client):
    directory = Directory(Adapters(client), client)
    directory._following = Following.CAUGHT_UP

    class Late(ApiKeys):
        def get(self, id_):
            record = super().get(id_)
            ApiKeys(client).revoke(id_, now=2.0)
            mirror.note(id_)  # heard before the answer was
            return record

    mirror = KeyMirror(Late(client), directory)
    made, _ = ApiKeys(client).create(NEW, now=1.0)
    assert mirror.look_up(made.id).revoked_at is None
    assert mirror.known(made.id) is None


def test_wrong_keys_do_not_keep_others_out_of_memory(client):
    directory = Directory(Adapters(client), client)
    directory._following = Following.CAUGHT_UP

    class Flooded(ApiKeys):
        def get(self, id_):
            record = super().get(id_)
            assert mirror.look_up("0" * 16) is None
            return record

    mirror = KeyMirror(Flooded(client), directory)
    made, _ = ApiKeys(client).create(NEW, now=1.0)
    assert mirror.look_up(made.id) == made
    assert mirror.known(made.id) == made


def test_the_least_recently_used_key_goes_first(client):
    with following(client, max_known=2) as (api_keys, mirror, _):
        ids = [api_keys.create(NEW, now=1.0)[0].id for _ in range(3)]
        until_heard(mirror, num_keys=3)
        for index in (0, 1, 0, 2):
            found(mirror, ids[index])
        assert [mirror.known(id_) is not None for id_ in ids] == [True, False, True]


def test_a_mirror_that_follows_nothing_always_asks(client):
    api_keys = Counting(client)
    mirror = KeyMirror(api_keys, Directory(Adapters(client), client))
    made, _ = api_keys.create(NEW, now=1.0)
    for _ in range(2):
        assert mirror.known(made.id) is None
        assert mirror.look_up(made.id) == made
    assert api_keys.num_asked == 2
    api_keys.revoke(made.id, now=2.0)
    assert mirror.look_up(made.id).revoked_at == 2.0


def test_known_keys_are_accepted_while_the_registry_is_away_and_others_cannot_be_told(
    plain_server,
):
    with (
        open_client(plain_server.url) as client,
        following(client) as (api_keys, mirror, directory),
    ):
        made, _ = api_keys.create(NEW, now=1.0)
        other, _ = api_keys.create(NEW, now=1.0)
        until_heard(mirror, num_keys=2)
        assert found(mirror, made.id) == made
        plain_server.kill()

        assert found(mirror, made.id) == made  # at once, before it was noticed
        until(lambda: directory.following is Following.DOWN)
        assert mirror.known(made.id) == made
        asked = api_keys.num_asked
        for id_ in (other.id, "0" * 16):
            assert mirror.known(id_) is None
            with pytest.raises(RegistryUnavailable, match="not known here"):
                mirror.look_up(id_)
        assert api_keys.num_asked == asked  # it does not wait for a server known to be away

        plain_server.start()
        ApiKeys(client).revoke(made.id, now=2.0)
        until(lambda: directory.following is Following.CAUGHT_UP)
        assert found(mirror, made.id).revoked_at == 2.0
        assert found(mirror, other.id) == other


def test_known_keys_are_still_known_after_a_registry_came_and_went(plain_server):
    """They are read again when it comes back, used or not."""
    with (
        open_client(plain_server.url) as client,
        following(client) as (api_keys, mirror, directory),
    ):
        made, _ = api_keys.create(NEW, now=1.0)
        gone, _ = api_keys.create(NEW, now=1.0)
        until_heard(mirror, num_keys=2)
        assert all(found(mirror, one.id) for one in (made, gone))
        plain_server.kill()
        until(lambda: directory.following is Following.DOWN)
        plain_server.start()
        client.delete(keys.api_key(gone.id))
        until(lambda: directory.following is Following.CAUGHT_UP)
        plain_server.kill()
        until(lambda: directory.following is Following.DOWN)
        assert mirror.known(made.id) == made
        assert mirror.known(gone.id) is None


def test_known_keys_are_accepted_for_the_grace_only(plain_server):
    with (
        open_client(plain_server.url) as client,
        following(client, grace_s=0.0) as (api_keys, mirror, directory),
    ):
        made, _ = api_keys.create(NEW, now=1.0)
        until_heard(mirror, num_keys=1)
        assert found(mirror, made.id) == made
        plain_server.kill()
        until(lambda: directory.away is not None and directory.away.seconds > 0)
        assert mirror.known(made.id) is None
        with pytest.raises(RegistryUnavailable):
            mirror.look_up(made.id)


def test_keys_of_other_data_at_the_same_address_are_not_accepted(client):
    with following(client) as (api_keys, mirror, _):
        made, _ = api_keys.create(NEW, now=1.0)
        until_heard(mirror, num_keys=1)
        assert found(mirror, made.id) == made
        client.flushall()
        until(lambda: found(mirror, made.id) is None, 3)

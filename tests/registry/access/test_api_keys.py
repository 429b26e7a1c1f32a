"""Keys are made, rotated and revoked by single transactions, and kept by their hashes alone."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from registry.access import api_keys as module
from registry.access.api_keys import ApiKeys
from registry.access.record import NewKey, is_secret_of
from registry.access.secret import digest_of
from registry.adapters import changes
from registry.errors import CorruptRecord, InvalidArgument, KeyConflict, KeyNotFound
from registry.redis import keys

DAY_S = 86_400.0


@pytest.fixture
def api_keys(client):
    return ApiKeys(client)


def new(tenant="alice", scopes=("infer",), **more):
    return NewKey(tenant, scopes, **more)


def accepts(record, secret, now):
    return is_secret_of(record, digest_of(secret.reveal().encode()), now)


def everything(client):
    """Return all that the server holds, as bytes."""
    found = []
    for key in client.keys("*"):
        reads = {b"hash": "hgetall", b"zset": "zrange", b"string": "get", b"stream": "xrange"}
        read = reads[client.type(key)]
        args = (0, -1) if read == "zrange" else ()
        found.append(repr((key, getattr(client, read)(key, *args))).encode())
    return b"\n".join(found)


def test_a_key_is_as_it_was_asked_for(api_keys):
    made, secret = api_keys.create(
        new(scopes=("train", "infer", "train"), label="für CI", expires_in_s=DAY_S), now=100.0
    )
    assert (made.tenant, made.scopes, made.label) == ("alice", ("infer", "train"), "für CI")
    assert (made.created_at, made.expires_at, made.revoked_at) == (100.0, 100.0 + DAY_S, None)
    assert secret.reveal().startswith(f"ovt_{made.id}_")
    assert secret.reveal().endswith(made.shown)
    assert api_keys.get(made.id) == made
    assert accepts(made, secret, 101.0)
    assert not made.is_expired(100.0 + DAY_S - 0.1)
    assert made.is_expired(100.0 + DAY_S)


def test_no_secret_is_stored(api_keys, client):
    made, first = api_keys.create(new(label="x"), now=1.0)
    _, second = api_keys.rotate(made.id, now=2.0, grace_s=60.0)
    stored = everything(client)
    assert made.id.encode() in stored
    for secret in (first, second):
        hidden = secret.reveal().removeprefix(f"ovt_{made.id}_").encode()
        for size in (len(hidden), 10):
            pieces = (hidden[i : i + size] for i in range(len(hidden) - size + 1))
            assert not any(piece in stored for piece in pieces)
        assert secret.digest.encode() in stored
    assert first.digest != second.digest


def test_keys_are_listed_newest_first_page_by_page_and_by_tenant(api_keys):
    made = [api_keys.create(new(name), now=float(i))[0] for i, name in enumerate("abab")]
    assert api_keys.list(10) == made[::-1]
    assert api_keys.list(2) == made[:1:-1]
    assert api_keys.list(2, after=made[2].id) == made[1::-1]
    assert api_keys.list(10, tenant="a") == [made[2], made[0]]
    assert api_keys.list(10, tenant="nobody") == []
    api_keys.revoke(made[3].id, now=9.0)
    assert [one.revoked_at for one in api_keys.list(10)] == [9.0, None, None, None]
    with pytest.raises(KeyNotFound):
        api_keys.list(2, after="0" * 16)
    with pytest.raises(InvalidArgument):
        api_keys.list(0)


def test_a_rotated_key_has_its_new_secret_at_once_and_the_old_one_for_the_grace(api_keys):
    made, first = api_keys.create(new(), now=1.0)
    rotated, second = api_keys.rotate(made.id, now=10.0, grace_s=5.0)
    assert (rotated.id, rotated.tenant, rotated.scopes) == (made.id, made.tenant, made.scopes)
    assert (rotated.rotated_at, rotated.old_until) == (10.0, 15.0)
    assert rotated.shown == second.shown
    assert accepts(rotated, second, 10.0)
    assert accepts(rotated, first, 14.9)
    assert not accepts(rotated, first, 15.0)

    again, third = api_keys.rotate(made.id, now=12.0)

    assert again.old_until is None
    assert accepts(again, third, 12.0)
    for older in (first, second):
        assert not accepts(again, older, 12.0)
    assert api_keys.get(made.id) == again


def test_a_secret_from_before_the_last_but_one_rotation_is_over_with_any_grace(api_keys):
    made, first = api_keys.create(new(), now=1.0)
    _, second = api_keys.rotate(made.id, now=2.0, grace_s=100.0)
    now, third = api_keys.rotate(made.id, now=3.0, grace_s=100.0)
    assert [accepts(now, one, 4.0) for one in (first, second, third)] == [False, True, True]


def test_a_revoked_key_has_no_secret_left_and_cannot_be_rotated(api_keys, client):
    made, first = api_keys.create(new(), now=1.0)
    _, second = api_keys.rotate(made.id, now=2.0, grace_s=1000.0)

    revoked = api_keys.revoke(made.id, now=3.0)

    assert revoked.revoked_at == 3.0
    assert not accepts(revoked, first, 3.0)
    assert not accepts(revoked, second, 3.0)
    stored = everything(client)
    assert first.digest.encode() not in stored
    assert second.digest.encode() not in stored
    with pytest.raises(KeyConflict, match="is revoked"):
        api_keys.rotate(made.id, now=4.0)
    assert api_keys.revoke(made.id, now=5.0) == revoked


def test_an_expired_key_cannot_be_rotated(api_keys):
    made, _ = api_keys.create(new(expires_in_s=10.0), now=1.0)
    api_keys.rotate(made.id, now=10.9)
    with pytest.raises(KeyConflict, match="is expired"):
        api_keys.rotate(made.id, now=11.0)


@pytest.mark.parametrize("id_", ["0" * 16, "", "nonsense", "0" * 16 + "\n", "../../etc", "A" * 16])
def test_a_key_that_is_not_there_is_not_found(api_keys, id_):
    for ask in (api_keys.get, lambda i: api_keys.revoke(i, now=1.0)):
        with pytest.raises(KeyNotFound):
            ask(id_)
    with pytest.raises(KeyNotFound):
        api_keys.rotate(id_, now=1.0)


def test_each_change_is_announced_once(api_keys, client):
    before = changes.newest(client)
    made, _ = api_keys.create(new(), now=1.0)
    api_keys.rotate(made.id, now=2.0)
    api_keys.revoke(made.id, now=3.0)
    api_keys.revoke(made.id, now=4.0)
    for wrong in (api_keys.rotate, api_keys.revoke):
        with pytest.raises((KeyConflict, KeyNotFound)):
            wrong(made.id if wrong == api_keys.rotate else "0" * 16, now=5.0)
    found = changes.read_after(client, before.id, block_ms=50)
    assert [(change.kind, change.name) for change in found] == [("api_key", made.id)] * 3
    assert [change.sequence for change in found] == [before.sequence + i for i in (1, 2, 3)]


def test_the_first_key_can_be_asked_for_as_the_first_only(api_keys):
    assert not api_keys.has_any()
    made, _ = api_keys.create(new(), now=1.0, only_as_first=True)
    assert api_keys.has_any()
    with pytest.raises(KeyConflict, match="has API keys already"):
        api_keys.create(new(), now=2.0, only_as_first=True)
    api_keys.revoke(made.id, now=3.0)
    with pytest.raises(KeyConflict):
        api_keys.create(new(), now=4.0, only_as_first=True)
    assert api_keys.has_any()  # a registry without a valid key is not open again


def test_of_many_first_keys_at_once_one_is_made(api_keys):
    def make(number):
        try:
            return api_keys.create(new(), now=float(number), only_as_first=True)[0].id
        except KeyConflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [id_ for id_ in pool.map(make, range(40)) if id_]
    assert [one.id for one in api_keys.list(100)] == made
    assert len(made) == 1


def test_rotations_and_a_revocation_at_once_leave_a_key_that_takes_no_secret(api_keys):
    made, first = api_keys.create(new(), now=1.0)

    def rotate(number):
        try:
            return [api_keys.rotate(made.id, now=2.0, grace_s=1000.0)[1]]
        except KeyConflict:
            return []

    with ThreadPoolExecutor(8) as pool:
        rotating = [pool.submit(rotate, number) for number in range(30)]
        revoking = pool.submit(api_keys.revoke, made.id, now=3.0)
        secrets = [first, *chain.from_iterable(one.result(30) for one in rotating)]
        revoking.result(30)

    record = api_keys.get(made.id)
    assert record.revoked_at == 3.0
    assert not any(accepts(record, secret, 3.0) for secret in secrets)


def test_of_rotations_at_once_the_last_one_counts(api_keys):
    made, _ = api_keys.create(new(), now=1.0)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: api_keys.rotate(made.id, now=2.0)[1], range(20)))
    record = api_keys.get(made.id)
    assert [accepts(record, secret, 3.0) for secret in done].count(True) == 1


def test_a_key_that_ended_long_ago_is_dropped_when_another_is_made(api_keys, client):
    kept_s = keys.KEPT_ENDED_KEY_S
    revoked, _ = api_keys.create(new("bob"), now=1.0)
    api_keys.revoke(revoked.id, now=2.0)
    expired, _ = api_keys.create(new(expires_in_s=5.0), now=2.5)
    lasting, _ = api_keys.create(new(), now=3.0)

    later, _ = api_keys.create(new(), now=2.0 + kept_s)

    assert api_keys.list(10) == [later, lasting, expired]
    api_keys.create(new(), now=7.5 + kept_s)
    assert {one.id for one in api_keys.list(10)}.isdisjoint({revoked.id, expired.id})
    assert not client.exists(keys.api_key(revoked.id), keys.API_KEYS_OF + "bob")
    assert client.zcard(keys.API_KEYS_ENDED) == 0


def test_there_are_only_so_many_keys(api_keys, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    for now in (1.0, 2.0):
        api_keys.create(new(), now=now)
    with pytest.raises(KeyConflict, match="2 API keys, with those that ended within the last 90"):
        api_keys.create(new(), now=3.0)
    assert len(api_keys.list(10)) == 2


@pytest.mark.parametrize(
    ("changes_", "said"),
    [
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a/b"}, "tenant"),
        ({"tenant": "a\n"}, "tenant"),
        ({"tenant": "a" * 65}, "tenant"),
        ({"scopes": ()}, "without scopes"),
        ({"scopes": ("infer", "root")}, "unknown scope 'root'"),
        ({"label": "a\x1bb"}, "label"),
        ({"label": "a" * 101}, "label"),
        ({"expires_in_s": 0.0}, "life"),
        ({"expires_in_s": -1.0}, "life"),
        ({"expires_in_s": float("nan")}, "life"),
        ({"expires_in_s": float("inf")}, "life"),
    ],
)
def test_what_is_no_key_is_refused_before_anything_is_written(changes_, said):
    with pytest.raises(InvalidArgument, match=said):
        new(**changes_)


@pytest.mark.parametrize("grace_s", [-1.0, float("nan"), 1e9])
def test_a_grace_out_of_range_is_refused(api_keys, grace_s):
    made, _ = api_keys.create(new(), now=1.0)
    with pytest.raises(InvalidArgument, match="grace_s"):
        api_keys.rotate(made.id, now=2.0, grace_s=grace_s)


def test_a_record_of_a_later_program_is_read_without_what_is_unknown(api_keys, client):
    made, _ = api_keys.create(new(), now=1.0)
    client.hset(keys.api_key(made.id), mapping={"later": "x", "scopes": "infer,fly"})
    assert api_keys.get(made.id).scopes == ("infer",)
    client.hset(keys.api_key(made.id), "created_at", "soon")
    with pytest.raises(CorruptRecord):
        api_keys.get(made.id)

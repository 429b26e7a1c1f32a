"""A secret is random, has its key's id in it, and is shown by nothing but `reveal`."""

import hashlib
import hmac
import re
from types import SimpleNamespace

import pytest

from registry.access import secret as module
from registry.access.record import KeyRecord, is_secret_of
from registry.access.secret import Secret, digest_of, id_in, new_id

ID = "0123456789abcdef"


def test_a_secret_has_its_id_and_256_random_bits():
    made = {Secret.new(ID).reveal() for _ in range(100)}
    assert len(made) == 100
    for text in made:
        assert re.fullmatch(rf"ovt_{ID}_[A-Za-z0-9_-]{{43}}", text)  # 43 characters of 6 bits
        assert id_in(text.encode()) == ID
    assert len({text[-43:-1] for text in made}) == 100
    assert len({new_id() for _ in range(100)}) == 100


def test_a_secret_is_in_no_text_that_is_made_by_accident():
    secret = Secret.new(ID)
    hidden = secret.reveal()[20:]
    for text in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert hidden not in text
    assert secret.digest == hashlib.sha256(secret.reveal().encode()).hexdigest()
    assert secret.reveal().endswith(secret.shown)
    assert len(secret.shown) == 4


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"ovt_",
        f"ovt_{ID}".encode(),
        f"ovt_{ID}_".encode(),
        f"ovt_{ID}_{'a' * 42}".encode(),
        f"ovt_{ID}_{'a' * 44}".encode(),
        f"ovt_{ID}_{'a' * 43}\n".encode(),
        f" ovt_{ID}_{'a' * 43}".encode(),
        f"OVT_{ID}_{'a' * 43}".encode(),
        f"ovt_{ID.upper()}_{'a' * 43}".encode(),
        f"ovt_{ID}_{'a' * 42}\xe9".encode("latin-1"),
        f"ovt_{ID[:-1]}/_{'a' * 43}".encode(),
        f"ovt_{'١' * 16}_{'a' * 43}".encode(),
        b"ovt_" + b"a" * 1_000_000,
    ],
)
def test_what_has_not_the_shape_of_a_secret_has_no_id(sent):
    assert id_in(sent) is None


def record(**changes):
    given = {"tenant": "a", "scopes": ("infer",), "label": "", "created_at": 1.0, "shown": "abcd"}
    return KeyRecord(id=ID, **(given | changes))


def test_the_two_secrets_of_a_key_fit_while_they_are_valid():
    new, old, other = (digest_of(word) for word in (b"new", b"old", b"other"))
    key = record(digest=new, old_digest=old, old_until=10.0)
    assert is_secret_of(key, new, 9.9)
    assert is_secret_of(key, new, 10.1)
    assert is_secret_of(key, old, 9.9)
    assert not is_secret_of(key, old, 10.0)
    assert not is_secret_of(key, other, 5.0)
    assert not is_secret_of(record(digest=new), old, 5.0)
    assert not is_secret_of(record(digest=new, revoked_at=1.0), new, 5.0)
    assert not is_secret_of(None, new, 5.0)
    assert not is_secret_of(None, module.DUMMY, 5.0)
    assert not is_secret_of(record(revoked_at=1.0), module.DUMMY, 5.0)


@pytest.mark.parametrize(
    "key",
    [
        None,
        record(digest=digest_of(b"new")),
        record(digest=digest_of(b"new"), old_digest=digest_of(b"old"), old_until=10.0),
        record(revoked_at=1.0),
    ],
)
def test_every_key_is_compared_twice_in_constant_time_there_or_not(key, monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(module, "hmac", SimpleNamespace(compare_digest=compare))
    for sent in (b"new", b"old", b"wrong"):
        compared.clear()
        is_secret_of(key, digest_of(sent), 5.0)
        assert compared == [(32, 32), (32, 32)]


def test_a_record_shows_no_hash_of_a_secret():
    digest = digest_of(b"new")
    assert digest.hex() not in repr(record(digest=digest, old_digest=digest))
    assert "digest" not in repr(record(digest=digest, old_digest=digest))

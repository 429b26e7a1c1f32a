"""A registry's URL says how its Redis is run; what cannot be meant is refused before connecting."""

import pytest

from registry.errors import InvalidArgument
from registry.redis.address import has_password, masked, with_password
from registry.redis.shapes import shape_of

SENTINEL = "redis+sentinel://bob:p%40w@a,[::1]:7/names/2?sentinel_password=zz"


def test_sentinels_and_their_own_password_are_read():
    shape = shape_of(SENTINEL)

    assert (shape.kind, shape.service) == ("sentinel", "names")
    assert shape.hosts == (("a", 26379), ("::1", 7))
    assert shape.settings == {"username": "bob", "password": "p@w", "db": 2}
    assert shape.sentinel_settings == {"password": "zz"}


def test_a_cluster_takes_tls_and_its_options(tmp_path):
    shape = shape_of("rediss+cluster://a,b:7?ssl_ca_certs=/ca&max_connections=5")

    assert (shape.kind, shape.hosts) == ("cluster", (("a", 6379), ("b", 7)))
    assert shape.settings == {"ssl": True, "ssl_ca_certs": "/ca", "max_connections": 5}


def test_sentinels_take_the_same_tls_and_no_password_of_the_data():
    shape = shape_of("rediss+sentinel://:secret@a/names?ssl_ca_certs=/ca")

    assert shape.sentinel_settings == {"ssl": True, "ssl_ca_certs": "/ca"}


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("redis+cluster://a/3", "no numbered databases"),
        ("redis+sentinel://a", "no service"),
        ("redis+sentinel://:secret@a", "no service"),
        ("redis+ring://a", "is not 'embedded'"),
        ("redis+cluster://a:port", "is not 'embedded'"),
        ("redis+cluster://", "is not 'embedded'"),
        ("http://a", "is not 'embedded'"),
        ("redis://:secret@a?ssl_ca=1", "'ssl_ca'"),
        ("redis+cluster://:secret@a?colour=red", "'colour'"),
        ("rediss+sentinel://a/names?ssl_cert_reqs=maybe", "SSL Certificate"),
        ("redis+sentinel://a/names?sentinel_colour=red", "'colour'"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_the_password(url, word):
    with pytest.raises(InvalidArgument) as caught:
        shape_of(url)
    assert word in caught.value.message
    assert "secret" not in caught.value.message


def test_every_password_is_masked_and_the_main_one_still_goes_in():
    assert masked(SENTINEL) == "redis+sentinel://bob:***@a,[::1]:7/names/2?sentinel_password=***"
    bare = "redis+sentinel://bob@a,b/names?sentinel_password=zz"
    assert has_password(bare)
    assert shape_of(with_password(bare, "p@w")).settings["password"] == "p@w"

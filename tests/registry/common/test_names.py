"""References are read strictly: what cannot be published is not found."""

import pytest

from registry.common.names import (
    RESERVED,
    Reference,
    check_alias,
    check_digest,
    check_method,
    check_name,
    check_prefix,
)
from registry.errors import AdapterNotFound, InvalidName

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("poet", ("poet", "alias", "latest")),
        ("poet@latest", ("poet", "alias", "latest")),
        ("Poet-2.1_x@3", ("Poet-2.1_x", "version", "3")),
        ("poet@prod", ("poet", "alias", "prod")),
        (f"poet@{DIGEST}", ("poet", "digest", DIGEST)),
        ("a" * 96, ("a" * 96, "alias", "latest")),
        ("org/poet", ("org/poet", "alias", "latest")),
        ("Org-1/Poet.2@7", ("Org-1/Poet.2", "version", "7")),
        (f"org/poet@{DIGEST}", ("org/poet", "digest", DIGEST)),
        ("versions/poet@prod", ("versions/poet", "alias", "prod")),
    ],
)
def test_reference_is_read(text, expected):
    reference = Reference.parse(text)

    assert (reference.name, reference.kind, reference.value) == expected
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["", "@3", "a" * 97, "a b", "-poet", "poet@", "poet@0", "poet@03", "poet@-1", "poet@1000000000"]
    + [
        "poet@Prod",
        "poet@3@4",
        "poet\n",
        "poet@3\n",
        "../poet",
        "a/b/c",
        "/a",
        "a/",
        "a//b",
        "poét",
        "poet@sha256:0a",
    ]
    + [f"poet@{DIGEST.upper()}", f"poet@{DIGEST}0", "poet:records", "{poet}", "poet@\ud800"],
)
def test_reference_that_cannot_exist_is_not_found(text):
    with pytest.raises(AdapterNotFound) as caught:
        Reference.parse(text)

    caught.value.message.encode("ascii")  # safe in a header and a log


def test_long_text_is_not_repeated_in_full():
    with pytest.raises(AdapterNotFound) as caught:
        Reference.parse("x" * 100_000)

    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "name",
    ["", "a" * 97, "a@b", ".hidden", "a\n", "a/b/c", "/a", "a/", "a//b", "a/.b", "a/../b", "../a"]
    + ["a/b\n", "a/" + "b" * 95, "a\\b", "a/b@1", "a%2Fb"],
)
def test_name_breaks_the_rule(name):
    with pytest.raises(InvalidName, match="1 to 96"):
        check_name(name)


@pytest.mark.parametrize("word", RESERVED)
def test_a_name_does_not_end_as_a_path_of_the_api_does(word):
    with pytest.raises(InvalidName, match="none of versions"):
        check_name(f"org/{word}")
    with pytest.raises(AdapterNotFound):
        Reference.parse(f"org/{word}@3")
    for name in (word, f"{word}/poet", f"org/{word}s", f"org/{word.title()}", f"org/my-{word}"):
        assert check_name(name) == name


@pytest.mark.parametrize("prefix", ["o", "org", "org/", "org/p", "org/versions", "a" * 96])
def test_a_prefix_is_how_a_name_may_begin(prefix):
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["", "/", "org//", "org/.", "a/b/", "a" * 97, "a b", "org/\n"])
def test_a_prefix_that_no_name_has_is_refused(prefix):
    with pytest.raises(InvalidName, match="begins with"):
        check_prefix(prefix)


@pytest.mark.parametrize("alias", ["", "Prod", "3", "3rd", "a" * 33, "sha256:0", "a b", "a\n"])
def test_alias_breaks_the_rule(alias):
    with pytest.raises(InvalidName, match="1 to 32"):
        check_alias(alias)


def test_latest_is_not_set_by_hand():
    with pytest.raises(InvalidName, match="roll back"):
        check_alias("latest")


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:" + "0" * 63, "sha256:" + "g" * 64, "md5:" + "0" * 64, DIGEST + "\n"]
    + ["sha256:../../" + "0" * 58, "../" * 20, DIGEST.upper()],
)
def test_digest_breaks_the_rule(digest):
    with pytest.raises(InvalidName, match="64 hex digits"):
        check_digest(digest)


def test_method_has_no_space_that_would_split_the_stored_head():
    with pytest.raises(InvalidName):
        check_method("fourier ft")

"""A registry's password is put into its URL for the client, and into nothing that people see."""

from pathlib import Path

import pytest

from registry.errors import InvalidArgument
from registry.redis.address import has_password, masked, password_in, with_password
from registry.redis.client import open_client

SECRET = "s3:cr@t/%?"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:geheim@host:6379/1", "redis://:***@host:6379/1"),
        ("rediss://me:geheim@host", "rediss://me:***@host"),
        ("unix://:geheim@/run/redis.sock?db=2", "unix://:***@/run/redis.sock?db=2"),
        ("redis://host?password=geheim&db=1", "redis://host?password=***&db=1"),
        ("redis://:geheim@[::1", "***@[::1"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert has_password(url)
    assert masked(url) == shown


@pytest.mark.parametrize("url", ["embedded", "redis://host:6379/0", "redis://me@host", "unix:///a"])
def test_what_has_none_is_shown_as_it_is(url: str) -> None:
    assert not has_password(url)
    assert masked(url) == url


@pytest.mark.parametrize(
    ("url", "user"),
    [("redis://host:1", None), ("rediss://me@host:1/2", "me"), ("unix:///run/r.sock", None)],
)
def test_the_client_has_the_password_letter_by_letter(url: str, user: str | None) -> None:
    with open_client(with_password(url, SECRET)) as client:
        kept = client.connection_pool.connection_kwargs
        assert (kept.get("username") or None, kept["password"]) == (user, SECRET)


def test_one_password_is_enough() -> None:
    with pytest.raises(InvalidArgument, match="leave one out") as caught:
        with_password("redis://:geheim@host", SECRET)
    assert "geheim" not in str(caught.value)
    with pytest.raises(InvalidArgument, match="embedded registry takes no password"):
        with_password("embedded", SECRET)
    assert with_password("embedded", None) == "embedded"


def test_a_file_holds_it_in_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    assert password_in(file) == SECRET


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_file_without_one_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidArgument, match=str(file)):
        password_in(file)

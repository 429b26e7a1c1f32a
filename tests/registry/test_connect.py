"""One call opens all that processes share."""

import os

import pytest

from registry import RegistryUnavailable, connect
from registry.errors import InvalidArgument


def test_two_processes_worth_of_embedded_registry_share_names(tmp_path, putter):
    heard = []
    with (
        connect("embedded", tmp_path, observer=lambda *stats: heard.append(stats)) as one,
        connect("embedded", tmp_path) as other,
    ):
        record, _ = putter(one.adapters)(1)
        assert other.directory.resolve("poet") == record
        one.close()

    assert heard[0][0] == "publish"


def test_given_server_and_store_are_used(client, url, tmp_path, putter):
    with connect(url, tmp_path / "data", store=tmp_path / "store") as registry:
        assert registry.server is None
        putter(registry.adapters)(1)
        registry.blobs.put("sha256:" + "0" * 64, tmp_path / os.devnull, b"{}")

    assert (tmp_path / "store" / "00").is_dir()
    assert not (tmp_path / "data").exists()


def test_server_that_is_down_is_an_error_when_first_asked(tmp_path):
    with (
        connect(f"unix://{tmp_path}/nobody", tmp_path) as registry,
        pytest.raises(RegistryUnavailable) as caught,
    ):
        registry.adapters.resolve("poet")

    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("url", ["", "embeded", "http://x", "redis://:secret@host:port/0"])
def test_bad_url_is_refused_without_repeating_its_password(tmp_path, url):
    with pytest.raises(InvalidArgument, match="redis://") as caught:
        connect(url, tmp_path)

    assert "secret" not in caught.value.message

"""A server that asks for no keys is refused where other machines could reach it."""

from typing import Any

import pytest
from typer.testing import CliRunner

from adapters_core.starting import CannotStart
from overtone_client.cli import app
from server.process.exposure import check_exposure
from server.settings import read_settings

BEYOND = ["0.0.0.0", "::", "10.0.0.7", "192.168.1.2", "gpu-box", "example.com", "", "127.0.0.1.x"]
OWN = ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "::1", "::ffff:127.0.0.1"]


def settings(host: str, **more: Any) -> Any:
    return read_settings(base="x", host=host, **more)


@pytest.mark.parametrize("host", OWN)
def test_this_machine_alone_is_served_without_keys(host: str) -> None:
    check_exposure(settings(host))


@pytest.mark.parametrize("host", BEYOND)
def test_others_are_served_with_keys_or_if_that_was_said(host: str) -> None:
    with pytest.raises(CannotStart, match="asks for no keys.*OVERTONE_API_KEYS.*--require-keys"):
        check_exposure(settings(host))
    for more in ({"api_keys": "a=b"}, {"require_keys": True}, {"allow_keyless": True}):
        check_exposure(settings(host, **more))


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_start_is_refused_before_anything_is_opened(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("OVERTONE_DATA", str(tmp_path / "data"))
    base = ["--base", str(tmp_path)] if command == "serve" else []
    done = CliRunner().invoke(app, [command, *base, "--host", "0.0.0.0", "--port", "0"])
    assert done.exit_code == 1
    assert "this server asks for no keys" in done.output
    assert not (tmp_path / "data").exists()

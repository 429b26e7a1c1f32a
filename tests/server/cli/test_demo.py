"""The demo on a registry that has API keys needs one of its own, and says so."""

import time
from pathlib import Path

import pytest

from registry import NewKey, connect
from server.cli.demo import _begin, demo_settings


def test_a_demo_without_a_key_for_its_registry_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OVERTONE_API_KEYS", raising=False)
    with connect("embedded", tmp_path) as registry:
        registry.api_keys.create(NewKey("alice", ("admin",)), now=time.time())
        registry.key_mirror.refresh()
        _begin(demo_settings(data=str(tmp_path)), "http://127.0.0.1:1", registry)
    told = capsys.readouterr().out
    assert "has API keys, and the demo has none" in told
    assert "OVERTONE_API_KEYS=root=SECRET overtone demo" in told
    assert str(tmp_path) in told

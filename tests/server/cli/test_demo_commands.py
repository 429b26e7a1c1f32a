"""What the demo prints can be pasted: with a key where one is needed, and never a secret."""

import json
import shlex
from pathlib import Path

import pytest

from server.cli.demo_commands import adapter_line, what_to_try

URL = "http://127.0.0.1:18099"
BASES = ("demo", "smollm2")


def lines(base: str, *, has_curl: bool = True, asks_key: bool = False) -> list[str]:
    told = what_to_try(base, URL, has_curl=has_curl, asks_key=asks_key)
    joined = told.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("base", BASES)
def test_three_commands_are_shown_with_or_without_curl(base: str) -> None:
    by_curl, by_program = lines(base), lines(base, has_curl=False)
    assert len(by_curl) == len(by_program) == 3
    assert by_curl[0].startswith("curl ")
    assert all(f"--url {URL} " in line for line in by_program)


@pytest.mark.parametrize("base", BASES)
def test_curls_request_is_json(base: str) -> None:
    words = shlex.split(lines(base)[0])
    body = json.loads(words[words.index("-d") + 1])
    assert body["temperature"] == 0
    assert "Authorization" not in " ".join(words)


@pytest.mark.parametrize("base", BASES)
def test_a_demo_with_keys_shows_how_to_give_one(base: str) -> None:
    shown = lines(base, asks_key=True)
    assert shown[0].startswith("export OVERTONE_API_KEY=SECRET")
    assert '-H "Authorization: Bearer $OVERTONE_API_KEY"' in shown[1]


def test_an_adapters_line_tells_size_and_worth(tmp_path: Path) -> None:
    folder = tmp_path / "capitals"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 12_345)
    figures = {"loss": 1.234, "base_loss": 5.678, "right": 0.9, "base_right": 0.4}
    assert adapter_line(folder, figures) == (
        "  adapter capitals     12 kB, held-out loss 1.23, the base alone 5.68 nats/token; "
        "right answers 90%, 40%"
    )

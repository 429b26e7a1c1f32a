"""Servers on one GPU: one starts at a time, and claims hold as long as their process."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from server.base import card
from server.base.card import Card
from server_parts import eventually

#: Claims, says so, and waits to be ended.
CLAIMS = """
import sys
from pathlib import Path
from server.base.card import Card
card = Card(Path(sys.argv[1]), "cuda:0")
with card.turn():
    card.claim(700)
print("claimed", flush=True)
sys.stdin.read()
"""


def test_a_claim_is_seen_by_others_until_it_is_released(tmp_path: Path) -> None:
    one, two = Card(tmp_path / "card", "cuda:0"), Card(tmp_path / "card", "cuda:0")
    assert one.others() == 0
    one.claim(5)
    one.claim(1000)  # in place of the first
    assert (one.others(), two.others()) == (0, 1000)
    two.claim(30)
    assert (one.others(), two.others()) == (30, 1000)
    one.release()
    assert (one.others(), two.others()) == (30, 0)
    two.release()
    assert not list((tmp_path / "card").glob("claim-*"))


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIMS, str(tmp_path / "card")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        own = Card(tmp_path / "card", "cuda:0")
        assert own.others() == 700
        other.kill()
        other.wait()
    assert own.others() == 0
    assert not list((tmp_path / "card").glob("claim-*"))


@pytest.mark.parametrize("step", ["open", "_locked"])
def test_a_server_may_end_while_its_claim_is_read(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Card(tmp_path / "card", "cuda:0"), Card(tmp_path / "card", "cuda:0")
    one.claim(1000)
    owner = card if step == "_locked" else card.os
    own = getattr(owner, step)

    def ended_first(*given: Any) -> Any:
        one.release()
        return own(*given)

    monkeypatch.setattr(owner, step, ended_first)
    assert two.others() == 0


def test_one_server_starts_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = Card(tmp_path / "card", "cuda:0"), Card(tmp_path / "card", "cuda:0")
    order: list[str] = []

    def start_second() -> None:
        with two.turn():
            order.append("second")

    thread = threading.Thread(target=start_second)
    with caplog.at_level("INFO"), one.turn():
        thread.start()
        eventually(lambda: "another server is starting on cuda:0" in caplog.text)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]

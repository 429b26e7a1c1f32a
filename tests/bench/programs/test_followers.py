"""The program with two followers of a real Valkey: every change is heard, and its cost told."""

import json

import pytest

from bench.programs import followers


def test_every_follower_hears_every_change_and_what_it_costs_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    short = ["--rate", "100", "--seconds", "0.3", "--rest", "0.2"]
    followers.main(["--adapters", "100", "--followers", "2", "--looked-up", "50", *short])

    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {(row["what"], row.get("names")): row for row in told["rows"]}
    assert told["bench"] == "followers"
    assert rows["register", None]["adapters"] == 100
    for what in ("start of one follower, s", "start of all at once, s"):
        assert 0 < rows[what, None]["mirror_alone"] < rows[what, None]["with_python"]
    for names in (0, 50, 100):
        assert rows["memory, MiB", names]["median"] > 10
    for what in ("at rest, % of a core", "while changed, % of a core"):
        row = rows[what, None]
        assert 0 <= row["median"] <= row["most"]
        assert row["registry"] >= 0
    heard = rows["heard after, ms", None]
    assert heard["changes"] == 30
    assert 0 < heard["p50"] <= heard["p99"] <= heard["max"]


def test_a_follower_that_has_missed_a_change_is_an_error() -> None:
    class Deaf:
        def send(self, *words: object) -> None: ...

        def answer(self) -> object:
            return [["adapter-000000", 1.0]]

    with pytest.raises(RuntimeError, match="heard 1 of 2"):
        followers.delays([Deaf()], {"adapter-000000": 0.5, "adapter-000001": 0.6})  # type: ignore[list-item]

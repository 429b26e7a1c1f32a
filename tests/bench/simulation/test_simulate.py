import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.programs import simulate
from bench.simulation.costs import Costs
from overtone_client import InvalidArgument
from server.planning.costs import Curve

STEP = Curve(((1, 0.01), (32, 0.05)))
KINDS = {
    "small": Costs(STEP, 0.0, 0.001, 1 << 10),
    "large": Costs(STEP, 0.0, 0.01, 1 << 20),
    "huge": Costs(STEP, 0.005, 0.02, 1 << 30),
}
FEW = ["--adapters", "60", "--replicas", "4", "--requests", "150", "--warm", "400"]
FEW += ["--memory-mib", "16", "--skew", "1.2"]


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    """The end of an earlier run's output."""
    path = tmp_path / "earlier.txt"
    shown = {kind: one.shown() for kind, one in KINDS.items()}
    path.write_text(f"a table\n{json.dumps({'costs': shown})}\n")
    return path


def rows_of(text: str) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    rows = json.loads(text.splitlines()[-1])["rows"]
    return {(row["skew"], row["adapters"], row["policy"]): row for row in rows}


def test_the_same_costs_and_seed_print_the_same(
    costs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    simulate.main([*FEW, "--costs", str(costs)])
    first = capsys.readouterr().out
    again = tmp_path / "again.txt"
    again.write_text(first)
    simulate.main([*FEW, "--costs", str(again)])
    second = capsys.readouterr().out
    assert rows_of(first) == rows_of(second)
    assert len(rows_of(first)) == 2 * 3 * 5
    simulate.main([*FEW, "--costs", str(costs), "--seed", "1"])
    assert rows_of(first) != rows_of(capsys.readouterr().out)


def test_all_on_all_loads_nothing_and_what_does_not_fit_says_so(
    costs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate.main([*FEW, "--costs", str(costs)])
    text = capsys.readouterr().out
    rows = rows_of(text)
    everywhere = "two choices, all on all"
    assert rows[0.0, "small", everywhere]["cold_loads_per_request"] == 0
    assert rows[0.0, "large", everywhere]["reason"] == "all have 60 MiB"
    assert rows[0.0, "huge", "hashing"]["reason"] == "one has 1024 MiB"
    cold = {
        policy: rows[0.0, "large", policy]["cold_loads_per_request"]
        for policy in ("any replica", "hashing")
    }
    assert cold["hashing"] < 0.1 < cold["any replica"]
    hot = {policy: rows[1.2, "small", policy]["imbalance"] for policy in ("hashing", everywhere)}
    assert hot["hashing"] > 1.3 * hot[everywhere]
    assert "| large | two choices, all on all | does not fit: all have 60 MiB |" in text


def kind(step: object, apart_s: float = 0, adapter_bytes: int = 1) -> str:
    """Return a file with the costs of one kind of adapter."""
    given = {"step": step, "apart_s": apart_s, "load_s": 0, "adapter_bytes": adapter_bytes}
    return json.dumps({"costs": {"a": given}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "costs"),
        ("[1]", "costs"),
        ('{"costs": {}}', "no kind"),
        ('{"costs": 3}', "costs"),
        ('{"costs": {"a": 3}}', "not understood"),
        ('{"costs": {"a": {"step": [[1, 1]], "apart_s": 0, "load_s": 0}}}', "adapter_bytes"),
        (kind([]), "a step needs"),
        (kind([[2, 1], [1, 1]]), "ascending"),
        (kind([[1, float("nan")]]), "a step needs"),
        (kind([[1, 1]], apart_s=-1), "below 0"),
        (kind([[1, 1]], adapter_bytes=0), "a byte"),
    ],
)
def test_costs_that_make_no_sense_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=said):
        simulate.main(["--costs", str(path)])


@pytest.mark.parametrize(
    "wrong", ["--adapters 0", "--replicas x", "--load 0", "--skew -1", "--prompt 5", "--costs /no"]
)
def test_wrong_options_are_refused_and_named(wrong: str) -> None:
    with pytest.raises(
        InvalidArgument, match=wrong.split()[0].removeprefix("--").replace("prompt", "lengths")
    ):
        simulate.main(wrong.split())


def test_costs_read_are_those_shown() -> None:
    for one in KINDS.values():
        assert Costs.parse(json.loads(json.dumps(one.shown()))) == one

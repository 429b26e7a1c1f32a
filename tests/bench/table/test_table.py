import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bench.command import PROGRAMS
from bench.programs import short_answers
from bench.table import table
from bench.table.targets import TARGETS, Target, begun, found, show, value
from overtone_client import InvalidArgument

DECODE = [
    {"what": f"decode {kind}", "rows": rows, "ms": 1.0, "ratio": ratio}
    for rows in (8, 32)
    for kind, ratio in {
        "base": 1.0,
        "fourierft qv": 1.05,
        "lora qv": 1.10,
        "fourierft seven": 1.3,
        "lora seven": 1.2,
        "merged fourierft qv": 0.8,
    }.items()
]
COLD = [
    {"what": "cold file to merged weights, against PEFT load + merge", "ratio": 9.0},
    {"what": "cold file to factored, against PEFT load + merge", "ratio": 40.0},
    {"what": "cold file to merged weights, against adding matrices of that size", "ratio": 2.5},
]
PEFT = [
    {"what": "32 requests, 32 adapters, against PEFT unmerged", "ratio": 17.0},
    {"what": "32 requests, 32 adapters, against PEFT merged", "ratio": 6.0},
]
SCALE = [
    {"what": what, "registered": size, "ratio": 1 / size}
    for size in (10, 1000)
    for what in ("register one more, ms", "tokens/s")
]
SHORT = short_answers.rows_of(
    {0: [100.0, 200.0], 1: [98.0, 196.0], 32: [90.0, 180.0], 1000: [97.0, 194.0]}
)
TRAINING = [
    {"what": f"training step, {which}, {name} against x", "time_ratio": 0.4, "memory_ratio": None}
    for which in ("qv", "seven")
    for name in ("fourierft", "waveletft", "loca")
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "decode": DECODE,
    "wide": DECODE,
    "generate": [{"what": "tokens/s of 32 rows against model.generate", "ratio": 1.1}],
    "peft": COLD + PEFT,
    "peft-wide": COLD,
    "streams": [
        {"what": "tokens/s of 32 streams through HTTP, against the bare loop", "ratio": 0.9}
    ],
    "uploads": [
        {"what": "upload to servable, seconds", "p99": 0.02},
        {
            "what": "time to first token of a never-seen adapter, against a warm one",
            "ratio": 1.05,
        },
    ],
    "memory": [{"what": "memory of one more resident adapter, against its file", "ratio": 1.1}],
    "short": SHORT,
    "scale": SCALE,
    "training": TRAINING,
}
MACHINE = {"processor": "P", "cores": 2, "threads": 2, "torch": "T", "commit": "c", "date": "d"}


def part(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    made = {"options": "", "quick": False, "seconds": 1.0, "machine": MACHINE, "rows": rows}
    return made | changes


def figures(parts: dict[str, Any]) -> dict[str, Any]:
    return {row["what"]: row for row in table.table_of(parts)}


def test_every_bar_finds_its_figure() -> None:
    rows = figures({name: part(rows) for name, rows in ROWS.items()})
    missing = [row["what"] for row in rows.values() if row["figure"] is None]
    assert missing == [
        f"training step, {which}, {method}, of {other} memory"
        for which in ("qv", "seven")
        for method, other in TRAINED
    ]
    assert {target.part for target in TARGETS} == set(table.PARTS) == set(ROWS)


TRAINED = (("fourierft", "PEFT's"), ("waveletft", "PEFT's"), ("loca", "LoRA's"))


@pytest.mark.parametrize(
    ("what", "figure", "is_met"),
    [
        ("decode step, every row another adapter, q, v, 8 rows", 1.05, True),
        ("decode step, every row another adapter, all seven, 32 rows", 1.3, False),
        ("its extra time, of mixed LoRA's r = 16, q, v, 8 rows", 0.5, True),
        ("its extra time, of mixed LoRA's r = 16, all seven, 8 rows", 1.5, False),
        ("merged mode, decode, of the base's speed, 8 rows", 1.25, True),
        ("32 requests, 32 adapters, against PEFT one by one, merged", 6.0, False),
        ("throughput, most registered against 10, Zipf", 0.001, False),
        (
            "short answers over REST, adapters in the traffic: 32, of the base's tokens/s",
            0.9,
            False,
        ),
        ("the same, 1000, of the tokens/s with one", 97 / 98, True),
        ("registering one more, most registered against 10", 0.001, True),
        ("upload to servable, p99", 20.0, True),
        ("tokens/s of 32 streams, of the bare loop's", 0.9, False),
    ],
)
def test_figures_are_held_against_their_targets(what: str, figure: float, is_met: bool) -> None:
    row = figures({name: part(rows) for name, rows in ROWS.items()})[what]
    assert row["figure"] == pytest.approx(figure)
    assert row["met"] is is_met


def test_a_limit_itself_is_met() -> None:
    most = Target("a", "p", 1.1, True, value("a"))
    least = Target("a", "p", 1.1, False, value("a"))
    assert most.is_met(1.1)
    assert least.is_met(1.1)
    assert not most.is_met(1.11)
    assert not least.is_met(1.09)
    assert (most.shown, least.shown) == ("≤ 1.1x", "≥ 1.1x")


def test_what_is_not_there_has_no_figure_and_says_why() -> None:
    row = figures({"memory": part([])})["memory of one more resident adapter, of its file"]
    assert (row["figure"], row["met"]) == (None, None)
    assert "memory of one more" in row["why"]
    with pytest.raises(LookupError):
        found([{"what": "a"}], what="b")
    with pytest.raises(LookupError):
        begun([{"what": "a"}], "b")


@pytest.mark.parametrize(
    ("figure", "unit", "text"),
    [
        (1.0501, "x", "1.050x"),
        (17.23, "x", "17.2x"),
        (534.4, "x", "534x"),
        (9.871, "ms", "9.87 ms"),
    ],
)
def test_figures_are_shown_with_the_digits_that_mean_something(
    figure: float, unit: str, text: str
) -> None:
    assert show(figure, unit) == text


def test_the_page_names_machine_commit_and_smoke_runs() -> None:
    rows = table.table_of({"memory": part(ROWS["memory"], quick=True)})
    page = table.markdown(rows, MACHINE)
    assert page.startswith("Machine: P, 2 cores, torch T, 2 threads, float32.\n")
    line = next(line for line in page.splitlines() if "memory of one more" in line)
    assert line.endswith("| 1.100x (smoke run: means nothing) | yes | c, d |")
    assert page.count("not measured") == len(TARGETS) - 1


def test_a_row_of_another_processor_than_the_pages_names_it() -> None:
    rows = table.table_of({"memory": part(ROWS["memory"])})
    page = table.markdown(rows, {**MACHINE, "processor": "Q"})
    line = next(line for line in page.splitlines() if "memory of one more" in line)
    assert line.endswith("| c, d, P |")


def test_parts_are_run_alone_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def measured(name: str, is_quick: bool) -> dict[str, Any]:
        ran.append(name)
        return part(ROWS[name], quick=is_quick)

    monkeypatch.setattr(table, "measured", measured)
    out, page = tmp_path / "a.json", tmp_path / "a.md"
    table.main([str(out), "--only", "memory,peft", "--quick"])
    table.main([str(out), "--only", "peft", "--markdown", str(page)])
    assert ran == ["memory", "peft", "peft"]
    document = json.loads(out.read_text())
    assert {name: kept["quick"] for name, kept in document["parts"].items()} == {
        "memory": True,
        "peft": False,
    }
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document
    assert page.read_text() == table.markdown(document["table"], document["machine"])
    table.main([str(out), "--none"])
    assert ran == ["memory", "peft", "peft"]


def test_a_failed_part_loses_none_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(name: str, is_quick: bool) -> dict[str, Any]:
        if name == "peft":
            raise RuntimeError("part peft ended with code 1")
        return part(ROWS[name])

    monkeypatch.setattr(table, "measured", measured)
    with pytest.raises(RuntimeError, match="peft"):
        table.main([str(tmp_path / "a.json"), "--only", "memory,peft"])
    assert list(json.loads((tmp_path / "a.json").read_text())["parts"]) == ["memory"]


def test_wrong_parts_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no part 'deocde'; there are decode"):
        table.main([str(tmp_path / "a.json"), "--only", "deocde"])
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(InvalidArgument, match="no earlier table"):
        table.main([str(tmp_path / "b.json"), "--none"])


@pytest.mark.parametrize("name", list(table.PARTS))
def test_every_parts_options_are_understood(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The programs' own parsers say so, without running anything."""
    chosen = table.PARTS[name]
    program = import_module(f"bench.{PROGRAMS[chosen.program].module}")
    for options in (chosen.options, chosen.quick):
        with pytest.raises(SystemExit) as ended:
            program.main([*options.split(), "--help"])
        assert ended.value.code == 0
        assert "usage" in capsys.readouterr().out


def test_a_part_is_a_process_whose_last_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"bench": "toy", "machine": MACHINE, "rows": [{"what": "a"}]})
    program = ["-c", f"print('for a person'); print({line!r})"]
    monkeypatch.setattr(table.Part, "command", lambda self, quick: [sys.executable, *program])
    measured = table.measured("memory", True)
    assert (measured["rows"], measured["machine"]) == ([{"what": "a"}], MACHINE)
    assert measured["quick"] is True
    monkeypatch.setattr(table.Part, "command", lambda self, q: [sys.executable, "-c", "exit(3)"])
    with pytest.raises(RuntimeError, match="part memory ended with code 3"):
        table.measured("memory", True)

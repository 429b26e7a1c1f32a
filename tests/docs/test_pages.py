"""The pages' form, and their tables held against the code."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from adapters_core.contract.method_registry import registered
from bench.programs.gpu_bars import BARS, GOALS
from bench.table.table import markdown
from registry.jobs.spec import Hyperparameters
from server.cli.commands import serve
from server.settings import Settings

from .pages import PAGES, ROOT, text_of, title
from .program import tree

COLUMNS = 100
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_text_is_wrapped_at_one_width(page: Path) -> None:
    lines = [line for line in text_of(page).splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > COLUMNS] == []


def test_files_of_tests_that_are_named_are_there() -> None:
    """Some run by their names, in processes of their own, in suites that take long."""
    places = ("adapters_core", "registry", "server", "trainer", "client", "bench", "tests", "docs")
    found = [path for place in places for path in (ROOT / place).rglob("*")]
    texts = [path for path in [*found, *ROOT.glob("*.md")] if path.suffix in (".py", ".md", ".sh")]
    named = {
        name for path in texts for name in re.findall(r"\btests/[\w/]+\.py\b", path.read_text())
    }
    assert len(named) > 5
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == [
        "tests/adapters_core/methods/test_yours.py"  # the example of a new method
    ]


def test_every_method_has_a_row() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    for name, method in registered().items():
        assert f"| `{name}` | {method.peft_type} |" in page
        assert registered()[method.name] is method


def test_every_flag_of_serve_is_a_setting() -> None:
    flags = set(serve.__annotations__) - {"return", "check"}
    assert flags <= set(Settings.model_fields)


def test_defaults_of_settings_are_the_documented_ones() -> None:
    text = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    named = re.findall(
        r"`OVERTONE_(\w+)`(?:, `--[\w-]+`)?(?: \| | \()([\d.,]+(?: [KMG]iB)?)\b", text
    )
    assert len(named) > 10
    worker = {str(p.envvar): p.default for p in tree()["worker"].params}
    for name, shown in named:
        number, _, unit = shown.replace(",", "").partition(" ")
        expected = float(number) * {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
        assert DEFAULTS.get(name.lower(), worker.get(f"OVERTONE_{name}")) == expected, name


def test_every_hyperparameter_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    part = text[text.index("- **Hyper-parameters**") :]
    named = re.findall(r"`(\w+)`", part[: part.index("An unknown name")])
    assert set(named) == {field.name for field in fields(Hyperparameters)}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for path, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text_of(page)):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not heading or heading in headings(target), heading


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    found = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", words).lower().replace(" ", "-") for words in found}


def test_the_table_of_figures_is_what_the_program_wrote() -> None:
    measured = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    page = (ROOT / "docs" / "benchmarks.md").read_text().splitlines()
    for line in markdown(measured["table"], measured["machine"]).splitlines():
        assert not line.startswith("| ") or line in page


def test_the_counted_launches_and_bytes_are_those_that_the_bars_hold() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    rows = re.findall(r"^\| ([\w ]+) \| (\d+) \| ([\d.]+)[^|]*\| (\d+) \|", page, re.MULTILINE)
    assert {f"decode {name}" for name, *_ in rows} == {n for n in BARS if n.startswith("decode")}
    for name, *shown in rows:
        bars, goals = BARS[f"decode {name}"], GOALS.get(f"decode {name}", {})
        for figure, text in zip(("launches", "MB", "waits"), shown, strict=True):
            least = 0 if bars[figure] == goals.get(figure) else 0.99 * bars[figure]
            assert least <= float(text) <= 1.01 * bars[figure], (name, figure)


#: Words of README's rows -> what the table of figures calls them.
FIGURES = {
    "adapters on q, v": ["decode step, every row another adapter, q, v, 32 rows"],
    "all seven linears": ["decode step, every row another adapter, all seven, 32 rows"],
    "32 requests": [
        "32 requests, 32 adapters, against PEFT one by one, unmerged",
        "32 requests, 32 adapters, against PEFT one by one, merged",
    ],
    "cold FourierFT file": [
        "cold file to merged weights, against PEFT's load + merge, 1024 wide",
        "cold file to merged weights, against PEFT's load + merge, 4096 wide",
    ],
}


@pytest.mark.parametrize("words", FIGURES)
def test_readmes_figures_are_the_measured_ones(words: str) -> None:
    table = json.loads((ROOT / "docs" / "benchmarks.json").read_text())["table"]
    measured = {row["what"]: row["figure"] for row in table}
    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if words in line]
    shown = re.findall(r"([\d.]+) x", row)
    for text, what in zip(shown, FIGURES[words], strict=True):
        assert text == f"{measured[what]:.{len(text.partition('.')[2])}f}"

"""The pages of docs/reference are what the program prints, and each method has a whole page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapters_core import methods

from .pages import ROOT

PARTS = ("Size", "What is proved", "When to choose it", "What is a reading")
METHODS = sorted({getattr(methods, name).name for name in methods.__all__})


def made(program: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / ".ci" / program), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pages_are_what_the_code_says(tmp_path: Path) -> None:
    made("reference/write.py", str(tmp_path))
    pages = ROOT / "docs" / "reference"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in pages.glob("*.md"))
    for name in names:
        current = (tmp_path / name).read_text()
        assert (pages / name).read_text() == current, "./run reference writes these pages"


@pytest.fixture(scope="module")
def sizes() -> dict[str, list[str]]:
    """Method -> the rows of its page."""
    rows: dict[str, list[str]] = {}
    for line in made("site/method_facts.py").splitlines():
        if line.startswith("|"):
            rows[list(rows)[-1]].append(line)
        else:
            rows[line] = []
    return rows


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_page_with_all_its_parts(name: str, sizes: dict[str, list[str]]) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    assert "```math" in page
    assert f"]({name}.png)" in page
    assert (ROOT / "docs" / "methods" / f"{name}.png").stat().st_size < 40_000
    assert f"`adapters_core/methods/{name}.py`" in page
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == list(PARTS)
    assert len(sizes[name]) >= 2
    assert all(row in page.splitlines() for row in sizes[name])


def test_every_method_is_drawn(tmp_path: Path) -> None:
    made("site/method_facts.py", "--pictures", str(tmp_path))
    assert {path.stem for path in tmp_path.iterdir()} == set(METHODS)

"""The pages as a site: built without a warning, no link leads nowhere, nothing from elsewhere."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from .pages import PAGES, ROOT, blocks, title

SITE = ROOT / ".ci" / "site"
PYTHON = Path(sys.prefix) / "site" / "bin" / "python"
NAVIGATION = tomllib.loads((SITE / "navigation.toml").read_text())["part"]
MADE = sorted((ROOT / "docs").rglob("*.svg"))

needs_site = pytest.mark.skipif(not PYTHON.exists(), reason="needs the environment of ./run docs")


def links() -> ModuleType:
    """The program's own check, which needs nothing but Python."""
    spec = importlib.util.spec_from_file_location("links", SITE / "links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_navigation_has_every_page_once() -> None:
    named = [page for part in NAVIGATION for page in part["pages"]]
    examples = [page for page in named if page.startswith(("examples/", "trainer/"))]
    assert all((ROOT / page).exists() for page in examples)
    pages = [title(page) for page in PAGES if title(page) != "docs/index.md"]
    assert sorted(set(named) - set(examples)) == sorted(pages)
    assert len(named) == len(set(named))


@pytest.mark.slow
@needs_site
def test_the_site_is_built_without_a_warning_or_a_dead_link(tmp_path: Path) -> None:
    command = [ROOT / "run", "docs", "--out", tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert ": 0 faults" in done.stdout
    front = (tmp_path / "site" / "docs" / "index.html").read_text()
    for part in NAVIGATION:
        assert part["title"] in front
        for page in part["pages"]:
            assert Path(page).with_suffix(".html").name in front
    assert (tmp_path / "site" / "searchindex.js").exists()


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="gone.html">x</a>', "a.html: gone.html leads nowhere"),
        ('<a href="b.html#gone">x</a>', "a.html: b.html#gone: no such anchor"),
        ('<a href="#gone">x</a>', "a.html: #gone: no such anchor"),
        ('<a href="../b.html">x</a>', "a.html: ../b.html leads nowhere"),
        ('<img src="gone.svg">', "a.html: gone.svg leads nowhere"),
        ('<script src="https://a.example/x.js"></script>', "a.html: loads https://a.example/x.js"),
        ('<link rel="stylesheet" href="//a.example/x.css">', "a.html: loads //a.example/x.css"),
        (
            "<style>@import 'https://a.example/x.css'</style>",
            "a.html: loads https://a.example/x.css",
        ),
        ('<p style="background:url(http://a.example/x)">', "a.html: loads http://a.example/x"),
    ],
)
def test_what_leads_nowhere_or_elsewhere_is_found(tmp_path: Path, html: str, fault: str) -> None:
    (tmp_path / "a.html").write_text(f'<h1 id="top">A</h1>{html}')
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1>')
    assert links().faults(tmp_path) == [fault]


def test_what_is_there_is_no_fault(tmp_path: Path) -> None:
    good = '<a href="#top">a</a><a href="b.html#there">b</a><a href="https://a.example/">c</a>'
    (tmp_path / "a.html").write_text(f'<h1 id="top">A</h1>{good}<img src="data:image/png;base64,">')
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1>')
    (tmp_path / "c.css").write_text("p { background: url(https://a.example/x.png) }")
    assert links().faults(tmp_path) == ["c.css: loads https://a.example/x.png"]


def test_the_drawings_are_what_the_program_draws(tmp_path: Path) -> None:
    program = [sys.executable, str(SITE / "drawings.py"), str(tmp_path)]
    subprocess.run(program, check=True, timeout=60)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {p.name: p.read_text() for p in (ROOT / "docs" / "concepts").glob("*.svg")}


@pytest.mark.parametrize("drawing", MADE, ids=title)
def test_a_drawing_is_whole_and_loads_nothing(drawing: Path) -> None:
    ElementTree.parse(drawing)
    assert not re.search(r'(?:href|src)="(?!#)|url\((?!#)|@import', drawing.read_text())


def test_every_picture_says_what_it_shows() -> None:
    for page in PAGES:
        for shown in re.findall(r"!\[([^\]]*)\]\(", page.read_text()):
            assert len(shown.split()) >= 4, (title(page), shown)


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "math"], ids=str)
def test_an_equation_is_closed(block: object) -> None:
    text = str(getattr(block, "text", ""))
    assert text.count("{") == text.count("}")
    assert text.count(r"\begin") == text.count(r"\end")
    assert text.count(r"\left") == text.count(r"\right")

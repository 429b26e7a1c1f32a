"""The pages' form, and their tables held against the code."""

import re
from pathlib import Path

import pytest

from adapters_core.table import registered
from server.cli.commands import serve
from server.settings import Settings

from .pages import PAGES, ROOT, text_of, title

COLUMNS = 100


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_text_is_wrapped_at_one_width(page: Path) -> None:
    lines = [line for line in text_of(page).splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > COLUMNS] == []


def test_every_method_has_a_row() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    for name, method in registered().items():
        assert f"| `{name}` | {method.peft_type} |" in page
        assert registered()[method.name] is method


def test_every_flag_of_serve_is_a_setting() -> None:
    flags = set(serve.__annotations__) - {"return", "check"}
    assert flags <= set(Settings.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page)):
        assert (page.parent / target).exists(), target

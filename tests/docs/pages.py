"""The pages, and what in them says something that can be checked."""

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [ROOT / "client" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Pages that say what was: names and commands in them need not exist any more.
OF_THE_PAST = {"history.md"}
CURRENT = [page for page in PAGES if page.name not in OF_THE_PAST]
#: The first line of a block that no test can run, and the reason.
NOT_RUN = "# not run by tests: "

_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_FIRST_OF_LINE = re.compile(r"^(?:\./run|overtone)\b.*?(?= {2,}|$)", re.MULTILINE)
_CHECKED_LINE = re.compile(r"(?:\./run|overtone|GET|POST|PUT|DELETE|PATCH) ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0][:40]}"

    @property
    def reason(self) -> str | None:
        """Return why no test can run it, None if one does."""
        first = self.text.splitlines()[0]
        return first.removeprefix(NOT_RUN) if first.startswith(NOT_RUN) else None

    @property
    def check(self) -> str:
        """Return which test of test_blocks.py or test_commands.py runs or reads it.

        Raises:
            AssertionError: none does.
        """
        if self.language in ("yaml", "math"):
            return {"yaml": "compose", "math": "equation"}[self.language]
        if self.language == "python":
            return "python"
        if self.language == "sh":
            served = "classifier" if "/v1/classify" in self.text else "demo"
            return "not run" if self.reason else served
        lines = [line for line in self.text.splitlines() if line.strip()]
        if self.language == "text" and all(_CHECKED_LINE.match(line) for line in lines):
            return "commands"
        if self.language == "" and "/" in self.text:
            return "tree"
        raise AssertionError(f"no test reads this block: {self}")

    @property
    def commands(self) -> list[str]:
        """Return the commands of this program, without what a line says about them."""
        joined = self.text.replace("\\\n", " ")
        lines = [line.partition(" #")[0].strip() for line in joined.splitlines()]
        return [found[0] for line in lines if (found := _FIRST_OF_LINE.match(line))]


def title(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks() -> list[Block]:
    """Return every fenced block of the current pages."""
    return [
        Block(title(page), *found)
        for page in CURRENT
        for found in _FENCED.findall(page.read_text())
    ]


def text_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCED.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """Return the inline code of a page."""
    return [" ".join(span.split()) for span in _SPAN.findall(text_of(page))]


def code_of(page: Path) -> str:
    """Return a page's inline code and fenced blocks."""
    fenced = [text for _, text in _FENCED.findall(page.read_text())]
    return "\n".join([*spans(page), *fenced])


@cache
def tracked() -> list[str]:
    """Return the paths of all files of the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    return [path for path in listed.stdout.splitlines() if (ROOT / path).exists()]


@cache
def source(under: str = "") -> str:
    """Return the text of all files with code or settings, but for the pages' own tests."""
    endings = (".py", ".lua", ".yml", ".toml", ".json", ".js", ".html", ".conf", ".sh")
    named = ("run", "Dockerfile")
    return "\n".join(
        (ROOT / path).read_text(errors="ignore")
        for path in tracked()
        if path.startswith(under) and not path.startswith("tests/docs/")
        if path.endswith(endings) or path in named
    )


@cache
def words() -> frozenset[str]:
    """Return every word of the code."""
    return frozenset(re.findall(r"\w+", source()))


@cache
def modules(name: str) -> list[str]:
    """Return the source of the modules and packages of that name, and packages' paths."""
    found = [path for path in tracked() if f"/{path}".endswith(f"/{name}.py")]
    inside = [path for path in tracked() if f"/{name}/" in f"/{path}" and path.endswith(".py")]
    texts = [(ROOT / path).read_text() for path in [*found, *inside]]
    return [*texts, "\n".join(inside)] if texts else []

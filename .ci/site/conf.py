"""Sphinx's settings for the site that `./run docs` builds from the repository's Markdown."""

import sys
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAVIGATION = tomllib.loads((HERE / "navigation.toml").read_text())["part"]

project = "Overtone"
author = "the Overtone authors"
copyright = "Apache-2.0"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
root_doc = "docs/index"
include_patterns = ["*.md", "client/README.md", "docs/**.md", "examples/**.md"]
include_patterns += ["trainer/demo/smollm2/README.md"]
exclude_patterns = [".*", "site", "build", "tests", "**/node_modules"]

extensions = ["myst_parser", "mathml"]
myst_heading_anchors = 6
myst_fence_as_directive = ["math"]
smartquotes = False
nitpicky = True
pygments_style = "friendly"
pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = f"Overtone {release}"
html_static_path = ["static"]
html_css_files = ["overtone.css"]
html_extra_path = ["extra"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def setup(app: Any) -> None:
    """Write the navigation under the front page: pages stay plain Markdown on a code host."""
    app.connect("source-read", _add_navigation)


def _add_navigation(app: Any, name: str, text: list[str]) -> None:
    if name == root_doc:
        text[0] += "".join(_toctree(part["title"], part["pages"]) for part in NAVIGATION)


def _toctree(title: str, pages: list[str]) -> str:
    lines = "\n".join(f"/{page.removesuffix('.md')}" for page in pages)
    return f"\n```{{toctree}}\n:caption: {title}\n:hidden:\n\n{lines}\n```\n"

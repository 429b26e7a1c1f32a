"""Writes the pages of docs/reference that are made from the code: `./run reference`.

python .ci/reference/write.py [FOLDER]    FOLDER: elsewhere, for a comparison
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import client_page
import command_page
import settings_page

ROOT = Path(__file__).parents[2]
PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "client.md": client_page.page,
    "commands.md": command_page.page,
    "settings.md": settings_page.page,
}


def main() -> None:
    """Write all pages."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "reference"
    for name, page in PAGES.items():
        (folder / name).write_text("\n".join(page()).rstrip() + "\n")


if __name__ == "__main__":
    main()

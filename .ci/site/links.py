"""What is wrong with a built site: links without a target, and requests to other hosts."""

import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Elements of which a browser loads the address by itself, with the attributes that name it.
LOADED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
}
#: Kinds of `link` that load nothing.
NAMED_ONLY = {"index", "search", "next", "prev", "author", "copyright", "canonical", "alternate"}
_ELSEWHERE = re.compile(r"(?:https?:)?//")
_IN_STYLE = re.compile(r"""url\(\s*['"]?((?:https?:)?//[^'")]+)|@import\s+['"]([^'"]+)""")


class Page(HTMLParser):
    """A page's anchors, links, and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element's addresses."""
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if given.get(name))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        loads = tag != "link" or not NAMED_ONLY & set(given.get("rel", "").split())
        self.loaded += [given[name] for name in LOADED.get(tag, ()) if loads and given.get(name)]
        self.loaded += _of_style(given.get("style", ""))
        self._in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        """Take the addresses of a style's text."""
        if self._in_style:
            self.loaded += _of_style(data)


def faults(site: Path) -> list[str]:
    """Return what is wrong, a line each; an empty list if nothing is."""
    found = [
        f"{page.relative_to(site)}: {fault}"
        for page in sorted(site.rglob("*.html"))
        for fault in _of_page(page, site)
    ]
    for style in sorted(site.rglob("*.css")):
        name = style.relative_to(site)
        found += [f"{name}: loads {it}" for it in _of_style(style.read_text()) if _is_elsewhere(it)]
    return found


@cache
def read(page: Path) -> Page:
    """Return what a page holds."""
    parsed = Page()
    parsed.feed(page.read_text())
    return parsed


def _of_page(page: Path, site: Path) -> Iterator[str]:
    parsed = read(page)
    for address in parsed.loaded:
        if _is_elsewhere(address):
            yield f"loads {address}"
        elif fault := _missing(address, page, site):
            yield fault
    for address in parsed.links:
        if fault := _missing(address, page, site):
            yield fault


def _missing(address: str, page: Path, site: Path) -> str | None:
    """Return what is wrong with an address within the site; None if nothing is."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site.resolve()) or not target.exists():
        return f"{address} leads nowhere"
    anchor = unquote(parts.fragment) if target.suffix == ".html" else ""
    if anchor and anchor not in read(target).anchors:
        return f"{address}: no such anchor"
    return None


def _is_elsewhere(address: str) -> bool:
    return _ELSEWHERE.match(address) is not None


def _of_style(text: str) -> list[str]:
    return [one or other for one, other in _IN_STYLE.findall(text)]

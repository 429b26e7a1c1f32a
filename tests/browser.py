"""Debian's Chromium, driven by playwright; every page notes what must never happen in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 390, "height": 844}
_PATIENCE_MS = 20_000
#: Chromium's own word for an answer that is no success; the page says it in its own words.
_REFUSED = "Failed to load resource"


@dataclass
class Watched:
    """A page of the console, and what went wrong in it: its errors, requests to other hosts."""

    page: Any
    url: str
    faults: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(_PATIENCE_MS)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._on_request)

    def _on_console(self, message: Any) -> None:
        if message.text.startswith(_REFUSED):
            self.refused.append(message.text)
        elif message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.faults.append(f"asks {request.url}")

    def go(self, place: str = "") -> Any:
        """Open a place of the console, such as `adapters/NAME`; return the page."""
        self.page.goto(f"{self.url}/#/{place}")
        self.page.wait_for_selector("main[aria-busy=false]")
        return self.page

    def check(self) -> None:
        """Fail on anything that went wrong so far."""
        assert self.faults == []


def need_chromium() -> Any:
    """Skip the test where there is no browser; return playwright's module."""
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    return pytest.importorskip("playwright.sync_api", reason="needs playwright")


@contextmanager
def chromium() -> Iterator[Any]:
    """Run the browser; the test is skipped where there is none."""
    with need_chromium().sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=_FLAGS, chromium_sandbox=False
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, **context: Any) -> Iterator[Watched]:
    """Open a page of its own, as a browser that was never here; fail on what goes wrong in it."""
    own = browser.new_context(locale="en-GB", **context)
    watched = Watched(own.new_page(), url)
    try:
        yield watched
        watched.check()
    finally:
        own.close()


Open = Callable[..., Watched]

"""The live page in a real browser: it follows what the server does."""

import threading

import pytest

from browser import Watched
from program import Program
from waiting import until

pytestmark = pytest.mark.slow


def test_rates_queue_and_adapters_follow_the_traffic(demo: Program, console: Watched) -> None:
    page = console.go("live")
    page.get_by_role("region", name="By adapter").wait_for()
    over = threading.Event()

    def traffic() -> None:
        body = {"model": "legalese", "prompt": "You may", "max_tokens": 200, "ignore_eos": True}
        while not over.is_set():
            demo.http.post("/v1/completions", json=body)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        tiles = page.locator(".tiles dd")
        until(lambda: float(tiles.first.text_content()) > 1)
        page.get_by_role("row").filter(has_text="legalese").first.wait_for()
        page.get_by_role("img", name="Tokens per second, now").wait_for()
        until(lambda: tiles.nth(4).text_content() == "1 of 64")
    finally:
        over.set()
        thread.join(60)

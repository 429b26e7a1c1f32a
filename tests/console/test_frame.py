"""What all pages share in a real browser: keys, starts, access, phones, keyboards, weight."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser import PHONE, Watched
from live import Live, running, settings_of
from program import Program
from server.base.phases import Phases
from server.process.launch import start_service
from server.service import Service
from server.telemetry.metrics import Metrics

pytestmark = pytest.mark.slow

PAGES = ("playground", "adapters", "adapters/shouting", "training", "live")
MOST_SENT = 160_000


def settled(page: Any) -> None:
    page.wait_for_load_state("networkidle") if "live" not in page.url else None
    page.wait_for_selector("main[aria-busy=false] section, main[aria-busy=false] form")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PAGES)
def test_pages_are_accessible(
    demo: Program, open_console: Callable[..., Watched], place: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_console(demo.url, color_scheme=scheme).go(place)
    settled(page)
    found = axe.run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("place", PAGES)
def test_pages_fit_a_phone(demo: Program, open_console: Callable[..., Watched], place: str) -> None:
    page = open_console(demo.url, viewport=PHONE, has_touch=True).go(place)
    settled(page)
    widest = page.evaluate("() => document.documentElement.scrollWidth")
    assert widest <= PHONE["width"]


def test_a_prompt_is_asked_by_keyboard_alone(console: Watched) -> None:
    page = console.go()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
    page.keyboard.type("The list")
    page.keyboard.press("Control+Enter")
    page.get_by_text("All answers are there").wait_for(state="attached", timeout=60_000)


def test_the_key_is_asked_for_once_and_kept_out_of_addresses(
    serve: Callable[..., Live], open_console: Callable[..., Watched]
) -> None:
    live = serve(api_keys="alice=open-sesame", calibration_s=0)
    watched = open_console(live.url)
    addresses: list[str] = []
    watched.page.on("request", lambda request: addresses.append(request.url))
    page = watched.page
    page.goto(live.url)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button", name="Use this key").click()
    page.get_by_text("missing or wrong").wait_for()
    dialog.get_by_label("API key").fill("open-sesame")
    dialog.get_by_role("button", name="Use this key").click()
    page.get_by_label("Add an adapter").wait_for()
    page.get_by_role("link", name="Adapters").click()
    page.get_by_text("No adapters yet.").wait_for()
    assert page.get_by_role("dialog").count() == 0
    page.reload()
    page.get_by_text("No adapters yet.").wait_for()
    assert not [address for address in addresses if "sesame" in address]
    assert page.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]
    page.get_by_role("link", name="Playground").click()
    page.get_by_label("System message").fill("a secret")
    page.get_by_role("button", name="Forget the key").click()
    page.get_by_role("dialog").wait_for()
    assert "secret" not in page.evaluate("() => JSON.stringify(sessionStorage)")


def test_a_server_that_starts_is_shown_with_its_phase_and_served_when_ready(
    base_folder: Callable[[str], Path], open_console: Callable[..., Watched], tmp_path: Path
) -> None:
    go, settings = threading.Event(), settings_of(base_folder("llama"), tmp_path, calibration_s=0)

    def slow(metrics: Metrics, phases: Phases) -> Service:
        with phases.phase("loading the base"):
            go.wait(60)
        return start_service(settings, metrics, phases)

    with running(settings, slow) as server:
        try:
            page = open_console(server.url).page
            page.goto(server.url)
            page.get_by_text("the server is starting: loading the base").wait_for()
            go.set()
            page.get_by_label("Add an adapter").wait_for()
        finally:
            go.set()


def test_what_the_console_weighs_and_how_soon_it_is_painted(
    demo: Program, open_console: Callable[..., Watched], capsys: pytest.CaptureFixture[str]
) -> None:
    page = open_console(demo.url).go()
    sent = page.evaluate(
        "() => performance.getEntriesByType('resource').concat(performance.getEntriesByType("
        "'navigation')).filter((one) => !/v1|health/.test(one.name))"
        ".reduce((sum, one) => sum + one.transferSize, 0)"
    )
    paint = page.evaluate(
        "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    with capsys.disabled():
        sys.stdout.write(
            f"\nthe playground: {sent / 1000:.0f} kB are sent, first paint after {paint:.0f} ms\n"
        )
    assert sent < MOST_SENT

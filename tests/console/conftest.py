"""One server with the demo's base, its adapters and a worker for all these tests, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser import Watched, chromium, need_chromium, opened

if TYPE_CHECKING:
    from program import Program

DEMO = Path(__file__).parents[2] / "trainer" / "demo"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for one file: while it is open, playwright's event loop counts as running."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The demo, as `overtone demo` serves it: two adapters, and a worker."""
    from program import Program

    need_chromium()
    folder = tmp_path_factory.mktemp("demo")
    settings = {"with_worker": "true", "calibration_s": 0}
    server = Program(DEMO / "base", folder / "data", folder / "log", settings=settings)
    for name in ("legalese", "shouting"):
        assert server.upload(name, files_of(name)).status_code == 201
    yield server
    server.close()


def files_of(name: str) -> dict[str, bytes]:
    folder = DEMO / "adapters" / name
    return {
        one: (folder / one).read_bytes()
        for one in ("adapter_model.safetensors", "adapter_config.json")
    }


@pytest.fixture
def open_console(browser: Any) -> Iterator[Callable[..., Watched]]:
    """Return what opens the console at a URL; nothing may have gone wrong when the test ends."""
    with ExitStack() as stack:
        yield lambda url, **context: stack.enter_context(opened(browser, url, **context))


@pytest.fixture
def console(demo: Program, open_console: Callable[..., Watched]) -> Watched:
    """The console of the demo."""
    return open_console(demo.url)
